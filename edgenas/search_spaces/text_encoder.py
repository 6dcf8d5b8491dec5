"""Transformer encoders that classify text: how many layers, how wide, how many heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.search_spaces.encoder import Embedding, EncoderLayer
from edgenas.search_spaces.layers import AnyLayer, Head
from edgenas.search_spaces.network import PlacedLayer
from edgenas.search_spaces.space import Choice, Genomes, Option, SearchSpace, Slot

VOCABULARY = 4096
TOKENS = (24, 48)
WIDTHS = (64, 96, 128)
LAYERS = (1, 2, 3, 4)
HEADS = (2, 4)
HIDDEN = (64, 128, 256)


class TextEncoder(SearchSpace):
    """Up to four encoder layers on up to 48 tokens; the mean of all tokens is classified.

    Genes: ``tokens`` (longer texts are cut), ``width`` of all layers, ``layers``; for every layer
    ``l1``, ... ``.heads``, ``.hidden`` (feed-forward width) and ``.precision``. Embedding and head are
    float: a lookup gains nothing by int8, and the head is one small matrix.
    """

    name = "text-encoder"

    def __init__(self, *, classes: int, channels: int = 3) -> None:
        del channels  # of images; a text is a row of numbers
        self.classes = classes
        genes: dict[str, tuple[Option, ...]] = {"tokens": TOKENS, "width": WIDTHS, "layers": LAYERS}
        for layer in range(1, LAYERS[-1] + 1):
            genes |= {f"l{layer}.heads": HEADS, f"l{layer}.hidden": HIDDEN}
            genes[f"l{layer}.precision"] = ("int8", "fp32")
        self.choices = tuple(Choice(name=name, options=options) for name, options in genes.items())
        self._gene = {name: index for index, name in enumerate(genes)}
        self.slots = tuple(self._slot(name) for name in ("embedding", *self._layers(), "head"))

    def layer_at(self, slot: Slot, values: tuple[int, ...]) -> PlacedLayer | None:
        chosen = {
            self.choices[gene].name: self.choices[gene].options[value]
            for gene, value in zip(slot.genes, values, strict=True)
        }
        tokens, width = int(chosen["tokens"]), int(chosen["width"])
        if slot.name == "embedding":
            embedding = Embedding(
                name="embedding", in_channels=1, out_channels=width, vocabulary=VOCABULARY, tokens=tokens
            )
            return PlacedLayer(layer=embedding, input_shape=(1, 1, tokens))
        number = self._number(slot.name)
        if slot.name != "head" and number > int(chosen.get("layers", number)):
            return None
        before = self._before(number, chosen)
        layer = self._head(width) if slot.name == "head" else _encoder_layer(slot.name, width, chosen)
        return PlacedLayer(layer=layer, input_shape=(width, 1, tokens), input_precision=before)

    def active(self, genomes: Genomes) -> npt.NDArray[np.bool_]:
        used = np.ones(genomes.shape, np.bool_)
        depths = np.array(LAYERS)[genomes[:, self._gene["layers"]]]
        for layer in self._layers():
            for role in ("heads", "hidden", "precision"):
                used[:, self._gene[f"{layer}.{role}"]] = self._number(layer) <= depths
        return used

    def _layers(self) -> tuple[str, ...]:
        return tuple(f"l{number}" for number in range(1, LAYERS[-1] + 1))

    def _number(self, slot: str) -> int:
        """Place of a layer, from 1; the head's is one more than the last layer's."""
        return LAYERS[-1] + 1 if slot == "head" else int(slot[1:])

    def _slot(self, name: str) -> Slot:
        genes = ["tokens", "width"]
        if name == "head":
            genes += ["layers", *(f"{layer}.precision" for layer in self._layers())]
        elif name != "embedding":
            number = self._number(name)
            genes += ["layers"] if number > LAYERS[0] else []
            genes += [f"l{number - 1}.precision"] if number > 1 else []
            genes += [f"{name}.{role}" for role in ("heads", "hidden", "precision")]
        return Slot(name=name, genes=tuple(sorted(self._gene[gene] for gene in genes)))

    def _before(self, number: int, chosen: dict[str, Any]) -> Any:
        """Precision of what the layer (or the head) reads."""
        last = min(number - 1, int(chosen.get("layers", number - 1)))
        return chosen[f"l{last}.precision"] if last else "fp32"

    def _head(self, width: int) -> Head:
        return Head(name="head", in_channels=width, out_channels=self.classes)


def _encoder_layer(name: str, width: int, chosen: dict[str, Any]) -> AnyLayer:
    return EncoderLayer(
        name=name,
        in_channels=width,
        out_channels=width,
        heads=chosen[f"{name}.heads"],
        hidden=chosen[f"{name}.hidden"],
        precision=chosen[f"{name}.precision"],
    )
