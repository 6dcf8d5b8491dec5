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
    "device_check",
    "device_list",
    "device_show",
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edgenas.api' has no attribute '{name}'")
    # ci_init stands in pipeline/ci_init.py, table_show in pipeline/table.py
    stem = name if name == "ci_init" else name.split("_", maxsplit=1)[0]
    return getattr(importlib.import_module(f"edgenas.pipeline.{stem}"), name)
