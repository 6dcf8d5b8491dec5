"""Classifiers of depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgenas.latency_tables.profile_networks.building_blocks import (
    activate,
    add,
    classify,
    concatenate,
    convolve,
    depthwise,
    pool,
    shuffle,
    slice_channels,
    squeeze_excite,
)
from edgenas.latency_tables.profile_networks.dense_classifiers import shortcut
from edgenas.latency_tables.profile_networks.draw import Draw


def mobilenet_v1(draw: Draw) -> None:
    """Howard et al. (2017)."""
    sketch, act = draw.sketch, draw.one_of("Relu", "Clip")
    convolve(sketch, draw.wide(32), 3, stride=1 if draw.small else 2, act=act)
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2), (1024, 1))
    for count, stride in plan:
        depthwise(sketch, 3, stride=stride, act=act)
        convolve(sketch, draw.wide(count), act=act)
    classify(sketch, 1000)


@dataclass(frozen=True)
class Inverted:
    """An inverted residual; ``squeeze`` is the share of its hidden or input channels that SE keeps."""

    expansion: float
    out: int
    kernel: int = 3
    stride: int = 1
    squeeze: float = 0.0
    act: str = "Clip"


def inverted(draw: Draw, block: Inverted, *, gate: str = "Sigmoid", squeeze_act: str = "Relu") -> None:
    sketch, source, channels = draw.sketch, draw.sketch.value, draw.channels
    hidden = max(8, round(channels * block.expansion / 8) * 8)
    if block.expansion != 1:
        convolve(sketch, hidden, act=block.act)
    depthwise(sketch, block.kernel, stride=block.stride, act=block.act)
    if block.squeeze:
        squeeze_excite(sketch, max(8, round(hidden * block.squeeze / 8) * 8), squeeze_act, gate)
    convolve(sketch, draw.wide(block.out))
    if block.stride == 1 and draw.channels == channels:
        add(sketch, source)


def _stages(
    draw: Draw,
    plan: Sequence[Inverted],
    *,
    stem: int,
    last: int,
    act: str,
    gate: str = "Sigmoid",
    squeeze_act: str = "Relu",
) -> None:
    """Stages of inverted residuals: the block that halves and one that repeats."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(stem), 3, stride=1 if draw.small else 2, act=act)
    for block in plan:
        inverted(draw, block, gate=gate, squeeze_act=squeeze_act)
        again = Inverted(block.expansion, block.out, block.kernel, 1, block.squeeze, block.act)
        if block.expansion != 1:
            inverted(draw, again, gate=gate, squeeze_act=squeeze_act)
    convolve(sketch, max(last, draw.wide(last)), act=act)
    classify(sketch, 1000)


_V2 = ((1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))


def mobilenet_v2(draw: Draw) -> None:
    """Sandler et al. (2018)."""
    act = draw.one_of("Clip", "Clip", "Relu")
    plan = [Inverted(e, out, 3, stride, 0.0, act) for e, out, stride in _V2]
    _stages(draw, plan, stem=32, last=1280, act=act)


def mnasnet(draw: Draw) -> None:
    """Networks found by search: kernels and expansions of MnasNet, ProxylessNAS and FBNet."""
    act = draw.one_of("Clip", "Relu")
    plan = [
        Inverted(e if e == 1 else draw.number(3, 4, 6), out, draw.number(3, 5, 7), stride, 0.0, act)
        for e, out, stride in (
            (1, 16, 1),
            (3, 24, 2),
            (3, 40, 2),
            (6, 80, 2),
            (6, 96, 1),
            (6, 192, 2),
            (6, 320, 1),
        )
    ]
    _stages(draw, plan, stem=32, last=1280, act=act)


_V3 = (
    (1, 16, 3, 1, 0, "Relu"), (4, 24, 3, 2, 0, "Relu"), (3, 40, 5, 2, 0.25, "Relu"),
    (6, 80, 3, 2, 0, "HardSwish"), (2.5, 80, 3, 1, 0, "HardSwish"), (6, 112, 3, 1, 0.25, "HardSwish"),
    (6, 160, 5, 2, 0.25, "HardSwish"),
)  # fmt: skip
_V3_SMALL = (
    (1, 16, 3, 2, 0.25, "Relu"), (4.5, 24, 3, 2, 0, "Relu"), (4, 40, 5, 2, 0.25, "HardSwish"),
    (3, 48, 5, 1, 0.25, "HardSwish"), (6, 96, 5, 2, 0.25, "HardSwish"),
)  # fmt: skip


