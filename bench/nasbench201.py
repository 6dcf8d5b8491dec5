"""NAS-Bench-201 with measured latencies as a search space, for benchmarks only."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "shared/data/nasbench201"

EDGES, OPERATIONS = 6, 5


class NasBench201:
    """Genes: the operation on each of the six edges; every genome is another network."""

    name = "nas-bench-201"
    option_counts = np.full(EDGES, OPERATIONS)

    def canonical(self, genomes: np.ndarray) -> np.ndarray:
        return np.array(genomes, np.int64)

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.integers(0, OPERATIONS, (n, EDGES))


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

    def rows(self, genomes: np.ndarray) -> np.ndarray:
        """Row numbers (N,) of genomes (N, 6)."""
        return self._row[self._number(np.asarray(genomes))]

    def table(self, names: tuple[str, ...]) -> np.ndarray:
        """(15625, M) of the named columns."""
        return np.stack([self.columns[name] for name in names], axis=1)

    @staticmethod
    def _number(genomes: np.ndarray) -> np.ndarray:
        return genomes @ OPERATIONS ** np.arange(EDGES)


def read(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))
