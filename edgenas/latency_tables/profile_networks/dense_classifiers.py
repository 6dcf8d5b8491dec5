"""Classifiers of full convolutions."""

from __future__ import annotations

import numpy as np

from edgenas.latency_tables.profile_networks.building_blocks import (
    add,
    classify,
    connect,
    convolve,
    normalise,
    pool,
    squeeze_excite,
)
from edgenas.latency_tables.profile_networks.draw import Draw


def vgg(draw: Draw) -> None:
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


def alexnet(draw: Draw) -> None:
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


def stem(draw: Draw, count: int, act: str = "Relu") -> None:
    if draw.small:
        return convolve(draw.sketch, draw.wide(count), 3, act=act)
    convolve(draw.sketch, draw.wide(count), 7, stride=2, act=act)
    pool(draw.sketch, "MaxPool", 3, 2)


def resnet_basic(draw: Draw) -> None:
    """ResNet-18 and -34 of He et al. (2015), and the narrow ones for small images."""
    sketch, narrow = draw.sketch, draw.small and draw.chance(0.5)
    stem(draw, 16 if narrow else 64)
    for stage, count in enumerate((16, 32, 64) if narrow else (64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            source, out = sketch.value, draw.wide(count)
            convolve(sketch, out, 3, stride=stride, act="Relu")
            convolve(sketch, out, 3)
            shortcut(draw, source, stride, "Relu")
    classify(sketch, 10 if draw.small else 1000)


def resnet_cifar(draw: Draw) -> None:
    """ResNet-20 to -110 of He et al. (2015), which share all kernels, and ResNet-8 of MLPerf Tiny."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(16), 3, act="Relu")
    for stage, count in enumerate((16, 32, 64)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            source = sketch.value
            convolve(sketch, draw.wide(count), 3, stride=stride, act="Relu")
            convolve(sketch, draw.wide(count), 3)
            shortcut(draw, source, stride, "Relu")
    classify(sketch, 10)


def shortcut(draw: Draw, source: str, stride: int, act: str = "") -> None:
    """Adds what the block read, through a convolution where its shape differs."""
    sketch = draw.sketch
    main, shape = sketch.value, sketch.shape
    sketch.go_to(source)
    if sketch.shape != shape:
        convolve(sketch, shape[1], stride=stride)
    shortcut = sketch.value
    sketch.go_to(main)
    add(sketch, shortcut, act, kind=draw.addition)


def _bottlenecks(draw: Draw, group_width: int = 0, *, attention: bool = False) -> None:
    sketch = draw.sketch
    stem(draw, 64)
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
            shortcut(draw, source, stride, "Relu")
    classify(sketch, 1000)


def resnet_bottleneck(draw: Draw) -> None:
    """ResNet-50 and deeper of He et al. (2015), some with squeeze and excite (Hu et al. 2018)."""
    _bottlenecks(draw, attention=draw.chance(0.25))


def resnext(draw: Draw) -> None:
    """Xie et al. (2017)."""
    _bottlenecks(draw, draw.number(4, 8, 16))


def regnet(draw: Draw) -> None:
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
            shortcut(draw, source, stride, "Relu")
    classify(sketch, 1000)


def prelu_resnet(draw: Draw) -> None:
    """Face recognition: batch norm first and PRelu (Deng et al. 2019)."""
    sketch = draw.sketch
    convolve(sketch, draw.wide(64), 3, act="PRelu")
    for count in (64, 128, 256, 512):
        for block in range(2):
            source, stride = sketch.value, 1 if block else 2
            normalise(sketch)
            convolve(sketch, draw.wide(count), 3, act="PRelu")
            convolve(sketch, draw.wide(count), 3, stride=stride)
            shortcut(draw, source, stride)
    classify(sketch, 512)
