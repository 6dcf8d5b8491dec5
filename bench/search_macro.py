"""NAS-Bench-Macro under a latency limit that this machine's own table gives, against the known optimum.

    python bench/search_macro.py [--quick] [--json OUT] [--seeds N] [--first-seed K]

The table is measured first (``edgenas profile --space nasbench-macro``, a few minutes, kept under
build/): run that part alone on a quiet machine with ``--profile-only``. Accuracies are the benchmark's.
Everybody knows the latencies and is charged for unique candidates within the limit alone; a peer that
proposes one above it is told so at no cost. ``relaxing`` begins with stricter limits than were asked
(``edgenas search --pressure relaxing``), which the others hold constant. Regret is the accuracy that is missing to the best network
within the limit, in points. Runs that OUT holds are not made again.
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
from provenance import provenance
from search_hwnas import resumed

from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.profile import profile
from edgenas.search.problem import Limit, Problem
from edgenas.search.schedule import CONSTANT, RELAXING, PressureSchedule
from edgenas.search.strategies import get_strategy
from edgenas.search_spaces import get_space
from edgenas.search_spaces.counted import CountedSpace
from edgenas.workspace import Workspace

ACCURACIES = Path(__file__).parents[2] / "shared/data/nas_bench_macro/nas-bench-macro_cifar10.json"
WORKSPACE = Path(__file__).parents[1] / "build" / "search_macro"
SPACE = get_space("nasbench-macro")
COUNTED = CountedSpace(SPACE)
GENES, OPTIONS = 8, 3
QUANTILES = (0.2, 0.5, 0.8)
CHECKPOINTS = (50, 100, 200)
BUDGET = CHECKPOINTS[-1]


class SpentError(Exception):
    """The budget is used up."""


class Benchmark:
    """All 6,561 networks: accuracy in percent and predicted latency in ms by genome number."""

    def __init__(self) -> None:
        self.genomes = np.indices([OPTIONS] * GENES).reshape(GENES, -1).T.astype(np.int64)
        found = json.loads(ACCURACIES.read_text())
        texts = ["".join(map(str, genome)) for genome in self.genomes.tolist()]
        self.accuracy = np.array([found[text]["mean_acc"] for text in texts])
        latency = compiled_latency(SPACE, "local", threads=1, workspace=Workspace(WORKSPACE))
        self.latency_ms = latency(self.genomes)
        self.limits_ms = tuple(float(one) for one in np.quantile(self.latency_ms, QUANTILES))

    def numbers(self, genomes: np.ndarray) -> np.ndarray:
        """Genome numbers (N,)."""
        return np.asarray(genomes) @ OPTIONS ** np.arange(GENES - 1, -1, -1)


class Recorder:
    """Charges unique candidates within the limit."""

    def __init__(self, benchmark: Benchmark, limit_ms: float, budget: int = BUDGET) -> None:
        self.benchmark, self.limit_ms, self.budget = benchmark, limit_ms, budget
        self.order: list[int] = []
        self._seen: set[int] = set()
        self._asked = 0

    def __call__(self, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Losses (N,) in points and by how many ms the limit is missed (N,).

        Raises:
            SpentError: the budget is used up, or fifty times as much was asked for.
        """
        numbers = self.benchmark.numbers(genomes)
        over = np.maximum(self.benchmark.latency_ms[numbers] - self.limit_ms, 0.0)
        for number, excess in zip(numbers.tolist(), over, strict=True):
            self._asked += 1
            if excess == 0 and number not in self._seen:
                self._seen.add(number)
                self.order.append(number)
            if len(self.order) >= self.budget or self._asked >= 50 * self.budget:
                raise SpentError
        return 100.0 - self.benchmark.accuracy[numbers], over


Tool = Callable[[Recorder, int], None]


def ours(name: str, *, pressure: str = CONSTANT) -> Tool:
    """One of our strategies with its default settings."""

    def run(recorder: Recorder, seed: int) -> None:
        benchmark = recorder.benchmark
        problem = Problem(
            SPACE,
            metrics={"latency_ms": lambda genomes: benchmark.latency_ms[benchmark.numbers(genomes)]},
            limits=[Limit(metric="latency_ms", maximum=recorder.limit_ms)],
            traits=COUNTED.traits,
        )
        schedule = PressureSchedule(pressure, problem)
        strategy = get_strategy(name)(problem, seed=seed, evaluations=recorder.budget)
        while True:
            problem.limits = schedule.at(len(recorder.order) / recorder.budget)
            genomes = strategy.ask()
            if not len(genomes):  # nothing is left under the pressure, or at all
                problem.limits = schedule.at(1.0)
                genomes = strategy.ask()
            if not len(genomes):
                return
            strategy.tell(genomes, recorder(genomes)[0][:, None])

    return run


