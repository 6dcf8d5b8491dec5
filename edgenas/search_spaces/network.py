"""One network: a named list of layers on an input of a fixed size, and what can be counted on it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

import msgspec

from edgenas.records import Precision, Record
from edgenas.search_spaces.encoder import Embedding
from edgenas.search_spaces.layer import parts_of, wire_shapes
from edgenas.search_spaces.layers import AnyLayer
from edgenas.search_spaces.parts import AnyPart, Conv, Linear, Shape


class PlacedLayer(Record, kw_only=True):
    """A layer where it stands: what its latency depends on.

    ``input_shape`` is (channels, height, width); ``input_precision`` is what the layer before it
    runs in (the network's input is fp32), so that Q/DQ at the boundary is part of the layer.
    """

    layer: AnyLayer
    input_shape: tuple[int, int, int]
    input_precision: Precision = "fp32"


class Network(Record, kw_only=True):
    """Layers in execution order on an input of (channels, height, width); ``classes`` outputs.

    A network that starts with an embedding reads token numbers, (1, 1, tokens).
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[AnyLayer, ...]
    classes: int

    @property
    def vocabulary(self) -> int:
        """How many different token numbers the input holds; 0 for images."""
        first = self.layers[0]
        return first.vocabulary if isinstance(first, Embedding) else 0

    def placed(self) -> tuple[PlacedLayer, ...]:
        """Every layer with the shape and the precision of what it reads."""
        placed = []
        shape: Shape = self.input_shape
        precision: Precision = "fp32"
        for layer in self.layers:
            placed.append(PlacedLayer(layer=layer, input_shape=_image(shape), input_precision=precision))
            shape, precision = layer.output_shape(shape), layer.precision
        return tuple(placed)

    def fingerprint(self) -> str:
        """Hash of everything but the name: equal networks have equal fingerprints."""
        content = msgspec.json.encode((self.input_shape, self.layers, self.classes))
        return hashlib.sha256(content).hexdigest()[:16]


def layer_key(placed: PlacedLayer) -> str:
    """Canonical text of a placed layer without its name: equal keys have equal latencies."""
    nameless = msgspec.structs.replace(placed, layer=msgspec.structs.replace(placed.layer, name=""))
    return nameless.to_json()


def macs(network: Network) -> int:
    """Multiply-accumulates of one image through all convolutions and matrix products."""
    return sum(part.macs(shape) for _, part, shape in _walk(network))


def parameters(network: Network) -> int:
    """Weights and biases of the shipped network, batch norm folded."""
    return sum(math.prod(shape) for shape in weight_shapes(network).values())


def weight_bytes(network: Network) -> int:
    """Bytes of the shipped weights, see ``part_bytes``."""
    return sum(part_bytes(layer, part) for layer, part, _ in _walk(network))


def part_bytes(layer: AnyLayer, part: AnyPart) -> int:
    """Bytes of a part's shipped weights: those that are multiplied have one each in an int8 layer.

    Biases have four, as do vectors of tokens and the scales of normalizations, which stay float.
    """
    integers = layer.precision == "int8" and isinstance(part, Conv | Linear)
    return sum(
        math.prod(shape) * (1 if integers and kind == "weight" else 4)
        for kind, shape in part.weight_shapes().items()
    )


def weight_shapes(network: Network) -> dict[str, Shape]:
    """Shapes of all shipped weights by key: ``layer.part.weight`` and ``layer.part.bias``."""
    return {
        f"{layer.name}.{part.name}.{kind}": shape
        for layer, part, _ in _walk(network)
        for kind, shape in part.weight_shapes().items()
    }


def _walk(network: Network) -> Iterator[tuple[AnyLayer, AnyPart, Shape]]:
    """Every part with its layer and the shape of its first input."""
    for placed in network.placed():
        shapes = wire_shapes(placed.layer, placed.input_shape)
        for part in parts_of(placed.layer):
            yield placed.layer, part, shapes[part.inputs[0]]


def _image(shape: Shape) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, height, width
