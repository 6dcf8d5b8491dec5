"""Search spaces, the networks in them, and the builders that turn a network into a model.

``build_onnx`` is imported on first use: whoever only proposes networks never loads onnx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgenas.search_spaces.layers import (
    AnyLayer,
    BasicBlock,
    Bottleneck,
    ConvLayer,
    FusedInvertedResidual,
    Head,
    InvertedResidual,
)
from edgenas.search_spaces.network import (
    Network,
    PlacedLayer,
    layer_key,
    macs,
    parameters,
    weight_bytes,
    weight_shapes,
)
from edgenas.search_spaces.registry import CLASSES, default_space, get_space, space_names
from edgenas.search_spaces.restricted import RestrictedSpace
from edgenas.search_spaces.space import Choice, Genomes, SearchSpace, Slot

if TYPE_CHECKING:
    from edgenas.search_spaces.onnx_builder import build_onnx

__all__ = [
    "CLASSES",
    "AnyLayer",
    "BasicBlock",
    "Bottleneck",
    "Choice",
    "ConvLayer",
    "FusedInvertedResidual",
    "Genomes",
    "Head",
    "InvertedResidual",
    "Network",
    "PlacedLayer",
    "RestrictedSpace",
    "SearchSpace",
    "Slot",
    "build_onnx",
    "default_space",
    "get_space",
    "layer_key",
    "macs",
    "parameters",
    "space_names",
    "weight_bytes",
    "weight_shapes",
]


def __getattr__(name: str) -> Any:
    if name != "build_onnx":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from edgenas.search_spaces.onnx_builder import build_onnx

    return build_onnx
