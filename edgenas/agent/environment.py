"""Where a measurement is made: what stays (processor, runtime) and what moves (clock, heat, load)."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from .backend import Backend
from .cpu import describe_cpu, output_of, text_of

# Raised once between two releases when the same model on the same device comes out otherwise than before:
# since 2 the threads of sessions that are measured in turn no longer disturb each other and have cores of
# their own, outlying rounds do not count, and on virtual boards all processes begin alike.
MEASURING_VERSION = 2

# Written into the image of a virtual board, whose clock counts instructions.
VIRTUAL_CLOCK_MARK = "/etc/edgenas-virtual-clock"

# The Raspberry Pi firmware's answer: bit 0 is under-voltage, bits 1 to 3 are a capped frequency,
# throttling and the soft temperature limit. They hold now; the same sixteen bits higher are what has
# happened since the device was started.
# Source: raspberrypi/documentation, "vcgencmd get_throttled".
_UNDER_VOLTAGE, _THROTTLED, _SINCE_START = 0x1, 0xE, 16


def read_environment(backend: Backend) -> Dict[str, Any]:
    """The ``Environment`` record of this device and this runtime."""
    name, features = describe_cpu()
    ir_version, opset = backend.supported
    return {
        "architecture": platform.machine(),
        "cpu_model": name,
        "cpu_features": features,
        "cores": usable_cores(),
        "memory_bytes": _memory("MemTotal") or 0,
        "operating_system": _operating_system(),
        "python_version": platform.python_version(),
        "runtime": backend.name,
        "runtime_version": backend.version(),
        "float_type": backend.float_type,
        "supported_ir_version": ir_version,
        "supported_opset": opset,
        "virtual_clock": os.path.exists(VIRTUAL_CLOCK_MARK),
        "measuring_version": MEASURING_VERSION,
        "governor": text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "frequency_mhz": frequency_mhz(),
        "temperature_c": temperature_c(),
        **power_flags(),
        "load_1m": os.getloadavg()[0],
        "free_memory_bytes": free_memory_bytes(),
        "unix_time_s": time.time(),
    }


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, and the quota of its control group."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    quota = re.match(r"(\d+) (\d+)", text_of("/sys/fs/cgroup/cpu.max"))
    return min(cores, math.ceil(int(quota[1]) / int(quota[2]))) if quota else cores


def frequency_mhz() -> Optional[float]:
    """The mean clock of the cores right now; None where the system does not tell."""
    paths = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    scaled = [int(text) / 1000 for text in map(text_of, map(str, paths)) if text.isdigit()]
    found = scaled or [float(mhz) for mhz in re.findall(r"cpu MHz\s*:\s*([\d.]+)", text_of("/proc/cpuinfo"))]
    return sum(found) / len(found) if found else None


def temperature_c() -> Optional[float]:
    """The hottest sensor of the processor; of anything, where none says it is the processor's."""
    zones: Dict[bool, List[float]] = {True: [], False: []}
    for zone in Path("/sys/class/thermal").glob("thermal_zone*"):
        reading = text_of(str(zone / "temp"))
        if re.fullmatch(r"-?\d+", reading):
            kind = text_of(str(zone / "type")).lower()
            zones[any(word in kind for word in ("cpu", "soc", "pkg", "core"))].append(int(reading) / 1000)
    readings = zones[True] or zones[False]
    return max(readings) if readings else None


def power_flags() -> Dict[str, Optional[bool]]:
    """What a Raspberry Pi's firmware says of clock and supply; all None on other devices."""
    text = text_of("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if not text and os.path.exists("/proc/device-tree/model"):
        text = output_of("vcgencmd", "get_throttled").partition("=")[2]
    return read_power_flags(text)


def read_power_flags(text: str) -> Dict[str, Optional[bool]]:
    """The firmware's answer, a hexadecimal number, as fields of the ``Environment``."""
    bits = int(text, 16) if re.fullmatch(r"(0x)?[0-9a-fA-F]+", text) else None
    masks = {
        "throttled": _THROTTLED,
        "under_voltage": _UNDER_VOLTAGE,
        "throttled_before": _THROTTLED << _SINCE_START,
        "under_voltage_before": _UNDER_VOLTAGE << _SINCE_START,
    }
    return {name: None if bits is None else bool(bits & mask) for name, mask in masks.items()}


def free_memory_bytes() -> Optional[int]:
    """Memory that can be taken without swapping, within the limit of the control group."""
    free = _memory("MemAvailable")
    limit, used = text_of("/sys/fs/cgroup/memory.max"), text_of("/sys/fs/cgroup/memory.current")
    if free is not None and limit.isdigit() and used.isdigit():
        return max(0, min(free, int(limit) - int(used)))
    return free


def resident_bytes(field: str = "VmRSS") -> int:
    """Memory of this process: ``VmRSS`` now, ``VmHWM`` at most since it started."""
    found = re.search(rf"{field}:\s*(\d+) kB", text_of("/proc/self/status"))
    if found:
        return int(found[1]) * 1024
    import resource

    # Without /proc (macOS, in bytes) the peak has to stand for the present as well.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _memory(field: str) -> Optional[int]:
    found = re.search(rf"{field}:\s*(\d+) kB", text_of("/proc/meminfo"))
    if found:
        return int(found[1]) * 1024
    size = output_of("sysctl", "-n", "hw.memsize") if platform.system() == "Darwin" else ""
    return int(size) if size.isdigit() else None


def _operating_system() -> str:
    release = re.search(r'PRETTY_NAME="?([^"\n]+)', text_of("/etc/os-release"))
    return (
        f"{release[1]}, Linux {platform.release()}"
        if release
        else f"{platform.system()} {platform.release()}"
    )
