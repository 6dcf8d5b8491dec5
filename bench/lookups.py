"""How many candidates a second a compiled space prices on one core, beside a dictionary per layer.

The dictionary is what once-for-all's table does: a key is written for every layer of a candidate and
looked up. Both price the same candidates from the same table; the answers must agree to 1e-9 ms.

    OMP_NUM_THREADS=1 python bench/lookups.py [--quick] [--json OUT] [--seeds N] [--device ID] [--space S]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

TO_REACH = 1_000_000


def dictionary_of(compiled: CompiledSpace, genomes: np.ndarray) -> dict[str, float]:
    """A latency for every layer of the candidates, by a written key."""
    found = {}
    for genome in genomes:
        for entry, price in compiled.kernels(genome):
            found[entry] = price.latency_ms
    return found


def slow_latency(compiled: CompiledSpace, table: dict[str, float], genome: np.ndarray) -> float:
    """The sum over the layers, each found by its key."""
    return compiled.overhead_ms + sum(table[entry] for entry, _ in compiled.kernels(genome))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 candidates instead of 1,000,000")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "lookups.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="local")
    parser.add_argument("--space", default="mobilenetv3-32px")
    arguments = parser.parse_args()
    space = get_space(arguments.space)
    with LatencyTable.open(Workspace().table_path(arguments.device)) as table:
        compiled = CompiledSpace.compile(space, table, LatencyPredictor.fit(table))
        environment = table.latest_environment()
    count = 100_000 if arguments.quick else 1_000_000
    rates, slow_rates, difference = [], [], 0.0
    for seed in range(arguments.seeds):
        genomes = space.sample(np.random.default_rng(seed), count)
        started = time.perf_counter()
        fast = compiled.latency_ms(genomes)
        rates.append(count / (time.perf_counter() - started))
        some = genomes[:2000]
        by_key = dictionary_of(compiled, some)
        started = time.perf_counter()
        slow = np.array([slow_latency(compiled, by_key, genome) for genome in some])
        slow_rates.append(len(some) / (time.perf_counter() - started))
        known = np.isfinite(slow)
        difference = max(difference, float(np.abs(fast[: len(some)] - slow)[known].max()))
    print(f"space {space.name}, {count:,} candidates, {arguments.seeds} runs; to reach {TO_REACH:,} a second")
    print(f"{'compiled':>12}{'by key':>12}{'ratio':>8}{'largest difference':>22}")
    fastest, keyed = float(np.median(rates)), float(np.median(slow_rates))
    print(f"{fastest:12,.0f}{keyed:12,.0f}{fastest / keyed:8.0f}{difference:19.1e} ms")
    content = {
        "bench": "lookups",
        "environment": environment.to_dict() if environment else {},
        "space": space.name,
        "candidates": count,
        "samples": {"compiled_per_s": rates, "by_key_per_s": slow_rates},
        "largest_difference_ms": difference,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(content, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