# What the blocks that repeat above are in the paper's table: hidden channels instead of an expansion.
_V3_WHOLE = (
    (16, 16, 3, 1, 0, "Relu"), (64, 24, 3, 2, 0, "Relu"), (72, 24, 3, 1, 0, "Relu"),
    (72, 40, 5, 2, 0.25, "Relu"), (120, 40, 5, 1, 0.25, "Relu"), (240, 80, 3, 2, 0, "HardSwish"),
    (200, 80, 3, 1, 0, "HardSwish"), (184, 80, 3, 1, 0, "HardSwish"), (480, 112, 3, 1, 0.25, "HardSwish"),
    (672, 112, 3, 1, 0.25, "HardSwish"), (672, 160, 5, 2, 0.25, "HardSwish"),
    (960, 160, 5, 1, 0.25, "HardSwish"),
)  # fmt: skip
_V3_SMALL_WHOLE = (
    (16, 16, 3, 2, 0.25, "Relu"), (72, 24, 3, 2, 0, "Relu"), (88, 24, 3, 1, 0, "Relu"),
    (96, 40, 5, 2, 0.25, "HardSwish"), (240, 40, 5, 1, 0.25, "HardSwish"), (120, 48, 5, 1, 0.25, "HardSwish"),
    (144, 48, 5, 1, 0.25, "HardSwish"), (288, 96, 5, 2, 0.25, "HardSwish"),
    (576, 96, 5, 1, 0.25, "HardSwish"),
)  # fmt: skip


def mobilenet_v3(draw: Draw) -> None:
    """Howard et al. (2019), large and small."""
    large = draw.chance(0.6)
    last = 960 if large else 576
    if draw.whole:
        return _mobilenet_v3_whole(draw, _V3_WHOLE if large else _V3_SMALL_WHOLE, last)
    plan = [
        Inverted(float(e), int(out), int(kernel), int(stride), float(squeeze), str(act))
        for e, out, kernel, stride, squeeze, act in (_V3 if large else _V3_SMALL)
    ]
    _stages(draw, plan, stem=16, last=last, act="HardSwish", gate="HardSigmoid")


def _mobilenet_v3_whole(draw: Draw, rows: Sequence[tuple[float | str, ...]], last: int) -> None:
    """All blocks that differ, and the classifier of two layers."""
    convolve(draw.sketch, draw.wide(16), 3, stride=2, act="HardSwish")
    for hidden, out, kernel, stride, squeeze, act in rows:
        block = Inverted(
            int(hidden) / draw.channels, int(out), int(kernel), int(stride), float(squeeze), str(act)
        )
        inverted(draw, block, gate="HardSigmoid")
    convolve(draw.sketch, draw.wide(last), act="HardSwish")
    classify(draw.sketch, 1000, hidden=1280 if last == 960 else 1024, act="HardSwish")


_EFFICIENT = (
    (1, 16, 3, 1), (6, 24, 3, 2), (6, 40, 5, 2), (6, 80, 3, 2), (6, 112, 5, 1), (6, 192, 5, 2),
    (6, 320, 3, 1),
)  # fmt: skip


def efficientnet(draw: Draw) -> None:
    """Tan and Le (2019): SE of a quarter of the block's input."""
    plan = [Inverted(e, out, k, stride, 0.25 / e, "Silu") for e, out, k, stride in _EFFICIENT]
    _stages(draw, plan, stem=32, last=1280, act="Silu", squeeze_act="Silu")


def efficientnet_lite(draw: Draw) -> None:
    """EfficientNet without SE and with Relu6 (Liu 2020)."""
    plan = [Inverted(e, out, k, stride) for e, out, k, stride in _EFFICIENT]
    _stages(draw, plan, stem=32, last=1280, act="Clip")


