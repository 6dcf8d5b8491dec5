"""Once-for-all's MobileNetV3 space with its own Note10 table and accuracy predictor, in numpy.

Only benchmarks use it. The functions are the peer's (``ofa/tutorial``) evaluated on populations;
``search_ofa.py`` checks that both agree before it compares anything.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.latency_tables.blocks import BlockTable
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.table import table_import
from edgenas.workspace import Workspace

DATA = Path(__file__).resolve().parents[2] / "shared/data/ofa_note10"

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
DEPTHS = (2, 3, 4)
RESOLUTIONS = (160, 176, 192, 208, 224)
BLOCKS, STAGES = 20, 5
STRIDES = (2, 2, 2, 1, 2)
WIDTHS = (32, 48, 96, 136, 192)
SQUEEZE = (0, 1, 0, 1, 1)
HARD_SWISH = (0, 0, 1, 1, 1)
DEPTH_GENES = slice(0, STAGES)
KERNEL_GENES = slice(STAGES, STAGES + BLOCKS)
EXPANSION_GENES = slice(STAGES + BLOCKS, STAGES + 2 * BLOCKS)
RESOLUTION_GENE = STAGES + 2 * BLOCKS


@dataclass(frozen=True)
class Choice:
    """One decision of the space."""

    name: str
    options: tuple[Any, ...]


class OfaSpace:
    """Genes: 5 depths, 20 kernels, 20 expansions, 1 resolution; 3^45 * 5 genomes."""

    name = "ofa-mobilenetv3-w1.2"
    choices = (
        *(Choice(f"depth{i}", DEPTHS) for i in range(STAGES)),
        *(Choice(f"kernel{i}", KERNELS) for i in range(BLOCKS)),
        *(Choice(f"expansion{i}", EXPANSIONS) for i in range(BLOCKS)),
        Choice("resolution", RESOLUTIONS),
    )

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        sizes = np.array([len(choice.options) for choice in self.choices])
        return self.canonical((rng.random((n, len(sizes))) * sizes).astype(np.int64))

    def active(self, genomes: np.ndarray) -> np.ndarray:
        """(N, 20) bool: the blocks that the depths keep."""
        depths = genomes[:, DEPTH_GENES] + DEPTHS[0]
        return (np.arange(4) < depths[:, :, None]).reshape(len(genomes), BLOCKS)

    def canonical(self, genomes: np.ndarray) -> np.ndarray:
        kept = self.active(genomes)
        result = genomes.copy()
        result[:, KERNEL_GENES] *= kept
        result[:, EXPANSION_GENES] *= kept
        return result

    def describe(self, genome: np.ndarray) -> dict[str, Any]:
        pairs = zip(self.choices, genome, strict=True)
        return {choice.name: choice.options[value] for choice, value in pairs}

    @property
    def option_counts(self) -> np.ndarray:
        return np.array([len(choice.options) for choice in self.choices])

    def peer_sample(self, genome: np.ndarray) -> dict[str, Any]:
        """The genome in the form that ``EvolutionFinder`` works on."""
        return {
            "wid": None,
            "ks": [KERNELS[v] for v in genome[KERNEL_GENES]],
            "e": [EXPANSIONS[v] for v in genome[EXPANSION_GENES]],
            "d": [DEPTHS[v] for v in genome[DEPTH_GENES]],
            "r": [RESOLUTIONS[genome[RESOLUTION_GENE]]],
        }


class Note10Table:
    """The published block table, imported as a foreign table and compiled to dense arrays.

    Slots: one for what every network has (by resolution), then one a block (by resolution, its
    stage's depth, its kernel and its expansion), empty where the depth leaves the block out.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace(folder)
            table_import(DATA, device="note10", workspace=workspace)
            with LatencyTable.open(workspace.table_path("note10")) as table:
                blocks = BlockTable.read(table)
        slots = [(RESOLUTION_GENE,), *map(self._genes, range(BLOCKS))]
        self.dense = blocks.compile(slots, OfaSpace().option_counts, self.blocks_at)

    @staticmethod
    def _genes(block: int) -> tuple[int, ...]:
        return (
            RESOLUTION_GENE,
            DEPTH_GENES.start + block // 4,
            KERNEL_GENES.start + block,
            EXPANSION_GENES.start + block,
        )

    @staticmethod
    def blocks_at(slot: int, values: tuple[int, ...]) -> list[tuple[str, str]]:
        """Collections and keys of what stands in a slot."""
        resolution = RESOLUTIONS[values[0]]
        collection = f"ofa_note10_{resolution}_lookup_table"
        if slot == 0:
            return [(collection, key) for key in fixed_keys(resolution)]
        block, depth = slot - 1, DEPTHS[values[1]]
        if block % 4 >= depth:
            return []
        return [(collection, block_key(resolution, block, KERNELS[values[2]], EXPANSIONS[values[3]]))]

    def latency_ms(self, genomes: np.ndarray) -> np.ndarray:
        """(N, 46) genomes -> (N,) milliseconds."""
        return self.dense.latency_ms(genomes)


def block_key(resolution: int, block: int, kernel: int, expansion: int) -> str:
    """What the published table calls one of the 20 blocks."""
    stage, first = block // 4, block % 4 == 0
    cin = (24, *WIDTHS)[stage] if first else WIDTHS[stage]
    size, stride = size_before(resolution, block), STRIDES[stage] if first else 1
    out_size = (size - 1) // stride + 1
    return (
        f"expanded_conv-input:{size}x{size}x{cin}-output:{out_size}x{out_size}x{WIDTHS[stage]}"
        f"-expand:{round(cin * expansion)}-kernel:{kernel}-stride:{stride}"
        f"-idskip:{int(not first)}-se:{SQUEEZE[stage]}-hs:{HARD_SWISH[stage]}"
    )


def size_before(resolution: int, block: int) -> int:
    """Height of the feature map that a block reads."""
    size = (resolution + 1) // 2
    for stage in range((block + 3) // 4):
        size = (size - 1) // STRIDES[stage] + 1
    return size


def fixed_keys(resolution: int) -> list[str]:
    """The parts that every network has: stem, first block and head."""
    first, last = (resolution + 1) // 2, size_before(resolution, BLOCKS)
    return [
        f"Conv-input:{resolution}x{resolution}x3-output:{first}x{first}x24",
        f"expanded_conv-input:{first}x{first}x24-output:{first}x{first}x24"
        "-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
        f"Conv_1-input:{last}x{last}x192-output:{last}x{last}x1152",
        f"AvgPool2D-input:{last}x{last}x1152-output:1x1x1152",
        "Conv_2-input:1x1x1152-output:1x1x1536",
        "Logits-input:1x1x1536-output:1000",
    ]


class AccuracyPredictor:
    """The published 128-400-400-400-1 multilayer perceptron."""

    def __init__(self) -> None:
        import torch

        state = torch.load(DATA / "ofa_mbv3_acc_predictor.pth", weights_only=True, map_location="cpu")
        arrays = [value.numpy() for value in state.values()]
        self.layers = [(w.T.copy(), b) for w, b in zip(arrays[0::2], arrays[1::2], strict=True)]

    name = "ofa-predictor"

    def features(self, genomes: np.ndarray) -> np.ndarray:
        """(N, 128) float32 one-hot features; dropped blocks are all zero."""
        n = len(genomes)
        kept = OfaSpace().active(genomes)
        features = np.zeros((n, 129), np.float32)  # column 128 takes what dropped blocks would set
        columns = np.empty((n, 2 * BLOCKS + 1), np.int64)
        place = 3 * np.arange(BLOCKS)
        columns[:, :BLOCKS] = np.where(kept, place + genomes[:, KERNEL_GENES], 128)
        columns[:, BLOCKS : 2 * BLOCKS] = np.where(kept, 60 + place + genomes[:, EXPANSION_GENES], 128)
        columns[:, -1] = 120 + genomes[:, RESOLUTION_GENE] + (RESOLUTIONS[0] - 112) // 16
        features[np.arange(n)[:, None], columns] = 1.0
        return features[:, :128]

    def score(self, genomes: np.ndarray) -> np.ndarray:
        """(N,) predicted ImageNet top-1, 0..1."""
        hidden = self.features(genomes)
        for weights, bias in self.layers[:-1]:
            hidden = hidden @ weights
            hidden += bias
            np.maximum(hidden, 0.0, out=hidden)
        weights, bias = self.layers[-1]
        return (hidden @ weights + bias)[:, 0].astype(np.float64)
