"""Residual spaces: basic blocks or bottlenecks of full convolutions.

Source: He et al., Deep residual learning (2016); the stem of three-by-three convolutions with
stride instead of a pool follows He et al., Bag of tricks (2019).
"""

from __future__ import annotations

from typing import Any

from edgenas.search_spaces.staged import Stage, StagedDescription, Stem, with_compression

_BASIC: dict[str, Any] = {"operator": ("basic",), "expansion": (0.5, 1)}
_EITHER: dict[str, Any] = {"operator": ("bottleneck", "basic"), "expansion": (0.25, 0.5, 1)}

RESIDUAL = StagedDescription(
    name="residual",
    resolution=(128, 160, 192, 224),
    stem=Stem(width=(16, 24, 32), stride=2),
    stages=(
        Stage(width=(32, 48, 64), depth=(1, 2, 3), stride=2, **_BASIC),
        Stage(width=(64, 96, 128), depth=(1, 2, 3), stride=2, **_EITHER, se=(False, True)),
        Stage(width=(128, 192, 256), depth=(1, 2, 3, 4), stride=2, **_EITHER, se=(False, True)),
        Stage(width=(256, 384, 512), depth=(1, 2, 3), stride=2, **_EITHER, se=(False, True)),
    ),
)

RESIDUAL_32PX = StagedDescription(
    name="residual-32px",
    resolution=(24, 28, 32),
    stem=Stem(width=(16, 24, 32), stride=2),
    stages=(
        Stage(width=(24, 32, 48), depth=(1, 2), **_BASIC),
        Stage(width=(48, 64, 96), depth=(1, 2), stride=2, **_BASIC, se=(False, True)),
        Stage(width=(96, 128, 160), depth=(1, 2), stride=2, **_EITHER, se=(False, True)),
    ),
)

# Three quarters of the narrowest hidden width, 16, would round to all of it.
RESIDUAL_32PX_JOINT = with_compression(RESIDUAL_32PX, "residual-32px-joint", kept=(0.5, 1))
