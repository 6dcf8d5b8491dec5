"""Hand-designed networks for 32-pixel images, written with the layers of the search spaces.

Each takes one width multiplier, so that all of them can be brought to the same measured latency.
Only benchmarks use them.
"""

from __future__ import annotations

from collections.abc import Callable

from edgenas.search_spaces import AnyLayer, BasicBlock, ConvLayer, Head, InvertedResidual, Network

Builder = Callable[[float, int, int], Network]

# expansion, channels, blocks, stride: Sandler et al. (2018), table 2, with the strides of the first
# two stages at 1, as is the custom for CIFAR.
_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# kernel, hidden, channels, SE, activation, stride: Howard et al. (2019), table 2, with three
# halvings instead of five.
_V3_SMALL = (
    (3, 16, 16, True, "relu", 1),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)


def mobilenetv2(width: float, size: int, classes: int) -> Network:
    """MobileNetV2-like. Source: Sandler et al. (2018)."""
    channels = _scaled(32, width)
    layers: list[AnyLayer] = [ConvLayer(name="stem", in_channels=3, out_channels=channels)]
    for stage, (expansion, out, blocks, stride) in enumerate(_V2, start=1):
        for block in range(blocks):
            layers.append(
                InvertedResidual(
                    name=f"s{stage}b{block}",
                    in_channels=channels,
                    out_channels=_scaled(out, width),
                    hidden=channels * expansion,
                    stride=stride if block == 0 else 1,
                )
            )
            channels = _scaled(out, width)
    head = Head(name="head", in_channels=channels, out_channels=classes, features=_scaled(1280, width))
    return _network("mobilenetv2", size, classes, [*layers, head])


def mobilenetv3_small(width: float, size: int, classes: int) -> Network:
    """MobileNetV3-small-like. Source: Howard et al. (2019)."""
    channels = _scaled(16, width)
    stem = ConvLayer(name="stem", in_channels=3, out_channels=channels, activation="hardswish")
    layers: list[AnyLayer] = [stem]
    for number, (kernel, hidden, out, se, activation, stride) in enumerate(_V3_SMALL):
        layers.append(
            InvertedResidual(
                name=f"b{number}",
                in_channels=channels,
                out_channels=_scaled(out, width),
                hidden=_scaled(hidden, width),
                kernel=kernel,
                stride=stride,
                se=se,
                activation="relu" if activation == "relu" else "hardswish",
            )
        )
        channels = _scaled(out, width)
    head = Head(name="head", in_channels=channels, out_channels=classes, features=_scaled(576, width),
                hidden=_scaled(1024, width), activation="hardswish")  # fmt: skip
    return _network("mobilenetv3-small", size, classes, [*layers, head])


def resnet8(width: float, size: int, classes: int) -> Network:
    """ResNet-8-like: one block a stage. Source: MLPerf Tiny, image classification."""
    return _resnet("resnet8", 1, width, size, classes)


def resnet20(width: float, size: int, classes: int) -> Network:
    """ResNet-20-like: three blocks a stage. Source: He et al. (2016), section 4.2."""
    return _resnet("resnet20", 3, width, size, classes)


FAMILIES: dict[str, Builder] = {
    "mobilenetv2": mobilenetv2,
    "mobilenetv3-small": mobilenetv3_small,
    "resnet8": resnet8,
    "resnet20": resnet20,
}


def _resnet(name: str, blocks: int, width: float, size: int, classes: int) -> Network:
    channels = _scaled(16, width)
    layers: list[AnyLayer] = [ConvLayer(name="stem", in_channels=3, out_channels=channels)]
    for stage, base in enumerate((16, 32, 64), start=1):
        out = _scaled(base, width)
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            layers.append(
                BasicBlock(
                    name=f"s{stage}b{block}",
                    in_channels=channels,
                    out_channels=out,
                    hidden=out,
                    stride=stride,
                )
            )
            channels = out
    return _network(
        name, size, classes, [*layers, Head(name="head", in_channels=channels, out_channels=classes)]
    )


def _network(name: str, size: int, classes: int, layers: list[AnyLayer]) -> Network:
    return Network(name=name, input_shape=(3, size, size), layers=tuple(layers), classes=classes)


def _scaled(channels: int, width: float) -> int:
    """Multiples of 4, at least 4: finer than the papers' 8, so that latencies can be matched."""
    return max(4, round(channels * width / 4) * 4)
