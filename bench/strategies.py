"""Every strategy on NAS-Bench-201 with two objectives and on NAS-Bench-Macro under a limit, one table.

    python bench/strategies.py [--quick] [--json OUT] [--seeds N] [--first-seed K]

The first is the share of the true hypervolume of error and Raspberry Pi 4 latency (the latency known
from a table) after 100 and 200 evaluations, the second the regret in points after 50 and 100 at the
middle limit of ``search_macro.py``, whose table of this machine it needs. Runs that OUT holds are not
made again.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core for every strategy
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import search_hwnas
import search_macro
from nasbench201 import Measured
from provenance import provenance

from edgenas.search.pareto import hypervolume
from edgenas.search.strategies import strategy_names

POINTS_HWNAS, POINTS_MACRO = (100, 200), (50, 100)
SCENARIO = "one device"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1 seed, without Optuna's Gaussian process")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first-seed", type=int, default=1000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    search_macro.measure()
    measured, benchmark = Measured(), search_macro.Benchmark()
    names = [name for name in strategy_names() if not (options.quick and name == "bayesian-gp")]
    rows = search_hwnas.resumed(options.json)
    done = {(row["strategy"], row["seed"]) for row in rows}
    for seed in range(
        options.first_seed, options.first_seed + (options.seeds or (1 if options.quick else 20))
    ):
        for name in names:
            if (name, seed) not in done:
                rows.append(
                    {
                        "strategy": name,
                        "seed": seed,
                        **hwnas(measured, name, seed),
                        **macro(benchmark, name, seed),
                    }
                )
                if options.json:
                    save(options.json, rows)
    for line in summary(rows):
        print("  ".join(f"{key} {value}" for key, value in line.items()))


def hwnas(measured: Measured, name: str, seed: int) -> dict[str, float]:
    """Shares of the true hypervolume."""
    columns = search_hwnas.SCENARIOS[SCENARIO]
    recorder = search_hwnas.Recorder(measured, columns, POINTS_HWNAS[-1])
    started = time.process_time()
    with contextlib.suppress(search_hwnas.SpentError):
        search_hwnas.ours(name, table=True)(recorder, seed)
    seconds = time.process_time() - started
    reference = np.array([search_hwnas.REFERENCE[column] for column in columns])
    whole = hypervolume(recorder.table, reference)
    shares = {
        f"share at {point}": hypervolume(recorder.table[recorder.order[:point]], reference) / whole
        for point in POINTS_HWNAS
    }
    return {**shares, "cpu s": seconds}


def macro(benchmark: search_macro.Benchmark, name: str, seed: int) -> dict[str, float]:
    """Regrets in points."""
    limit = benchmark.limits_ms[len(benchmark.limits_ms) // 2]
    recorder = search_macro.Recorder(benchmark, limit, POINTS_MACRO[-1])
    with contextlib.suppress(search_macro.SpentError):
        search_macro.ours(name)(recorder, seed)
    best = benchmark.accuracy[benchmark.latency_ms <= limit].max()
    found = benchmark.accuracy[recorder.order]
    return {f"regret at {point}": float(best - found[:point].max()) for point in POINTS_MACRO}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a strategy: means over the seeds, best share first."""
    result = []
    for name in dict.fromkeys(row["strategy"] for row in rows):
        group = [row for row in rows if row["strategy"] == name]
        numbers = [key for key in group[0] if key not in {"strategy", "seed"}]
        means = {key: round(float(np.mean([row[key] for row in group])), 4) for key in numbers}
        result.append({"strategy": name, "seeds": len(group), **means})
    return sorted(result, key=lambda line: -line[f"share at {POINTS_HWNAS[-1]}"])


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    content = {"environment": provenance("numpy", "optuna"), "summary": summary(rows), "runs": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
