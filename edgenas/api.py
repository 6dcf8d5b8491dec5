"""Every command as a Python function of the same name and options.

    from edgenas.api import predict
    predict("model.onnx", device="local").latency_ms

Imports happen when a function is first asked for: ``train`` needs torch, ``predict`` does not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgenas.pipeline.check import check
    from edgenas.pipeline.ci_init import ci_init
    from edgenas.pipeline.clean import clean
    from edgenas.pipeline.demo import demo
    from edgenas.pipeline.device import device_check, device_list, device_show
    from edgenas.pipeline.device_setup import device_add, device_setup, device_start, device_stop
    from edgenas.pipeline.predict import predict
    from edgenas.pipeline.profile import profile
    from edgenas.pipeline.quantize import quantize
    from edgenas.pipeline.report import report
    from edgenas.pipeline.run import run
    from edgenas.pipeline.search import search
    from edgenas.pipeline.table import (
        table_diff,
        table_export,
        table_import,
        table_list,
        table_show,
        table_verify,
    )
    from edgenas.pipeline.train import train
    from edgenas.pipeline.validate import validate

__all__ = [
    "check",
    "ci_init",
    "clean",
    "demo",
    "device_add",
    "device_check",
    "device_list",
    "device_setup",
    "device_show",
    "device_start",
    "device_stop",
    "predict",
    "profile",
    "quantize",
    "report",
    "run",
    "search",
    "table_diff",
    "table_export",
    "table_import",
    "table_list",
    "table_show",
    "table_verify",
    "train",
    "validate",
]

_FILES = {
    "ci_init": "ci_init",
    **dict.fromkeys(("device_add", "device_setup", "device_start", "device_stop"), "device_setup"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgenas.api' has no attribute '{name}'")
    # device_start stands in pipeline/device_setup.py, ci_init in pipeline/ci_init.py, table_show in table.py
    stem = _FILES.get(name, name.split("_", maxsplit=1)[0])
    return getattr(importlib.import_module(f"edgenas.pipeline.{stem}"), name)
