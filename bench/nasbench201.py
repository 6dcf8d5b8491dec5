"""All of NAS-Bench-201 with its accuracies and measured latencies, for benchmarks only."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np

from edgenas.search_spaces import get_space
from edgenas.search_spaces.counted import CountedSpace

DATA = Path(__file__).resolve().parents[2] / "shared/data/nasbench201"

SPACE = get_space("nasbench201")
COUNTED = CountedSpace(SPACE)
EDGES, OPERATIONS = len(SPACE.choices), len(SPACE.choices[0].options)
HARDWARE_CODES = {"skip": 0, "none": 1, "conv3x3": 2, "conv1x1": 3, "avgpool3x3": 4}
"""HW-NAS-Bench's numbers of the operations; peers see these."""
_TO_HARDWARE = np.array([HARDWARE_CODES[str(operation)] for operation in SPACE.choices[0].options])


class Measured:
    """All 15,625 networks: columns by name, by the order of ``genomes``."""

    def __init__(self) -> None:
        hardware = read("hwnasbench_cifar10.csv")
        self.genomes = np.array([ast.literal_eval(row["net"]) for row in hardware])
        self._row = np.empty(OPERATIONS**EDGES, np.int64)
        self._row[self._number(self.genomes)] = np.arange(len(hardware))
        accuracies = [float(row["accuracy"]) for row in read("nb201_cifar10_valid_200ep.csv")]
        self.columns = {
            "error": 100.0 - np.array(accuracies),
            "raspi4": np.array([float(row["raspi4_latency"]) for row in hardware]),
            "pixel3": np.array([float(row["pixel3_latency"]) for row in hardware]),
            "energy": np.array([float(row["edgegpu_energy"]) for row in hardware]),
        }

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """Row numbers (N,) of networks (N, 6) in HW-NAS-Bench's numbers."""
        return self._row[self._number(np.asarray(codes))]

    def rows_of_genomes(self, genomes: np.ndarray) -> np.ndarray:
        """Row numbers (N,) of genomes (N, 6) of the product's space."""
        return self.rows(_TO_HARDWARE[genomes])

    def table(self, names: tuple[str, ...]) -> np.ndarray:
        """(15625, M) of the named columns."""
        return np.stack([self.columns[name] for name in names], axis=1)

    @staticmethod
    def _number(genomes: np.ndarray) -> np.ndarray:
        return genomes @ OPERATIONS ** np.arange(EDGES)


def read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))
