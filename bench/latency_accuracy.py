"""How well tables predict networks that were held out of them, cell by cell.

A cell is a space, a runtime, a precision and a thread count. Every cell is profiled as `edgenas
profile` does it, with 60 networks held out, then predicted, beside four simpler ways on the same
networks: a line through MACs, the plain sum of profiled kernels, the sum after one correction for
all, and nn-Meter's (a random forest per kernel family). The device's own repeatability is one half of
the rounds against the other half. A killed run goes on with the next measurement, and a finished cell
is kept; `--again` measures them anew.

    python bench/latency_accuracy.py [--quick] [--json OUT] [--seeds N] [--cell NAME]... [--again]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from edgenas.device_profiles import load_profile
from edgenas.latency_tables.evaluation import kendall, noise_floor, rmspe, share_within, spearman, summarise
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.profile import Measuring, make_plan
from edgenas.pipeline.profile_plan import Target, plan_models, plan_space
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
MODELS = HERE.parents[1] / "shared" / "data" / "models"
MOBILE, RESIDUAL, MACRO = "mobilenetv3-32px", "residual-32px", "nasbench-macro"
RUNTIMES = {"ort": "local", "openvino": "local-openvino"}
HELD_OUT = 60


@dataclass(frozen=True)
class Cell:
    """What is measured together; ``space`` "real models" is predicted from the default profile."""

    space: str
    runtime: str
    precision: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.space}/{self.runtime}/{self.precision}/{self.threads}"


CELLS = [
    *(Cell(s, r, p, 1) for s in (MOBILE, RESIDUAL) for r in RUNTIMES for p in ("fp32", "int8")),
    *(Cell(MOBILE, r, "fp32", 2) for r in RUNTIMES),
    Cell(MACRO, "ort", "fp32", 1),
    Cell("real models", "ort", "fp32", 1),
]


def measure(cell: Cell, workspace: Workspace, *, quick: bool, seed: int) -> dict[str, object]:
    """Profiles one cell and judges it."""
    device = RUNTIMES[cell.runtime]
    profile = load_profile(device, workspace)
    started = time.monotonic()
    with connect(profile) as agent, LatencyTable.open(workspace.table_path(device), create=True) as table:
        target = Target.of(agent.environment, profile.int8_scheme)
        if cell.space == "real models":
            plan = make_plan((), [], ("fp32", "int8"), target, seed)
            plan += plan_models(sorted(MODELS.glob("*.onnx")), role="held-out")
        else:
            plan = plan_space(get_space(cell.space), cell.precision, target, seed=seed, held_out=HELD_OUT)
        plan = plan[:60] if quick else plan
        table.begin_run(f"bench {cell.name}")
        measuring = Measuring(agent, table, cell.threads, None, np.random.default_rng(seed))
        measuring.measure(plan)
        space = "models" if cell.space == "real models" else cell.space
        found = judge(table, measuring, space, cell)
        found["environment"] = agent.environment.to_dict()
    found |= {
        "cell": asdict(cell),
        "planned_networks": len(plan),
        "device_seconds": measuring.device_seconds,
        "elapsed_s": time.monotonic() - started,
    }
    return found


def judge(table: LatencyTable, measuring: Measuring, space: str, cell: Cell) -> dict[str, object]:
    observations = observe(table, threads=cell.threads, fingerprint=measuring.fingerprint)
    predictor = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
    held_out = [
        one
        for one in observations.with_role("held-out")
        if one.network.space == space and one.network.precision == cell.precision
    ]
    estimated = list(predictor.estimates(held_out))
    error = summarise(estimated, predictor)
    judged = [network for network, _ in estimated]
    measured = np.array([one.latency_ms for one in judged])
    ways = {"edgenas": np.array([estimate.latency_ms for _, estimate in estimated])}
    ways |= simpler(observations, judged, space, cell)
    halves = np.array([one.halves_ms() for one in judged])
    return {
        "error": error.to_dict() if error else None,
        "unpriceable": len(held_out) - len(judged),
        "noise_floor": noise_floor(held_out),
        "ways": {name: metrics(predicted, measured) for name, predicted in ways.items()},
        "repeatability": metrics(halves[:, 0], halves[:, 1]) if len(halves) else None,
        "samples": {
            "names": [one.network.name for one in judged],
            "measured_ms": measured.tolist(),
            **{name: predicted.tolist() for name, predicted in ways.items()},
        },
    }


def metrics(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """nn-Meter's metrics (rmse, rmspe, shares within 5, 10 and 15 %) and rank correlations."""
    if not len(measured):
        return {}
    return {
        "rmse_ms": float(np.sqrt(np.mean((predicted - measured) ** 2))),
        "rmspe": rmspe(predicted, measured),
        "within_5": share_within(predicted, measured, 0.05),
        "within_10": share_within(predicted, measured, 0.10),
        "within_15": share_within(predicted, measured, 0.15),
        "spearman": spearman(predicted, measured),
        "kendall": kendall(predicted, measured),
    }


