"""Multi-objective search on NAS-Bench-201 with measured latency, beside pymoo and Optuna.

    python bench/search_hwnas.py [--quick] [--json OUT] [--seeds N] [--first-seed K]

Objectives are the CIFAR-10 validation error after 200 epochs and the measured latency on a
Raspberry Pi 4; then a second device; then energy. No tool knows either before it evaluates a
network, and each is charged for unique networks only, so that repeats cost nobody anything. The
score is the share of the true hypervolume after so many evaluations, and how often the true best
network under a limit was among them. ``edgenas, table`` is how the product runs: latencies come
from a table, only the error has to be learnt. Runs that OUT holds are not made again; seeds are the
outer loop, so that a run cut short has compared every tool on the same seeds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: one core for every side
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import contextlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nasbench201 import COUNTED, EDGES, OPERATIONS, SPACE, Measured
from provenance import provenance

from edgenas.search.pareto import hypervolume
from edgenas.search.problem import Problem
from edgenas.search.strategies import get_strategy

CHECKPOINTS = (100, 200, 500, 1000)
LIMITS_MS = (10, 20, 30)
REFERENCE = {"error": 40.0, "raspi4": 60.0, "pixel3": 20.0, "energy": 40.0}
SCENARIOS = {
    "one device": ("error", "raspi4"),
    "two devices": ("error", "raspi4", "pixel3"),
    "energy": ("error", "raspi4", "energy"),
}


class SpentError(Exception):
    """The budget of unique evaluations is used up."""


class Recorder:
    """Evaluates networks from the table and keeps the order of the unique ones."""

    def __init__(self, measured: Measured, names: tuple[str, ...], budget: int) -> None:
        self.measured, self.names, self.budget = measured, names, budget
        self.table = measured.table(names)
        self.order: list[int] = []
        self._seen: set[int] = set()
        self._asked = 0

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Objectives (N, M) of networks (N, 6) in HW-NAS-Bench's numbers.

        Raises:
            SpentError: the budget is used up, or ten times as many repeats were asked for.
        """
        return self.evaluated(self.measured.rows(codes))

    def evaluated(self, rows: np.ndarray) -> np.ndarray:
        """Objectives (N, M) of networks by their row numbers (N,)."""
        for row in rows.tolist():
            self._asked += 1
            if row not in self._seen:
                self._seen.add(row)
                self.order.append(row)
            if len(self.order) >= self.budget or self._asked >= 10 * self.budget:
                raise SpentError
        return self.table[rows]


Tool = Callable[[Recorder, int], None]


def ours(name: str, *, table: bool = False) -> Tool:
    """One of our strategies with its default settings."""

    def run(recorder: Recorder, seed: int) -> None:
        rows = recorder.measured.rows_of_genomes
        known = {
            one: lambda genomes, column=column: recorder.table[rows(genomes), column]
            for column, one in enumerate(recorder.names)
            if one != "error"
        }
        problem = Problem(
            SPACE, objectives=recorder.names, metrics=known if table else {}, traits=COUNTED.traits
        )
        strategy = get_strategy(name)(problem, seed=seed, evaluations=recorder.budget)
        while len(genomes := strategy.ask()):
            strategy.tell(genomes, recorder.evaluated(rows(genomes)))

    return run


def pymoo_nsga2(recorder: Recorder, seed: int) -> None:
    """pymoo's NSGA-II with the settings that DyNAS-T uses."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    class Table(PymooProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            objectives = len(recorder.names)
            super().__init__(n_var=EDGES, n_obj=objectives, xl=0, xu=OPERATIONS - 1, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = recorder(x.astype(np.int64))

    algorithm = NSGA2(
        pop_size=50,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=0.02, eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Table(), algorithm, ("n_gen", 10 * recorder.budget // 50), seed=seed, verbose=False)


def optuna_sampler(name: str) -> Tool:
    """One of Optuna's multi-objective samplers with its default settings (population 50)."""

    def run(recorder: Recorder, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        samplers = optuna.samplers
        sampler = (
            samplers.NSGAIISampler(population_size=50, seed=seed)
            if name == "NSGA-II"
            else samplers.TPESampler(seed=seed)
        )
        study = optuna.create_study(directions=["minimize"] * len(recorder.names), sampler=sampler)
        while True:
            trial = study.ask()
            genome = [trial.suggest_categorical(f"edge{i}", range(OPERATIONS)) for i in range(EDGES)]
            study.tell(trial, recorder(np.array([genome]))[0].tolist())

    return run


TOOLS: dict[str, Tool] = {
    "edgenas": ours("evolution"),
    "edgenas, table": ours("evolution", table=True),
    "regularized evolution": ours("regularized-evolution"),
    "local search": ours("local-search"),
    "simulated annealing": ours("simulated-annealing"),
    "random": ours("random"),
    "pymoo NSGA-II": pymoo_nsga2,
    "optuna NSGA-II": optuna_sampler("NSGA-II"),
    "optuna TPE": optuna_sampler("TPE"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="200 evaluations, 3 seeds, one device")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first-seed", type=int, default=1000, help="settings were chosen on 100 to 107")
    parser.add_argument("--tool", action="append", choices=list(TOOLS))
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS))
    parser.add_argument("--evaluations", type=int, help="the budget, instead of 200 or 1,000")
    options = parser.parse_args()
    seeds = options.seeds or (3 if options.quick else 20)
    budget = options.evaluations or (200 if options.quick else CHECKPOINTS[-1])
    scenarios = options.scenario or (["one device"] if options.quick else list(SCENARIOS))
    warnings.simplefilter("ignore")
    measured = Measured()
    rows = resumed(options.json)
    done = {(row["scenario"], row["tool"], row["seed"]) for row in rows}
    for seed in range(options.first_seed, options.first_seed + seeds):
        for scenario in scenarios:
            for tool in options.tool or TOOLS:
                if (scenario, tool, seed) not in done:
                    rows.append(one_run(measured, scenario, tool, seed, budget))
                    if options.json:
                        save(options.json, rows)
    for scenario in scenarios:
        for tool in options.tool or TOOLS:
            show([row for row in rows if (row["scenario"], row["tool"]) == (scenario, tool)])


