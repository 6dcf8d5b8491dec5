"""What ONNX Runtime raises on the host where it refuses a model or cannot run it."""

from __future__ import annotations

from functools import cache


@cache
def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Its classes, which have no base of their own but ``Exception``, and pybind11's ``RuntimeError``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError)
