"""Networks like the published ones: their blocks at ordinary widths and resolutions, shortened.

Chains of random operators teach how kernels depend on shape; what real models call are the shapes that
published architectures have, in the order in which they follow each other, on maps and weights too large
for a cache. A stage repeats its blocks, and with them its kernels, so two or three of each tell all. Where
every block is another one, the first network of a family has all of them: people bring such models as they
were published.

Sources: the papers that the functions name; widths, strides and kernels are those of their tables.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgenas.latency_tables.profile_networks.branched_classifiers import (
    densenet,
    inception,
    inception_bn,
    inception_v3,
    squeezenet,
)
from edgenas.latency_tables.profile_networks.dense_classifiers import (
    alexnet,
    prelu_resnet,
    regnet,
    resnet_basic,
    resnet_bottleneck,
    resnet_cifar,
    resnext,
    vgg,
)
from edgenas.latency_tables.profile_networks.depthwise_classifiers import (
    efficientnet,
    efficientnet_lite,
    efficientnet_v2,
    ghostnet,
    mnasnet,
    mobilenet_v1,
    mobilenet_v2,
    mobilenet_v3,
    shufflenet_v1,
    shufflenet_v2,
    xception,
)
from edgenas.latency_tables.profile_networks.detectors import pyramid, ssd, unet, yolo
from edgenas.latency_tables.profile_networks.draw import Draw
from edgenas.latency_tables.profile_networks.sketch import Sketch
from edgenas.latency_tables.profile_networks.token_classifiers import convnext, vit

_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.25, 1.4)
_NARROW_WIDTHS, _SMALL_SIDE, _NARROW_EVERY = (0.25, 0.25, 0.35, 0.5), 160, 3  # of one lap in three
_IMAGES = (32, 64, 96, 112, 128, 160, 192, 224, 224, 224, 224, 240, 256, 288, 320)
_SCENES = (160, 256, 320, 320, 416, 416, 512, 640)
_MOST_MACS, _MOST_MACS_WHOLE = 2.5e9, 4e9
_NARROWER, _NARROW, _SMALLER = 0.75, 0.5, 0.7

Family = Callable[[Draw], None]


def architecture(
    index: int, *, seed: int, int8_scheme: str | None, opset: int, ir_version: int
) -> onnx.ModelProto:
    """The network number ``index`` of the sequence that ``seed`` makes; quantized where a scheme is given.

    Families take turns; of each the first is as published, the others differ in width and resolution, and
    one in three is as small as the processors of phones and cameras need it.
    """
    lap, turn = divmod(index, len(FAMILIES))
    family, sides = FAMILIES[turn]
    rng = np.random.default_rng([seed, index, int8_scheme is not None, 2])
    width, side = _width_and_side(lap, sides, rng)
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


def _width_and_side(lap: int, sides: tuple[int, ...], rng: np.random.Generator) -> tuple[float, int]:
    if not lap:
        return 1.0, sorted(sides)[len(sides) // 2]
    if lap % _NARROW_EVERY == _NARROW_EVERY - 1:
        small = [side for side in sides if side <= _SMALL_SIDE]
        return float(rng.choice(_NARROW_WIDTHS)), int(rng.choice(small))
    return float(rng.choice(_WIDTHS)), int(rng.choice(sides))


FAMILIES: tuple[tuple[Family, tuple[int, ...]], ...] = (
    (resnet_basic, _IMAGES), (mobilenet_v2, _IMAGES), (yolo, _SCENES), (efficientnet, _IMAGES),
    (resnet_bottleneck, _IMAGES), (mobilenet_v3, _IMAGES), (densenet, _IMAGES), (vit, _IMAGES),
    (squeezenet, _IMAGES), (mobilenet_v1, _IMAGES), (inception, _IMAGES), (pyramid, _SCENES),
    (shufflenet_v2, _IMAGES), (mnasnet, _IMAGES), (regnet, _IMAGES), (unet, _IMAGES), (ssd, _SCENES),
    (vgg, _IMAGES), (efficientnet_lite, _IMAGES), (resnext, _IMAGES), (convnext, _IMAGES),
    (efficientnet_v2, _IMAGES), (shufflenet_v1, _IMAGES), (inception_v3, (96, 160, 224, 299)),
    (prelu_resnet, (64, 96, 112, 112, 128)), (ghostnet, _IMAGES), (alexnet, _IMAGES), (xception, _IMAGES),
    (resnet_cifar, (32, 32, 32, 48, 64)), (inception_bn, _IMAGES),
)  # fmt: skip
"""What takes turns, with the resolutions that each is used at."""
