"""Finds the newest ONNX IR version and opset that a runtime accepts, by letting it load tiny models."""

from __future__ import annotations

from typing import Callable, Tuple

from .failures import AgentError
from .onnx_wire import tiny_model

# Every runtime in scope loads these; the search starts here and stops well above today's newest.
_OLDEST_IR, _NEWEST_IR = 7, 24
_OLDEST_OPSET, _NEWEST_OPSET = 12, 48


def newest_accepted(accepts: Callable[[bytes], bool]) -> Tuple[int, int]:
    """The highest IR version and opset for which ``accepts`` is true.

    Raises:
        AgentError: not even the oldest model is accepted.
    """
    if not accepts(tiny_model(_OLDEST_IR, _OLDEST_OPSET)):
        raise AgentError("device", "the runtime does not load a one-node ONNX model")
    opset = _highest(_OLDEST_OPSET, _NEWEST_OPSET, lambda number: accepts(tiny_model(_OLDEST_IR, number)))
    ir_version = _highest(_OLDEST_IR, _NEWEST_IR, lambda number: accepts(tiny_model(number, _OLDEST_OPSET)))
    return ir_version, opset


def _highest(low: int, high: int, accepted: Callable[[int], bool]) -> int:
    """The last accepted number of low..high, where low is accepted and acceptance ends once."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if accepted(middle) else (low, middle - 1)
    return low
