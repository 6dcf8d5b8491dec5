"""The parts of a layer that have no weights, as torch operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from edgenas.search_spaces.parts import (
    Activate,
    Add,
    Attention,
    AveragePool,
    GlobalPool,
    Scale,
    Zero,
    padding,
)
from edgenas.search_spaces.torch_builder import activate, attended

Weightless: TypeAlias = Activate | Add | Scale | GlobalPool | AveragePool | Zero | Attention


def combine(part: Weightless, inputs: Sequence[Tensor]) -> Tensor:
    """The output of ``part`` for its inputs (N, C, H, W) in order."""
    match part:
        case Activate():
            return activate(inputs[0], part.activation)
        case Add():
            return activate(inputs[0] + inputs[1], part.activation)
        case Scale():
            return inputs[0] * inputs[1]
        case GlobalPool():
            return inputs[0].mean((2, 3), keepdim=True)
        case Attention():
            return attended(inputs[0], inputs[1], inputs[2], part.heads)
        case Zero():
            return torch.zeros_like(inputs[0])
        case AveragePool():
            return F.avg_pool2d(inputs[0], part.kernel, part.stride, padding(part), count_include_pad=False)