def efficientnet_v2(draw: Draw) -> None:
    """Tan and Le (2021): full convolutions in the first stages."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(24), 3, stride=1 if draw.small else 2, act="Silu")
    for expansion, count, stride in ((1, 24, 1), (4, 48, 2), (4, 64, 2)):
        for step in (stride, 1):
            source, channels = sketch.value, draw.channels
            convolve(sketch, channels * expansion, 3, stride=step, act="Silu")
            convolve(sketch, draw.wide(count))
            if step == 1 and draw.channels == channels:
                add(sketch, source)
    for expansion, count, stride in ((4, 128, 2), (6, 160, 1), (6, 256, 2)):
        for step in (stride, 1):
            block = Inverted(expansion, count, 3, step, 0.25 / expansion, "Silu")
            inverted(draw, block, squeeze_act="Silu")
    convolve(sketch, draw.wide(1280), act="Silu")
    classify(sketch, 1000)


def shufflenet_v1(draw: Draw) -> None:
    """Zhang et al. (2018): grouped pointwise convolutions."""
    sketch = draw.sketch
    groups = draw.number(2, 3, 4, 8)
    start = {2: 200, 3: 240, 4: 272, 8: 384}[groups]
    convolve(sketch, 24, 3, stride=1 if draw.small else 2, act="Relu")
    pool(sketch, "MaxPool", 3, 2)
    for stage in range(3):
        out = start * 2**stage
        for block in range(2):
            source, stride, channels = sketch.value, 1 if block else 2, draw.channels
            convolve(sketch, out // 4, groups=groups if stage or block else 1, act="Relu")
            shuffle(sketch, groups)
            depthwise(sketch, 3, stride=stride)
            convolve(sketch, out - (0 if block else channels), groups=groups if block or stage else 1)
            main = sketch.value
            if block:
                add(sketch, source, "Relu", kind=draw.addition)
            else:
                sketch.go_to(source)
                pool(sketch, "AveragePool", 3, 2)
                concatenate(sketch, [sketch.value, main])
                activate(sketch, "Relu")
    classify(sketch, 1000)


def shufflenet_v2(draw: Draw) -> None:
    """Ma et al. (2018): channels split in halves."""
    sketch, start = draw.sketch, 2 * (58 if draw.whole else draw.number(24, 58, 88, 122))
    convolve(sketch, 24, 3, stride=1 if draw.small else 2, act="Relu")
    pool(sketch, "MaxPool", 3, 2)
    for stage in range(3):
        half = start * 2**stage // 2
        source = sketch.value
        depthwise(sketch, 3, stride=2)
        convolve(sketch, half, act="Relu")
        left = sketch.value
        sketch.go_to(source)
        _shuffled_branch(draw, half, 2)
        concatenate(sketch, [left, sketch.value])
        shuffle(sketch, 2)
        whole = sketch.value
        left = slice_channels(sketch, whole, 0, half)
        slice_channels(sketch, whole, half, 2 * half)
        _shuffled_branch(draw, half, 1)
        concatenate(sketch, [left, sketch.value])
        shuffle(sketch, 2)
    convolve(sketch, 1024, act="Relu")
    classify(sketch, 1000)


def _shuffled_branch(draw: Draw, half: int, stride: int) -> None:
    convolve(draw.sketch, half, act="Relu")
    depthwise(draw.sketch, 3, stride=stride)
    convolve(draw.sketch, half, act="Relu")


def ghostnet(draw: Draw) -> None:
    """Han et al. (2020): half of the channels are made from the other half."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(16), 3, stride=2, act="Relu")
    for hidden, out, kernel, stride in ((48, 24, 3, 2), (72, 40, 5, 2), (240, 80, 3, 2), (480, 112, 3, 1)):
        for step in (stride, 1):
            source = sketch.value
            _ghost(draw, draw.wide(hidden), "Relu")
            if step == 2:
                depthwise(sketch, kernel, stride=2)
            if kernel == 5:
                squeeze_excite(sketch, max(8, draw.channels // 4), gate="HardSigmoid")
            _ghost(draw, draw.wide(out), "")
            if step == 1 and sketch.shape == sketch.shape_of(source):
                add(sketch, source)
    convolve(sketch, draw.wide(480), act="Relu")
    classify(sketch, 1000, hidden=640)


def _ghost(draw: Draw, out: int, act: str) -> None:
    sketch = draw.sketch
    convolve(sketch, out // 2, act=act)
    made = sketch.value
    depthwise(sketch, 3, act=act)
    concatenate(sketch, [made, sketch.value])


def xception(draw: Draw) -> None:
    """Chollet (2017): separable convolutions."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(32), 3, stride=2, act="Relu")
    convolve(sketch, draw.wide(64), 3, act="Relu")
    for count in (128, 256, 728):
        source = sketch.value
        for _ in range(2):
            depthwise(sketch, 3)
            convolve(sketch, draw.wide(count), act="Relu")
        pool(sketch, "MaxPool", 3, 2)
        shortcut(draw, source, 2)
    depthwise(sketch, 3)
    convolve(sketch, draw.wide(728), act="Relu")
    classify(sketch, 1000)
