"""Detectors and segmenters."""

from __future__ import annotations

from edgenas.latency_tables.profile_networks.building_blocks import (
    activate,
    add,
    concatenate,
    convolve,
    depthwise,
    pool,
    reshape,
    slice_channels,
    transpose,
    upsample,
)
from edgenas.latency_tables.profile_networks.depthwise_classifiers import Inverted, inverted
from edgenas.latency_tables.profile_networks.draw import Draw
from edgenas.latency_tables.profile_networks.sketch import Sketch


def yolo(draw: Draw) -> None:
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


def ssd(draw: Draw) -> None:
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


def pyramid(draw: Draw) -> None:
    """Feature pyramids (Lin et al. 2017) over a light backbone, as text and face detectors have them."""
    sketch, act = draw.sketch, draw.one_of("HardSwish", "Relu")
    convolve(sketch, draw.wide(16), 3, stride=2, act=act)
    kept: list[str] = []
    for expansion, out, kernel in ((3, 24, 3), (4, 40, 5), (6, 96, 5), (6, 160, 5)):
        inverted(draw, Inverted(expansion, out, kernel, 2, 0.0, act))
        inverted(draw, Inverted(expansion, out, kernel, 1, draw.number(0, 1) / 4, act), gate="HardSigmoid")
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


def unet(draw: Draw) -> None:
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
