"""Classifiers of many branches, and of layers that read all before them."""

from __future__ import annotations

from collections.abc import Sequence

from edgenas.latency_tables.profile_networks.building_blocks import (
    activate,
    classify,
    concatenate,
    convolve,
    normalise,
    pool,
)
from edgenas.latency_tables.profile_networks.dense_classifiers import stem
from edgenas.latency_tables.profile_networks.draw import Draw
from edgenas.latency_tables.profile_networks.sketch import Sketch


def densenet(draw: Draw) -> None:
    """Huang et al. (2017): batch norm first, every layer reads all before it; the middle is left out."""
    sketch, growth = draw.sketch, 32 if draw.whole else draw.number(12, 24, 32, 32, 48)
    scaled = not draw.whole and draw.chance(0.5)
    stem(draw, 64)
    count = draw.channels
    for stage, layers in enumerate((6, 12, 24, 16)):
        middle = count if draw.whole else count + growth * int(draw.rng.integers(layers - 3))
        if middle > count:
            convolve(sketch, middle)
        for _ in range(layers if draw.whole else 3):
            source = sketch.value
            normalise(sketch, scaled=scaled)
            activate(sketch, "Relu")
            convolve(sketch, 4 * growth, act="Relu")
            convolve(sketch, growth, 3)
            concatenate(sketch, [source, sketch.value])
        normalise(sketch, scaled=scaled)
        activate(sketch, "Relu")
        count = (count + growth * layers) // 2
        convolve(sketch, count)
        if stage < 3:
            pool(sketch, "AveragePool", 2, 2)
    classify(sketch, 1000)


def squeezenet(draw: Draw) -> None:
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


def inception(draw: Draw) -> None:
    """GoogLeNet of Szegedy et al. (2015), some with its response normalisation, and its second version."""
    sketch, first = draw.sketch, draw.whole or draw.chance(0.5)
    stem(draw, 64)
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


_BRANCHED = (
    (64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0),
    (224, 64, 96, 96, 128, 128), (192, 96, 128, 96, 128, 128), (160, 128, 160, 128, 160, 96),
    (96, 128, 192, 160, 192, 96), (0, 128, 192, 192, 256, 0),
    (352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128),
)  # fmt: skip
_BRANCHED_SHORT = (1, 2, 4, 7, 8)


def inception_bn(draw: Draw) -> None:
    """The second version by Ioffe and Szegedy (2015): two convolutions of three in place of one of five."""
    sketch = draw.sketch
    stem(draw, 64)
    convolve(sketch, draw.wide(64), act="Relu")
    convolve(sketch, draw.wide(192), 3, act="Relu")
    pool(sketch, "MaxPool", 3, 2)
    for number, counts in enumerate(_BRANCHED):
        if draw.whole or number in _BRANCHED_SHORT:
            _branched_block(draw, [draw.wide(count) if count else 0 for count in counts])
    classify(sketch, 1000)


def _branched_block(draw: Draw, counts: Sequence[int]) -> None:
    """Four branches; those of a block that halves the maps lack the first, and pool without a convolution."""
    sketch, source, found = draw.sketch, draw.sketch.value, []
    alone, before_3, after_3, before_double, after_double, pooled = counts
    stride = 1 if alone else 2
    if alone:
        convolve(sketch, alone, act="Relu")
        found.append(sketch.value)
    for first, second, again in ((before_3, after_3, False), (before_double, after_double, True)):
        sketch.go_to(source)
        convolve(sketch, first, act="Relu")
        if again:
            convolve(sketch, second, 3, act="Relu")
        convolve(sketch, second, 3, stride=stride, act="Relu")
        found.append(sketch.value)
    sketch.go_to(source)
    pool(sketch, "MaxPool" if stride == 2 else "AveragePool", 3, stride)
    if pooled:
        convolve(sketch, pooled, act="Relu")
    concatenate(sketch, [*found, sketch.value])


def inception_v3(draw: Draw) -> None:
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
