"""MobileNetV3-style spaces: inverted residuals, depthwise or fused, with SE and HardSwish as choices.

Source: Howard et al., Searching for MobileNetV3 (2019), and Cai et al., Once-for-all (2020), for
stages, kernels and expansions; Tan and Le, EfficientNetV2 (2021), for fused blocks in early stages.
"""

from __future__ import annotations

from typing import Any

from edgenas.search_spaces.staged import Classifier, Stage, StagedDescription, Stem, with_compression

_EARLY: dict[str, Any] = {"operator": ("depthwise", "fused"), "activation": ("relu", "hardswish")}
_LATE: dict[str, Any] = {"operator": ("depthwise",), "activation": ("relu", "hardswish"), "se": (False, True)}
_OFA: dict[str, Any] = {"kernel": (3, 5, 7), "expansion": (3, 4, 6)}

MOBILENETV3 = StagedDescription(
    name="mobilenetv3",
    resolution=(128, 160, 192, 224),
    stem=Stem(width=(16, 24), stride=2, activation="hardswish"),
    stages=(
        Stage(width=(16, 24), depth=(1,), operator=("depthwise", "fused"), expansion=(1,)),
        Stage(width=(24, 32), depth=(1, 2, 3, 4), stride=2, **_EARLY, **_OFA),
        Stage(width=(32, 40, 48), depth=(1, 2, 3, 4), stride=2, **_EARLY, **_OFA, se=(False, True)),
        Stage(width=(64, 80, 96), depth=(1, 2, 3, 4), stride=2, **_LATE, **_OFA),
        Stage(width=(96, 112, 128), depth=(1, 2, 3, 4), **_LATE, **_OFA),
        Stage(width=(128, 160, 192), depth=(1, 2, 3, 4), stride=2, **_LATE, **_OFA),
    ),
    head=Classifier(features=(480, 960), hidden=1280, activation="hardswish"),
)

# Images of 32 pixels are halved in the stem at once and kernels stay at 3: measured on CIFAR-10 at
# equal latency and equal training time, dense blocks on 16-pixel maps are more accurate than
# narrower ones on 32-pixel maps, and five by five covers most of what is left of an 8-pixel map.
# The widths keep the largest network, which every step of a supernet trains, below 50 million MACs.
MOBILENETV3_32PX = StagedDescription(
    name="mobilenetv3-32px",
    resolution=(24, 28, 32),
    stem=Stem(width=(16, 24, 32), stride=2),
    stages=(
        Stage(width=(24, 32), depth=(1, 2), expansion=(1, 2), **_EARLY),
        Stage(width=(48, 64), depth=(1, 2, 3), stride=2, expansion=(1, 2), **_EARLY, se=(False, True)),
        Stage(width=(96, 128, 160), depth=(1, 2, 3), stride=2, expansion=(1, 2), **_EARLY, se=(False, True)),
    ),
)

# A space of its own, because its supernet also trains compressed networks, which the plain space's
# checkpoints and saved genomes know nothing of.
MOBILENETV3_32PX_JOINT = with_compression(MOBILENETV3_32PX, "mobilenetv3-32px-joint", kept=(0.5, 0.75, 1))

MOBILENETV3_DEMO = StagedDescription(
    name="mobilenetv3-demo",
    resolution=(32, 40, 48),
    stem=Stem(width=(16,), stride=2, activation="hardswish"),
    stages=(
        Stage(width=(16, 24), depth=(1, 2), operator=("depthwise", "fused"), expansion=(1, 2)),
        Stage(width=(24, 32), depth=(1, 2), stride=2, kernel=(3, 5), expansion=(2, 4), **_EARLY),
        Stage(width=(48, 64), depth=(1, 2), stride=2, kernel=(3, 5), expansion=(2, 4), **_LATE),
    ),
    head=Classifier(features=(128,)),
)
