"""Which layer of the model a kernel belongs to, told by the names its builder gave."""

from __future__ import annotations

from typing import Dict, Iterable, List


def layer_of_name(name: str) -> str:
    """The part before the first slash; empty where there is none."""
    first, slash, _ = name.strip("/").partition("/")
    return first if slash else ""


class LayerAttribution:
    """Gives each kernel its layer, in execution order.

    A kernel without a name of its own (a reorder, a transpose) belongs to the layer that feeds it.
    """

    def __init__(self) -> None:
        self._by_tensor: Dict[str, str] = {}

    def layer(self, name: str, inputs: Iterable[str], outputs: List[str]) -> str:
        """The layer of the next kernel."""
        fed_by = (self._by_tensor.get(tensor, "") for tensor in inputs)
        layer = layer_of_name(name) or next((found for found in fed_by if found), "")
        for tensor in outputs:
            self._by_tensor[tensor] = layer
        return layer