def simpler(
    observations: Observations, judged: Sequence[MeasuredNetwork], space: str, cell: Cell
) -> dict[str, np.ndarray]:
    """The other ways, fitted to the same networks."""
    fitted = [
        one
        for one in observations.with_role("fit")
        if space == "models" or (one.network.space, one.network.precision) == (space, cell.precision)
    ]
    latency = np.array([one.latency_ms for one in fitted])
    forests = forest_times(observations)
    plain = [kernel_sum(observations.profiled_ms, forests, one) for one in judged]
    found = {"sum of kernels": np.array(plain)}
    raw = np.array([kernel_sum(observations.profiled_ms, forests, one) for one in fitted])
    found["sum of kernels, scaled"] = found["sum of kernels"] * float(np.median(latency / raw))
    found["forest per kernel"] = np.array([kernel_sum({}, forests, one) for one in judged])
    if all("macs" in one.network.facts for one in (*fitted, *judged)):
        macs = np.array([float(one.network.facts["macs"]) for one in fitted])
        slope, offset = np.polyfit(macs, latency, 1, w=1 / latency)
        found["MACs"] = slope * np.array([float(one.network.facts["macs"]) for one in judged]) + offset
    return found


def kernel_sum(profiled: dict[str, float], otherwise: dict[str, float], network: MeasuredNetwork) -> float:
    return sum(count * profiled.get(key, otherwise[key]) for key, count in network.kernels.items())


def forest_times(observations: Observations) -> dict[str, float]:
    """Every kernel's time by a random forest of its family, as nn-Meter builds its predictors."""
    catalogue, times = observations.catalogue, observations.profiled_ms
    families: dict[str, list[str]] = {}
    for key in observations.specs:
        families.setdefault(catalogue.family(key), []).append(key)
    found: dict[str, float] = {}
    for keys in families.values():
        known = [key for key in keys if key in times]
        if not known:
            found |= dict.fromkeys(keys, 0.0)  # nn-Meter adds nothing for a kernel without a predictor
            continue
        forest = RandomForestRegressor(100, max_features=1.0, random_state=10)
        forest.fit([catalogue.features(key) for key in known], [times[key] for key in known])
        found |= dict(zip(keys, forest.predict([catalogue.features(key) for key in keys]), strict=True))
    return found


def show(results: dict[str, dict[str, object]]) -> None:
    headings = ("±5 %", "±10 %", "RMSPE", "rho", "tau", "90 %", "device s")
    print(f"{'cell':42}{'way':26}{'n':>4}" + "".join(f"{heading:>9}" for heading in headings))
    for name, found in results.items():
        count = len(found["samples"]["measured_ms"])
        for way, one in {**found["ways"], "device against itself": found["repeatability"]}.items():
            numbers = [f"{one[key]:9.1%}" for key in ("within_5", "within_10", "rmspe")]
            numbers += [f"{one[key]:9.3f}" for key in ("spearman", "kendall")]
            if way == "edgenas":
                numbers += [f"{found['error']['interval_coverage']:9.2f}", f"{found['device_seconds']:9.0f}"]
            print(f"{name if way == 'edgenas' else '':42}{way:26}{count:4}" + "".join(numbers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 networks a cell")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latency_accuracy.json")
    parser.add_argument("--seeds", type=int, default=1, help="the seed of the plans is one less")
    parser.add_argument("--cell", action="append", help="only cells whose name contains this")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--workspace", type=Path, default=Path("runs") / "latency_accuracy")
    arguments = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    if arguments.json.is_file() and not arguments.again:
        results = json.loads(arguments.json.read_text())["cells"]
    for cell in CELLS:
        wanted = not arguments.cell or any(part in cell.name for part in arguments.cell)
        if not wanted or cell.name in results:
            continue
        print(f"measuring {cell.name}", file=sys.stderr)
        folder = arguments.workspace / ("default" if cell.space == "real models" else "spaces")
        results[cell.name] = measure(cell, Workspace(folder), quick=arguments.quick, seed=arguments.seeds - 1)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        temporary = arguments.json.with_suffix(".tmp")
        temporary.write_text(json.dumps({"bench": "latency_accuracy", "cells": results}, indent=1))
        temporary.replace(arguments.json)
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
