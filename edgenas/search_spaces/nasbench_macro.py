"""NAS-Bench-Macro: eight places with one of three blocks; 6,561 networks with known accuracies.

Source: Su et al., Prioritized architecture sampling with Monte-Carlo tree search (CVPR 2021), and
``train/model.py`` of xiusu/NAS-Bench-Macro for the shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgenas.search_spaces.layers import AnyLayer, ConvLayer, Head, InvertedResidual
from edgenas.search_spaces.network import PlacedLayer
from edgenas.search_spaces.space import Choice, Genomes, SearchSpace, Slot

OPERATORS = ("identity", "mb3_k3", "mb6_k5")
"""In the order of the benchmark's digits 0, 1, 2."""
_KERNEL_AND_EXPANSION = {"mb3_k3": (3, 3), "mb6_k5": (5, 6)}
DEPTHS = (2, 3, 3)
STEM_WIDTH = 32
FEATURES = 1280
IMAGE_SIZE = 32


@dataclass(frozen=True)
class _Place:
    """A searched place: channels in and out, stride and the size of its input."""

    in_channels: int
    out_channels: int
    stride: int
    size: int


class NASBenchMacro(SearchSpace):
    """Three stages of 64, 128 and 256 channels on images of 32x32, halved by each stage's first block.

    The identity of a place that changes the shape is a pointwise convolution with its stride.
    """

    name = "nasbench-macro"

    def __init__(self, *, classes: int, channels: int = 3) -> None:
        self.classes = classes
        self._channels = channels
        self._places = _places()
        self.choices = tuple(Choice(name=name, options=OPERATORS) for name in self._places)
        searched = (Slot(name=name, genes=(gene,)) for gene, name in enumerate(self._places))
        self.slots = (Slot(name="stem", genes=()), *searched, Slot(name="head", genes=()))

    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        if slot.name == "stem":
            stem = ConvLayer(name="stem", in_channels=self._channels, out_channels=STEM_WIDTH)
            return PlacedLayer(layer=stem, input_shape=(self._channels, IMAGE_SIZE, IMAGE_SIZE))
        if slot.name == "head":
            return self._head()
        place = self._places[slot.name]
        layer = _block(slot.name, place, OPERATORS[values[0]])
        if layer is None:
            return None
        return PlacedLayer(layer=layer, input_shape=(place.in_channels, place.size, place.size))

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        return np.ones(genomes.shape, np.bool_)

    def _head(self) -> PlacedLayer:
        width, size = STEM_WIDTH << len(DEPTHS), IMAGE_SIZE >> len(DEPTHS)
        head = Head(name="head", in_channels=width, out_channels=self.classes, features=FEATURES)
        return PlacedLayer(layer=head, input_shape=(width, size, size))


def _block(name: str, place: _Place, operator: str) -> AnyLayer | None:
    if operator != "identity":
        kernel, expansion = _KERNEL_AND_EXPANSION[operator]
        return InvertedResidual(
            name=name,
            in_channels=place.in_channels,
            out_channels=place.out_channels,
            hidden=place.in_channels * expansion,
            kernel=kernel,
            stride=place.stride,
        )
    if place.stride == 1:
        return None
    return ConvLayer(
        name=name,
        in_channels=place.in_channels,
        out_channels=place.out_channels,
        kernel=1,
        stride=place.stride,
        activation="none",
    )


def _places() -> dict[str, _Place]:
    places = {}
    for stage, depth in enumerate(DEPTHS):
        width, size = STEM_WIDTH << stage, IMAGE_SIZE >> stage
        places[f"s{stage + 1}b0"] = _Place(width, 2 * width, 2, size)
        for block in range(1, depth):
            places[f"s{stage + 1}b{block}"] = _Place(2 * width, 2 * width, 1, size // 2)
    return places
