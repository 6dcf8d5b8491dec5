"""How many candidates a second a latency table prices on one core, beside once-for-all's own table code.

Both price the same candidates of once-for-all's MobileNetV3 space from its published Note10 table, ours
imported as a foreign table and compiled to dense arrays; the answers must agree to 1e-9 ms. A second
row is a space of our own on a table of our own (``--table FILE --space S``), beside a dictionary that
is asked once a layer.

    OMP_NUM_THREADS=1 python bench/lookups.py [--quick] [--json OUT] [--seeds N] [--table FILE] [--space S]
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ofa_space import Note10Table, OfaSpace
from provenance import provenance
from search_ofa import Peer  # pins BLAS to one thread

from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.search_spaces import get_space

TO_REACH = 1_000_000
AGREE_MS = 1e-9
ASKED_OF_THE_PEER = 2000

Latencies = Callable[[np.ndarray], np.ndarray]
TimedLatencies = Callable[[np.ndarray], tuple[np.ndarray, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100,000 candidates instead of 1,000,000")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "lookups.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", type=Path, help="a latency table of ours, for the second row")
    parser.add_argument("--space", default="mobilenetv3-32px")
    options = parser.parse_args()
    count = 100_000 if options.quick else 1_000_000
    rows = [of_ofa(count, options.seeds)]
    if options.table:
        rows.append(of_ours(options.table, options.space, count, options.seeds))
    show(rows, count, options.seeds)
    content = {
        "environment": provenance("numpy", "ofa"),
        "candidates": count,
        "summary": [{k: v for k, v in row.items() if k != "samples"} for row in rows],
        "samples": {row["table"]: row["samples"] for row in rows},
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(row["largest_difference_ms"] <= AGREE_MS for row in rows) else 1


def of_ofa(count: int, seeds: int) -> dict[str, Any]:
    """Once-for-all's space and table, beside ``ofa.tutorial.LatencyTable`` asked one by one."""
    space, peer = OfaSpace(), Peer().table

    def ask_peer(genomes: np.ndarray) -> tuple[np.ndarray, float]:
        samples = [space.peer_sample(genome) for genome in genomes]
        return timed(lambda: [peer.predict_efficiency(sample) for sample in samples])

    found = compared(space, Note10Table().latency_ms, ask_peer, count=count, seeds=seeds)
    return {"table": "once-for-all's Note10", "peer": "ofa", **found}


def of_ours(path: Path, name: str, count: int, seeds: int) -> dict[str, Any]:
    """A space of ours, beside the sum over its layers, each found by its key."""
    space = get_space(name)
    with LatencyTable.open(path) as table:
        compiled = CompiledSpace.compile(space, table, LatencyPredictor.fit(table))

    def ask_dictionary(genomes: np.ndarray) -> tuple[np.ndarray, float]:
        layers = [[(entry, price.latency_ms) for entry, price in compiled.kernels(one)] for one in genomes]
        prices = {entry: latency_ms for one in layers for entry, latency_ms in one}
        overheads = compiled.overhead_ms(genomes).tolist()
        return timed(
            lambda: [
                overhead + sum(prices[entry] for entry, _ in one)
                for one, overhead in zip(layers, overheads, strict=True)
            ]
        )

    found = compared(space, compiled.latency_ms, ask_dictionary, count=count, seeds=seeds)
    return {"table": f"{name} on {compiled.device}", "peer": "dictionary", **found}


def timed(ask: Callable[[], Any]) -> tuple[np.ndarray, float]:
    """What is answered, and the CPU seconds that it took."""
    started = time.process_time()
    found = ask()
    return np.asarray(found), time.process_time() - started


def compared(space: Any, fast: Latencies, slow: TimedLatencies, *, count: int, seeds: int) -> dict[str, Any]:
    """Rates in CPU time and the largest difference, over the seeds."""
    rates, peer_rates, differences = [], [], []
    fast(space.sample(np.random.default_rng(seeds), 1000))  # warm-up
    for seed in range(seeds):
        genomes = space.sample(np.random.default_rng(seed), count)
        found, seconds = timed(functools.partial(fast, genomes))
        rates.append(count / seconds)
        some, peer_seconds = slow(genomes[:ASKED_OF_THE_PEER])
        peer_rates.append(len(some) / peer_seconds)
        known = np.isfinite(some)
        differences.append(float(np.abs(found[: len(some)] - some)[known].max()))
    ours, theirs = float(np.median(rates)), float(np.median(peer_rates))
    return {
        "candidates_per_s": ours,
        "peer_per_s": theirs,
        "ratio": ours / theirs,
        "largest_difference_ms": max(differences),
        "samples": {"candidates_per_s": rates, "peer_per_s": peer_rates, "difference_ms": differences},
    }


def show(rows: list[dict[str, Any]], count: int, seeds: int) -> None:
    print(f"{count:,} candidates, median of {seeds} runs, one core, CPU time; to reach {TO_REACH:,} a second")
    print(f"{'table':32}{'ours, /s':>12}{'peer':>12}{'peer, /s':>12}{'ratio':>8}{'difference':>14}")
    for row in rows:
        print(
            f"{row['table']:32}{row['candidates_per_s']:12,.0f}{row['peer']:>12}{row['peer_per_s']:12,.0f}"
            f"{row['ratio']:8.0f}{row['largest_difference_ms']:11.1e} ms"
        )


if __name__ == "__main__":
    sys.exit(main())