def optuna_tpe(recorder: Recorder, seed: int) -> None:
    """Optuna's TPE; what misses the limit is worse than everything, by how much it misses."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    while True:
        trial = study.ask()
        genome = [trial.suggest_categorical(f"block{i}", range(OPTIONS)) for i in range(GENES)]
        loss, over = recorder(np.array([genome]))
        study.tell(trial, float(loss[0] if over[0] == 0 else 100.0 + 100.0 * over[0]))


def pymoo_ga(recorder: Recorder, seed: int) -> None:
    """pymoo's genetic algorithm with the limit as a constraint, population 50."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem as PymooProblem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    class Table(PymooProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=GENES, n_obj=1, n_ieq_constr=1, xl=0, xu=OPTIONS - 1, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"], out["G"] = recorder(x.astype(np.int64))

    algorithm = GA(
        pop_size=50,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        mutation=PM(prob=1.0 / GENES, eta=20, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Table(), algorithm, ("n_gen", 50 * BUDGET // 50), seed=seed, verbose=False)


TOOLS: dict[str, Tool] = {
    "edgenas": ours("evolution"),
    "edgenas, relaxing": ours("evolution", pressure=RELAXING),
    "regularized evolution": ours("regularized-evolution"),
    "regularized evolution, relaxing": ours("regularized-evolution", pressure=RELAXING),
    "random": ours("random"),
    "optuna TPE": optuna_tpe,
    "pymoo GA": pymoo_ga,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 seeds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--profile-only", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measure()
    if options.profile_only:
        return
    benchmark = Benchmark()
    seeds = options.seeds or (3 if options.quick else 20)
    rows = resumed(options.json)
    done = {(row["seed"], row["limit_ms"], row["tool"]) for row in rows}
    for seed in range(options.first_seed, options.first_seed + seeds):
        for limit in benchmark.limits_ms:
            for tool in TOOLS:
                if (seed, round(limit, 4), tool) not in done:
                    rows.append(one_run(benchmark, limit, tool, seed))
        if options.json:
            save(options.json, rows)
    for line in summary(rows):
        print("  ".join(f"{name} {value}" for name, value in line.items()))


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    content = {"environment": provenance("numpy", "pymoo", "optuna"), "summary": summary(rows), "runs": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")


def measure() -> None:
    """The table of this machine, once."""
    workspace = Workspace(WORKSPACE)
    if not workspace.table_path("local").exists():
        WORKSPACE.mkdir(parents=True, exist_ok=True)
        profile(
            device="local", space=(SPACE.name,), precision=("fp32",), threads=1, time_limit_s=180,
            workspace=workspace,
        )  # fmt: skip


def one_run(benchmark: Benchmark, limit_ms: float, tool: str, seed: int) -> dict[str, Any]:
    """Regret in points after so many evaluations."""
    recorder = Recorder(benchmark, limit_ms)
    started = time.process_time()
    with contextlib.suppress(SpentError):
        TOOLS[tool](recorder, seed)
    best = benchmark.accuracy[benchmark.latency_ms <= limit_ms].max()
    found = benchmark.accuracy[recorder.order]
    return {
        "tool": tool, "limit_ms": round(limit_ms, 4), "seed": seed, "unique": len(found),
        "regret": {str(point): float(best - found[:point].max()) for point in CHECKPOINTS},
        "cpu_s": time.process_time() - started,
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a limit and tool: mean regret, and how often the optimum was found at the end."""
    result = []
    for limit, tool in dict.fromkeys((row["limit_ms"], row["tool"]) for row in rows):
        group = [row for row in rows if (row["limit_ms"], row["tool"]) == (limit, tool)]
        line: dict[str, Any] = {"limit ms": limit, "tool": tool, "seeds": len(group)}
        for point in CHECKPOINTS:
            regrets = [row["regret"][str(point)] for row in group]
            line[f"regret at {point}"] = round(float(np.mean(regrets)), 4)
        line["optimum found"] = float(np.mean([row["regret"][str(BUDGET)] == 0 for row in group]))
        result.append(line)
    return result


if __name__ == "__main__":
    main()