def resumed(path: Path | None) -> list[dict[str, Any]]:
    """The runs that an earlier call left in ``path``."""
    if path is None or not path.exists():
        return []
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"]
    return runs


def one_run(measured: Measured, scenario: str, tool: str, seed: int, budget: int) -> dict[str, Any]:
    """One tool, one seed: hypervolume shares and limits solved at every checkpoint."""
    names = SCENARIOS[scenario]
    recorder = Recorder(measured, names, budget)
    started = time.process_time()
    with contextlib.suppress(SpentError):
        TOOLS[tool](recorder, seed)
    seconds = time.process_time() - started
    reference = np.array([REFERENCE[name] for name in names])
    whole = hypervolume(recorder.table, reference)
    shares, solved = {}, {}
    for checkpoint in (one for one in CHECKPOINTS if one <= budget):
        found = np.array(recorder.order[:checkpoint])
        shares[str(checkpoint)] = hypervolume(recorder.table[found], reference) / whole
        solved[str(checkpoint)] = [best_under(measured, limit, found) for limit in LIMITS_MS]
    return {
        "scenario": scenario, "tool": tool, "seed": seed, "hypervolume_share": shares,
        "found_best_under": solved, "unique": len(recorder.order), "cpu_s": seconds,
    }  # fmt: skip


def best_under(measured: Measured, limit_ms: float, found: np.ndarray) -> bool:
    """Whether the lowest error that any network within the limit has is among the found ones."""
    error, latency = measured.columns["error"], measured.columns["raspi4"]
    within = found[latency[found] <= limit_ms]
    return bool(len(within) and error[within].min() <= error[latency <= limit_ms].min())


def show(rows: list[dict[str, Any]]) -> None:
    """One line: mean and spread of the shares, how often each limit's best was found."""
    points = list(rows[0]["hypervolume_share"])
    shares = np.array([list(row["hypervolume_share"].values()) for row in rows])
    solved = np.array([list(row["found_best_under"].values()) for row in rows]).mean(axis=0)
    text = "  ".join(
        f"{point}: {mean:.4f}±{spread:.4f}"
        for point, mean, spread in zip(points, shares.mean(axis=0), shares.std(axis=0), strict=True)
    )
    limits = " ".join(f"{limit} ms {share:.0%}" for limit, share in zip(LIMITS_MS, solved[-1], strict=True))
    seconds = np.median([row["cpu_s"] for row in rows])
    scenario, tool = rows[0]["scenario"], rows[0]["tool"]
    print(f"{scenario:12} {tool:22} {text}  best found: {limits}  {seconds:.2f} s", flush=True)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a scenario and tool: mean shares, and how often the best under each limit was found."""
    result = []
    for scenario, tool in dict.fromkeys((row["scenario"], row["tool"]) for row in rows):
        group = [row for row in rows if (row["scenario"], row["tool"]) == (scenario, tool)]
        line: dict[str, Any] = {"scenario": scenario, "tool": tool, "seeds": len(group)}
        for point in group[0]["hypervolume_share"]:
            line[f"share at {point}"] = float(np.mean([row["hypervolume_share"][point] for row in group]))
        last = list(group[0]["found_best_under"])[-1]
        solved = np.mean([row["found_best_under"][last] for row in group], axis=0)
        line |= {
            f"best of {limit} ms found": float(one) for limit, one in zip(LIMITS_MS, solved, strict=True)
        }
        line["cpu s"] = float(np.median([row["cpu_s"] for row in group]))
        result.append(line)
    return result


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    content = {
        "environment": provenance("numpy", "pymoo", "optuna"),
        "reference": REFERENCE,
        "seeds": sorted({row["seed"] for row in rows}),
        "summary": summary(rows),
        "runs": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
