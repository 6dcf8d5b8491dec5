"""Dense spaces: full convolutions only, which small images leave time for and integers speed up most.

On maps of a few hundred pixels a depthwise convolution is bound by memory: a CPU runs a full one of
several times the MACs in the same time, and in int8 it gains twice, where a depthwise one gains little
or loses. With one kind of block and no choice inside it every weight is shared by all networks of a
space, so that a supernet learns nearly as fast as one network.

Source: Tan and Le, EfficientNetV2 (2021), for full convolutions in early stages; Ding et al., RepVGG
(2021), for networks of nothing else; Radosavovic et al., Designing network design spaces (2020), for
spaces of widths and depths alone.
"""

from __future__ import annotations

from typing import Any

from edgenas.search_spaces.staged import Stage, StagedDescription, Stem

_PLAIN: dict[str, Any] = {"operator": ("fused",), "expansion": (1,)}

DENSE_32PX = StagedDescription(
    name="dense-32px",
    resolution=(24, 28, 32),
    stem=Stem(width=(16, 24, 32), stride=2),
    stages=(
        Stage(width=(24, 32, 48), depth=(1, 2), **_PLAIN),
        Stage(width=(48, 64, 96), depth=(1, 2, 3), stride=2, **_PLAIN),
        Stage(width=(96, 128, 160, 192), depth=(1, 2, 3), stride=2, **_PLAIN),
    ),
)

DENSE_DEMO = StagedDescription(
    name="dense-demo",
    resolution=(32, 40, 48),
    stem=Stem(width=(16,), stride=2),
    stages=(
        Stage(width=(16, 24, 32), depth=(1, 2), **_PLAIN),
        Stage(width=(32, 48, 64), depth=(1, 2), stride=2, **_PLAIN),
        Stage(width=(64, 96, 128), depth=(1, 2), stride=2, **_PLAIN),
    ),
)
