"""Classifiers over tokens, and those that took their blocks from them."""

from __future__ import annotations

from edgenas.latency_tables.profile_networks.building_blocks import (
    add,
    attend,
    classify,
    connect,
    convolve,
    depthwise,
    layer_norm,
    linear,
    tokens,
    transpose,
)
from edgenas.latency_tables.profile_networks.draw import Draw


def vit(draw: Draw) -> None:
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


def convnext(draw: Draw) -> None:
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
