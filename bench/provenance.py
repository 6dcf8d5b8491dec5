"""Where and with what a benchmark ran: part of every result file."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path


def provenance(*packages: str) -> dict[str, object]:
    """Processor, load, Python and the versions of ``packages``."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
    }
