"""Says quantization schemes in words."""

from __future__ import annotations

import re

_SPOKEN = {
    "channel": "per channel",
    "tensor": "per tensor",
    "reduced": "7-bit weights",
    "minmax": "whole ranges",
    "percentile": "percentile ranges",
    "entropy": "entropy ranges",
    "mse": "least-error ranges",
    "equalized": "balanced weights",
    "bias": "corrected biases",
    "rounding": "refined rounding",
    "weighted": "float sums",
    "floatgates": "float gates",
}


def spoken(name: str) -> str:
    """A scheme's name for people: ``u8s8-channel-mse-mixed2.1553`` leaves two layers in float."""
    if name == "float16":
        return "16-bit floats"
    types, *words = name.split("-")
    if re.fullmatch("[us]8[us]8", types) is None:
        return name  # float, or what another engine calls its own
    said = [_SPOKEN.get(word, word) for word in words]
    if words and "." in words[-1]:
        count = int("".join(filter(str.isdigit, words[-1].split(".")[0])))
        said[-1] = f"{count} {'node' if count == 1 else 'nodes'} in float"
    return f"int8 ({types}, {', '.join(said)})"
