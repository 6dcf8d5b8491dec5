"""Networks like the published ones: their blocks at ordinary widths and resolutions, shortened.

Chains of random operators teach how kernels depend on shape; what real models call are the shapes that
published architectures have, in the order in which they follow each other, on maps and weights too large
for a cache. A stage repeats its blocks, and with them its kernels, so two or three of each tell all. Where
every block is another one, the first network of a family has all of them: people bring such models as they
were published.

Sources: the papers that the functions name; widths, strides and kernels are those of their tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from edgenas.latency_tables.building_blocks import (
    activate,
    add,
    attend,
    classify,
    concatenate,
    connect,
    convolve,
    depthwise,
    layer_norm,
    linear,
    normalise,
    pool,
    reshape,
    shuffle,
    slice_channels,
    squeeze_excite,
    tokens,
    transpose,
    upsample,
)
from edgenas.latency_tables.sketch import Sketch

_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.25, 1.4)
_IMAGES = (32, 64, 96, 112, 128, 160, 192, 224, 224, 224, 224, 240, 256, 288, 320)
_SCENES = (160, 256, 320, 320, 416, 416, 512, 640)
_MOST_MACS, _MOST_MACS_WHOLE = 2.5e9, 4e9
_NARROWER, _NARROW, _SMALLER = 0.75, 0.5, 0.7


@dataclass
class Draw:
    """What is chosen anew for each network.

    ``width`` multiplies channels; ``small`` are images whose maps the published stem would shrink to nothing;
    ``whole`` asks for all blocks that differ, as they were published.
    """

    sketch: Sketch
    rng: np.random.Generator
    width: float
    side: int
    whole: bool = False

    @property
    def small(self) -> bool:
        return self.side <= 64

    @property
    def channels(self) -> int:
        return self.sketch.shape[1]

    def wide(self, count: float, divisor: int = 8) -> int:
        """Channels times the width multiplier, in multiples of ``divisor``."""
        return max(divisor, round(count * self.width / divisor) * divisor)

    def one_of(self, *options: str) -> str:
        return str(self.rng.choice(options))

    def number(self, *options: int) -> int:
        return int(self.rng.choice(options))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


Family = Callable[[Draw], None]


def architecture(
    index: int, *, seed: int, int8_scheme: str | None, opset: int, ir_version: int
) -> onnx.ModelProto:
    """The network number ``index`` of the sequence that ``seed`` makes; quantized where a scheme is given.

    Families take turns; of each the first is as published, the others differ in width and resolution.
    """
    lap, turn = divmod(index, len(FAMILIES))
    family, sides = FAMILIES[turn]
    rng = np.random.default_rng([seed, index, int8_scheme is not None, 2])
    width = float(rng.choice(_WIDTHS)) if lap else 1.0
    side = int(rng.choice(sides)) if lap else sorted(sides)[len(sides) // 2]
    state = rng.bit_generator.state
    while True:
        rng.bit_generator.state = state
        sketch = Sketch((1, 3, side, side), rng, int8_scheme=int8_scheme)
        family(Draw(sketch, rng, width, side, whole=not lap))
        if sketch.macs <= (_MOST_MACS if lap else _MOST_MACS_WHOLE) or side <= min(sides):
            name = family.__name__.strip("_").replace("_", "-")
            return sketch.model(f"{name}-{index}", opset=opset, ir_version=ir_version)
        if width > _NARROW:
            width *= _NARROWER
        else:
            side = max(round(side * _SMALLER / 32), 1) * 32


# --- classifiers of full convolutions ---------------------------------------------------------------


def _vgg(draw: Draw) -> None:
    """Simonyan and Zisserman (2014); two convolutions a stage."""
    sketch = draw.sketch
    for count in (64, 128, 256, 512, 512):
        for _ in range(2 if 64 < count < 512 else 1):
            convolve(sketch, draw.wide(count), 3, act="Relu")
        pool(sketch, "MaxPool", 2, 2)
    if draw.small:
        return classify(sketch, 10)
    sketch.op("Flatten", shape=(1, int(np.prod(sketch.shape))), axis=1)
    connect(sketch, draw.wide(1024 if draw.side > 128 else 4096), "Relu")
    connect(sketch, 1000)


def _alexnet(draw: Draw) -> None:
    """Krizhevsky et al. (2012), as the single-tower form of 2014."""
    sketch = draw.sketch
    convolve(
        sketch, draw.wide(64), 11 if not draw.small else 3, stride=4 if not draw.small else 1, act="Relu"
    )
    pool(sketch, "MaxPool", 3, 2, pad=0)
    convolve(sketch, draw.wide(192), 5, act="Relu")
    pool(sketch, "MaxPool", 3, 2, pad=0)
    for count in (384, 256, 256):
        convolve(sketch, draw.wide(count), 3, act="Relu")
    pool(sketch, "MaxPool", 3, 2, pad=0)
    sketch.op("Flatten", shape=(1, int(np.prod(sketch.shape))), axis=1)
    connect(sketch, draw.wide(2048), "Relu")
    connect(sketch, 1000)


def _stem(draw: Draw, count: int, act: str = "Relu") -> None:
    if draw.small:
        return convolve(draw.sketch, draw.wide(count), 3, act=act)
    convolve(draw.sketch, draw.wide(count), 7, stride=2, act=act)
    pool(draw.sketch, "MaxPool", 3, 2)


def _resnet_basic(draw: Draw) -> None:
    """ResNet-18 and -34 of He et al. (2015), and the narrow ones for small images."""
    sketch, narrow = draw.sketch, draw.small and draw.chance(0.5)
    _stem(draw, 16 if narrow else 64)
    for stage, count in enumerate((16, 32, 64) if narrow else (64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            source, out = sketch.value, draw.wide(count)
            convolve(sketch, out, 3, stride=stride, act="Relu")
            convolve(sketch, out, 3)
            _shortcut(sketch, source, stride, "Relu")
    classify(sketch, 10 if draw.small else 1000)


def _resnet_cifar(draw: Draw) -> None:
    """ResNet-20 to -110 of He et al. (2015), which share all kernels, and ResNet-8 of MLPerf Tiny."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(16), 3, act="Relu")
    for stage, count in enumerate((16, 32, 64)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            source = sketch.value
            convolve(sketch, draw.wide(count), 3, stride=stride, act="Relu")
            convolve(sketch, draw.wide(count), 3)
            _shortcut(sketch, source, stride, "Relu")
    classify(sketch, 10)


def _shortcut(sketch: Sketch, source: str, stride: int, act: str = "") -> None:
    """Adds what the block read, through a convolution where its shape differs."""
    main, shape = sketch.value, sketch.shape
    sketch.go_to(source)
    if sketch.shape != shape:
        convolve(sketch, shape[1], stride=stride)
    shortcut = sketch.value
    sketch.go_to(main)
    add(sketch, shortcut, act)


def _bottlenecks(draw: Draw, group_width: int = 0, *, attention: bool = False) -> None:
    sketch = draw.sketch
    _stem(draw, 64)
    for stage, count in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            source = sketch.value
            hidden = draw.wide(count * (2 if group_width else 1), 32)
            groups = hidden // group_width if group_width else 1
            convolve(sketch, hidden, act="Relu")
            convolve(sketch, hidden, 3, stride=stride, groups=groups, act="Relu")
            convolve(sketch, draw.wide(4 * count, 32))
            if attention:
                squeeze_excite(sketch, max(8, draw.channels // 16))
            _shortcut(sketch, source, stride, "Relu")
    classify(sketch, 1000)


def _resnet_bottleneck(draw: Draw) -> None:
    """ResNet-50 and deeper of He et al. (2015), some with squeeze and excite (Hu et al. 2018)."""
    _bottlenecks(draw, attention=draw.chance(0.25))


def _resnext(draw: Draw) -> None:
    """Xie et al. (2017)."""
    _bottlenecks(draw, draw.number(4, 8, 16))


def _regnet(draw: Draw) -> None:
    """RegNetX and RegNetY of Radosavovic et al. (2020)."""
    sketch, attention = draw.sketch, draw.chance(0.5)
    width, widths = (
        (8, (32, 64, 160, 384)), (16, (48, 96, 192, 432)),
        (16, (64, 128, 320, 672)), (24, (72, 168, 408, 912)),
    )[int(draw.rng.integers(4))]  # fmt: skip
    convolve(sketch, 32, 3, stride=2, act="Relu")
    for count in widths:
        for block in range(2):
            source, stride = sketch.value, 1 if block else 2
            convolve(sketch, count, act="Relu")
            convolve(sketch, count, 3, stride=stride, groups=count // width, act="Relu")
            if attention:
                squeeze_excite(sketch, max(8, count // 4))
            convolve(sketch, count)
            _shortcut(sketch, source, stride, "Relu")
    classify(sketch, 1000)


def _prelu_resnet(draw: Draw) -> None:
    """Face recognition: batch norm first and PRelu (Deng et al. 2019)."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(64), 3, act="PRelu")
    for count in (64, 128, 256, 512):
        for block in range(2):
            source, stride = sketch.value, 1 if block else 2
            normalise(sketch)
            convolve(sketch, draw.wide(count), 3, act="PRelu")
            convolve(sketch, draw.wide(count), 3, stride=stride)
            _shortcut(sketch, source, stride)
    classify(sketch, 512)


# --- classifiers of depthwise convolutions ----------------------------------------------------------


def _mobilenet_v1(draw: Draw) -> None:
    """Howard et al. (2017)."""
    sketch, act = draw.sketch, draw.one_of("Relu", "Clip")
    convolve(sketch, draw.wide(32), 3, stride=1 if draw.small else 2, act=act)
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (1024, 2), (1024, 1))
    for count, stride in plan:
        depthwise(sketch, 3, stride=stride, act=act)
        convolve(sketch, draw.wide(count), act=act)
    classify(sketch, 1000)


@dataclass(frozen=True)
class _Inverted:
    """An inverted residual; ``squeeze`` is the share of its hidden or input channels that SE keeps."""

    expansion: float
    out: int
    kernel: int = 3
    stride: int = 1
    squeeze: float = 0.0
    act: str = "Clip"


def _inverted(draw: Draw, block: _Inverted, *, gate: str = "Sigmoid", squeeze_act: str = "Relu") -> None:
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
    plan: Sequence[_Inverted],
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
        _inverted(draw, block, gate=gate, squeeze_act=squeeze_act)
        again = _Inverted(block.expansion, block.out, block.kernel, 1, block.squeeze, block.act)
        if block.expansion != 1:
            _inverted(draw, again, gate=gate, squeeze_act=squeeze_act)
    convolve(sketch, max(last, draw.wide(last)), act=act)
    classify(sketch, 1000)


_V2 = ((1, 16, 1), (6, 24, 2), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))


def _mobilenet_v2(draw: Draw) -> None:
    """Sandler et al. (2018)."""
    act = draw.one_of("Clip", "Clip", "Relu")
    plan = [_Inverted(e, out, 3, stride, 0.0, act) for e, out, stride in _V2]
    _stages(draw, plan, stem=32, last=1280, act=act)


def _mnasnet(draw: Draw) -> None:
    """Networks found by search: kernels and expansions of MnasNet, ProxylessNAS and FBNet."""
    act = draw.one_of("Clip", "Relu")
    plan = [
        _Inverted(e if e == 1 else draw.number(3, 4, 6), out, draw.number(3, 5, 7), stride, 0.0, act)
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


def _mobilenet_v3(draw: Draw) -> None:
    """Howard et al. (2019), large and small."""
    large = draw.chance(0.6)
    last = 960 if large else 576
    if draw.whole:
        return _mobilenet_v3_whole(draw, _V3_WHOLE if large else _V3_SMALL_WHOLE, last)
    plan = [
        _Inverted(float(e), int(out), int(kernel), int(stride), float(squeeze), str(act))
        for e, out, kernel, stride, squeeze, act in (_V3 if large else _V3_SMALL)
    ]
    _stages(draw, plan, stem=16, last=last, act="HardSwish", gate="HardSigmoid")


def _mobilenet_v3_whole(draw: Draw, rows: Sequence[tuple[float | str, ...]], last: int) -> None:
    """All blocks that differ, and the classifier of two layers."""
    convolve(draw.sketch, draw.wide(16), 3, stride=2, act="HardSwish")
    for hidden, out, kernel, stride, squeeze, act in rows:
        block = _Inverted(
            int(hidden) / draw.channels, int(out), int(kernel), int(stride), float(squeeze), str(act)
        )
        _inverted(draw, block, gate="HardSigmoid")
    convolve(draw.sketch, draw.wide(last), act="HardSwish")
    classify(draw.sketch, 1000, hidden=1280 if last == 960 else 1024, act="HardSwish")


_EFFICIENT = (
    (1, 16, 3, 1), (6, 24, 3, 2), (6, 40, 5, 2), (6, 80, 3, 2), (6, 112, 5, 1), (6, 192, 5, 2),
    (6, 320, 3, 1),
)  # fmt: skip


def _efficientnet(draw: Draw) -> None:
    """Tan and Le (2019): SE of a quarter of the block's input."""
    plan = [_Inverted(e, out, k, stride, 0.25 / e, "Silu") for e, out, k, stride in _EFFICIENT]
    _stages(draw, plan, stem=32, last=1280, act="Silu", squeeze_act="Silu")


def _efficientnet_lite(draw: Draw) -> None:
    """EfficientNet without SE and with Relu6 (Liu 2020)."""
    plan = [_Inverted(e, out, k, stride) for e, out, k, stride in _EFFICIENT]
    _stages(draw, plan, stem=32, last=1280, act="Clip")


def _efficientnet_v2(draw: Draw) -> None:
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
            block = _Inverted(expansion, count, 3, step, 0.25 / expansion, "Silu")
            _inverted(draw, block, squeeze_act="Silu")
    convolve(sketch, draw.wide(1280), act="Silu")
    classify(sketch, 1000)


def _shufflenet_v1(draw: Draw) -> None:
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
                add(sketch, source, "Relu")
            else:
                sketch.go_to(source)
                pool(sketch, "AveragePool", 3, 2)
                concatenate(sketch, [sketch.value, main])
                activate(sketch, "Relu")
    classify(sketch, 1000)


def _shufflenet_v2(draw: Draw) -> None:
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


def _ghostnet(draw: Draw) -> None:
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


def _xception(draw: Draw) -> None:
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
        _shortcut(sketch, source, 2)
    depthwise(sketch, 3)
    convolve(sketch, draw.wide(728), act="Relu")
    classify(sketch, 1000)


# --- many branches ------------------------------------------------------------------------------------


def _densenet(draw: Draw) -> None:
    """Huang et al. (2017): batch norm first, every layer reads all before it; the middle is left out."""
    sketch, growth = draw.sketch, 32 if draw.whole else draw.number(12, 24, 32, 32, 48)
    _stem(draw, 64)
    count = draw.channels
    for stage, layers in enumerate((6, 12, 24, 16)):
        middle = count if draw.whole else count + growth * int(draw.rng.integers(layers - 3))
        if middle > count:
            convolve(sketch, middle)
        for _ in range(layers if draw.whole else 3):
            source = sketch.value
            normalise(sketch)
            activate(sketch, "Relu")
            convolve(sketch, 4 * growth, act="Relu")
            convolve(sketch, growth, 3)
            concatenate(sketch, [source, sketch.value])
        normalise(sketch)
        activate(sketch, "Relu")
        count = (count + growth * layers) // 2
        convolve(sketch, count)
        if stage < 3:
            pool(sketch, "AveragePool", 2, 2)
    classify(sketch, 1000)


def _squeezenet(draw: Draw) -> None:
    """Iandola et al. (2016), version 1.1, and 1.0, which shrinks its maps later."""
    sketch, early = draw.sketch, draw.chance(0.6)
    stride = 1 if draw.small else 2
    convolve(sketch, draw.wide(64 if early else 96), 3 if early else 7, stride=stride, act="Relu")
    pool(sketch, "MaxPool", 3, 2, pad=0)
    for number, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if number in ((2, 4) if early else (3, 7)):
            pool(sketch, "MaxPool", 3, 2, pad=0)
        convolve(sketch, draw.wide(squeezed), act="Relu")
        _branches(sketch, [(draw.wide(4 * squeezed), 1), (draw.wide(4 * squeezed), 3)])
    convolve(sketch, 1000, act="Relu")
    sketch.op("GlobalAveragePool", shape=(1, 1000, 1, 1))
    sketch.op("Softmax", axis=1)


def _branches(sketch: Sketch, plan: Sequence[tuple[int, int]]) -> None:
    """Convolutions of the same input, side by side: output channels and kernel of each."""
    source, found = sketch.value, []
    for out, kernel in plan:
        sketch.go_to(source)
        convolve(sketch, out, kernel, act="Relu")
        found.append(sketch.value)
    concatenate(sketch, found)


_INCEPTION = (
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128), (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
)  # fmt: skip
_INCEPTION_SHORT = (0, 1, 3, 6, 8)


def _inception(draw: Draw) -> None:
    """GoogLeNet of Szegedy et al. (2015), some with its response normalisation, and its second version."""
    sketch, first = draw.sketch, draw.whole or draw.chance(0.5)
    _stem(draw, 64)
    if first:
        sketch.op("LRN", size=5)
    convolve(sketch, draw.wide(64), act="Relu")
    convolve(sketch, draw.wide(192), 3, act="Relu")
    if draw.whole:
        sketch.op("LRN", size=5)
    pool(sketch, "MaxPool", 3, 2)
    for number, counts in enumerate(_INCEPTION):
        if draw.whole or number in _INCEPTION_SHORT:
            _inception_block(draw, [draw.wide(count) for count in counts], 5 if first else 3)
        if number in (1, 6):
            pool(sketch, "MaxPool", 3, 2)
    classify(sketch, 1000)


def _inception_block(draw: Draw, counts: Sequence[int], kernel: int) -> None:
    sketch, source, found = draw.sketch, draw.sketch.value, []
    alone, before_3, after_3, before_5, after_5, pooled = counts
    for first, second, size in ((alone, 0, 0), (before_3, after_3, 3), (before_5, after_5, kernel)):
        sketch.go_to(source)
        convolve(sketch, first, act="Relu")
        if second:
            convolve(sketch, second, size, act="Relu")
        found.append(sketch.value)
    sketch.go_to(source)
    pool(sketch, "MaxPool" if kernel == 5 else "AveragePool", 3, 1)
    convolve(sketch, pooled, act="Relu")
    concatenate(sketch, [*found, sketch.value])


def _inception_v3(draw: Draw) -> None:
    """Szegedy et al. (2016): kernels of one row or one column."""
    sketch = draw.sketch
    for count, kernel, stride in ((32, 3, 2), (32, 3, 1), (64, 3, 1)):
        convolve(sketch, draw.wide(count), kernel, stride=stride, act="Relu", pad=False)
    pool(sketch, "MaxPool", 3, 2)
    convolve(sketch, draw.wide(80), act="Relu")
    convolve(sketch, draw.wide(192), 3, act="Relu")
    pool(sketch, "MaxPool", 3, 2)
    _branches(sketch, [(draw.wide(64), 1), (draw.wide(96), 3)])
    pool(sketch, "MaxPool", 3, 2)
    convolve(sketch, draw.wide(768), act="Relu")
    for count in (128, 192):
        source, found = sketch.value, []
        convolve(sketch, draw.wide(192), act="Relu")
        found.append(sketch.value)
        sketch.go_to(source)
        convolve(sketch, draw.wide(count), act="Relu")
        convolve(sketch, draw.wide(count), (1, 7), act="Relu")
        convolve(sketch, draw.wide(192), (7, 1), act="Relu")
        concatenate(sketch, [*found, sketch.value])
    classify(sketch, 1000)


# --- tokens ---------------------------------------------------------------------------------------------


def _vit(draw: Draw) -> None:
    """Dosovitskiy et al. (2021), at the widths of DeiT (Touvron et al. 2021)."""
    sketch, width = draw.sketch, draw.number(192, 192, 384)
    patch = 4 if draw.small else 16
    convolve(sketch, width, patch, stride=patch, pad=False)
    tokens(sketch)
    for _ in range(2):
        source = sketch.value
        layer_norm(sketch)
        attend(sketch, width // 64)
        add(sketch, source)
        source = sketch.value
        layer_norm(sketch)
        linear(sketch, 4 * width, "Gelu")
        linear(sketch, width)
        add(sketch, source)
    layer_norm(sketch)
    sketch.op("ReduceMean", shape=(1, width), axes=[1], keepdims=0)
    connect(sketch, 1000)


def _convnext(draw: Draw) -> None:
    """Liu et al. (2022)."""
    sketch, act = draw.sketch, draw.one_of("Gelu", "Relu")
    counts = (96, 192, 384, 768) if draw.chance(0.5) else (40, 80, 160, 320)
    convolve(sketch, counts[0], 4, stride=4, pad=False)
    for stage, count in enumerate(counts):
        if stage:
            convolve(sketch, count, 2, stride=2, pad=False)
        source = sketch.value
        depthwise(sketch, 7)
        transpose(sketch, 0, 2, 3, 1)
        layer_norm(sketch)
        linear(sketch, 4 * count, act)
        linear(sketch, count)
        transpose(sketch, 0, 3, 1, 2)
        add(sketch, source)
    classify(sketch, 1000)


# --- detectors and segmenters -----------------------------------------------------------------------------


def _yolo(draw: Draw) -> None:
    """One-stage detectors of Redmon and Farhadi (2018) and Jocher et al. (2020 to 2023), one scale."""
    sketch, act = draw.sketch, draw.one_of("Silu", "Silu", "LeakyRelu", "Relu")
    width = float(draw.rng.choice([0.25, 0.25, 0.375, 0.5]))
    kept: list[str] = []
    convolve(sketch, round(64 * width), 3, stride=2, act=act)
    for count in (128, 256, 512, 1024):
        convolve(sketch, round(count * width), 3, stride=2, act=act)
        _partial(draw, round(count * width), act)
        kept.append(sketch.value)
    half = draw.channels // 2
    convolve(sketch, half, act=act)
    pooled = [sketch.value]
    for _ in range(3):
        pool(sketch, "MaxPool", 5, 1)
        pooled.append(sketch.value)
    concatenate(sketch, pooled)
    convolve(sketch, 2 * half, act=act)
    for deeper in reversed(kept[1:-1]):
        convolve(sketch, sketch.shape_of(deeper)[1], act=act)
        upsample(sketch)
        concatenate(sketch, [sketch.value, deeper])
        _partial(draw, sketch.shape_of(deeper)[1], act)
    convolve(sketch, 64, 3, act=act)
    convolve(sketch, 85)
    _boxes(sketch)


def _partial(draw: Draw, out: int, act: str) -> None:
    """A cross-stage partial block (Wang et al. 2020): half goes through a bottleneck."""
    sketch, half = draw.sketch, max(8, out // 2)
    convolve(sketch, 2 * half, act=act)
    whole = sketch.value
    left, right = (slice_channels(sketch, whole, start, start + half) for start in (0, half))
    convolve(sketch, half, 3, act=act)
    convolve(sketch, half, 3, act=act)
    add(sketch, right)
    concatenate(sketch, [left, right, sketch.value])
    convolve(sketch, out, act=act)


def _boxes(sketch: Sketch) -> None:
    """What every position tells, as rows between 0 and 1."""
    _, channels, height, width = sketch.shape
    transpose(sketch, 0, 2, 3, 1)
    reshape(sketch, 1, height * width, channels)
    sketch.op("Sigmoid")


def _ssd(draw: Draw) -> None:
    """Liu et al. (2016) on MobileNets: heads on maps of several sizes."""
    sketch, act = draw.sketch, draw.one_of("Clip", "Relu")
    convolve(sketch, draw.wide(32), 3, stride=2, act=act)
    found: list[str] = []
    for count, stride in ((64, 1), (128, 2), (256, 2), (512, 2), (1024, 2)):
        depthwise(sketch, 3, stride=stride, act=act)
        convolve(sketch, draw.wide(count), act=act)
        if count >= 512:
            source = sketch.value
            convolve(sketch, 6 * 25, draw.number(1, 3))
            transpose(sketch, 0, 2, 3, 1)
            reshape(sketch, 1, sketch.shape[1] * sketch.shape[2] * 6, 25)
            found.append(sketch.value)
            sketch.go_to(source)
    rows = sum(sketch.shape_of(value)[1] for value in found)
    sketch.op("Concat", *found, shape=(1, rows, 25), axis=1)
    sketch.op("Softmax", axis=-1)


def _pyramid(draw: Draw) -> None:
    """Feature pyramids (Lin et al. 2017) over a light backbone, as text and face detectors have them."""
    sketch, act = draw.sketch, draw.one_of("HardSwish", "Relu")
    convolve(sketch, draw.wide(16), 3, stride=2, act=act)
    kept: list[str] = []
    for expansion, out, kernel in ((3, 24, 3), (4, 40, 5), (6, 96, 5), (6, 160, 5)):
        _inverted(draw, _Inverted(expansion, out, kernel, 2, 0.0, act))
        _inverted(draw, _Inverted(expansion, out, kernel, 1, draw.number(0, 1) / 4, act), gate="HardSigmoid")
        kept.append(sketch.value)
    lateral = draw.number(64, 96, 128)
    convolve(sketch, lateral)
    for finer in reversed(kept[:-1]):
        upsample(sketch)
        above = sketch.value
        sketch.go_to(finer)
        convolve(sketch, lateral)
        if sketch.shape == sketch.shape_of(above):
            add(sketch, above)
    convolve(sketch, lateral // 4, 3, act="Relu")
    _enlarged(sketch, lateral // 4)
    activate(sketch, "Relu")
    _enlarged(sketch, 1)
    sketch.op("Sigmoid")


def _enlarged(sketch: Sketch, out: int) -> None:
    """A transposed convolution to twice the size."""
    _, channels, height, width = sketch.shape
    sketch.op(
        "ConvTranspose", sketch.value, sketch.weight(channels, out, 2, 2),
        shape=(1, out, 2 * height, 2 * width), kernel_shape=[2, 2], strides=[2, 2],
    )  # fmt: skip


def _unet(draw: Draw) -> None:
    """Ronneberger et al. (2015), down three times and up again."""
    sketch, base = draw.sketch, draw.number(16, 32, 64)
    kept: list[str] = []
    for level in range(4):
        for _ in range(2):
            convolve(sketch, base * 2**level, 3, act="Relu")
        if level < 3:
            kept.append(sketch.value)
            pool(sketch, "MaxPool", 2, 2)
    resized = draw.chance(0.5)
    for level, finer in zip((2, 1, 0), reversed(kept), strict=True):
        if resized:
            upsample(sketch, "linear")
            convolve(sketch, base * 2**level, 3, act="Relu")
        else:
            _enlarged(sketch, base * 2**level)
        concatenate(sketch, [sketch.value, finer])
        convolve(sketch, base * 2**level, 3, act="Relu")
    convolve(sketch, 2)
    sketch.op("Sigmoid")


FAMILIES: tuple[tuple[Family, tuple[int, ...]], ...] = (
    (_resnet_basic, _IMAGES), (_mobilenet_v2, _IMAGES), (_yolo, _SCENES), (_efficientnet, _IMAGES),
    (_resnet_bottleneck, _IMAGES), (_mobilenet_v3, _IMAGES), (_densenet, _IMAGES), (_vit, _IMAGES),
    (_squeezenet, _IMAGES), (_mobilenet_v1, _IMAGES), (_inception, _IMAGES), (_pyramid, _SCENES),
    (_shufflenet_v2, _IMAGES), (_mnasnet, _IMAGES), (_regnet, _IMAGES), (_unet, _IMAGES), (_ssd, _SCENES),
    (_vgg, _IMAGES), (_efficientnet_lite, _IMAGES), (_resnext, _IMAGES), (_convnext, _IMAGES),
    (_efficientnet_v2, _IMAGES), (_shufflenet_v1, _IMAGES), (_inception_v3, (96, 160, 224, 299)),
    (_prelu_resnet, (64, 96, 112, 112, 128)), (_ghostnet, _IMAGES), (_alexnet, _IMAGES), (_xception, _IMAGES),
    (_resnet_cifar, (32, 32, 32, 48, 64)),
)  # fmt: skip
"""What takes turns, with the resolutions that each is used at."""
