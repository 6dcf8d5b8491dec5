"""How well tables predict networks that were held out of them, cell by cell.

A cell is a space, a runtime, a precision and a thread count. Every cell is profiled as `edgenas
profile` does it, with 60 networks held out, then predicted, beside simpler ways on the same networks:
a line through MACs, the sum of unfused ops (each network's own, ONNX Runtime alone can show them), the
plain sum of profiled kernels, that sum after one correction for all, and nn-Meter's (a random forest
per kernel family). "real models" are predicted from the default profile alone (`profile` without
--space and --model). The device's own repeatability is one half of the rounds of every pass against
the other half.

Measuring and judging are two steps: what was measured stays in the workspace, so a killed run goes on
with the next measurement, ``--seconds`` cuts a cell into pieces, and ``--judge`` only judges again.

    python bench/latency_accuracy.py [--quick] [--json OUT] [--seeds N] [--cell NAME]... [--again]
        [--measure | --judge] [--seconds S] [--models FOLDER]...
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance
from real_models import real_models
from sklearn.ensemble import RandomForestRegressor

from edgenas.agent.onnxruntime_backend import OnnxRuntimeBackend
from edgenas.device_profiles import load_profile
from edgenas.files import write_atomically
from edgenas.latency_tables.evaluation import kendall, noise_floor, rmspe, share_within, spearman, summarise
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import connect
from edgenas.pipeline.profile import DEFAULT_LIMIT_S, make_plan
from edgenas.pipeline.profile_measuring import Measuring
from edgenas.pipeline.profile_plan import FileNetwork, PlannedNetwork, Target, plan_space
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

HERE = Path(__file__).parent
MOBILE, RESIDUAL, MACRO, REAL = "mobilenetv3-32px", "residual-32px", "nasbench-macro", "real models"
RUNTIMES = {"ort": "local", "openvino": "local-openvino"}
HELD_OUT = 60
UNFUSED_RUNS = 20


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
    *(Cell(REAL, r, p, 1) for r in RUNTIMES for p in ("fp32", "int8")),
]


@dataclass
class Bench:
    """Where tables and notes are kept, and how much is measured."""

    workspace: Path
    models: list[Path]
    quick: bool
    seed: int
    seconds: float | None

    def table_of(self, cell: Cell) -> Workspace:
        return Workspace(self.workspace / ("default" if cell.space == REAL else "spaces"))

    def note_of(self, cell: Cell) -> Path:
        """What measuring the cell took; one default profile serves both precisions."""
        parts = (REAL, cell.runtime, str(cell.threads)) if cell.space == REAL else (cell.name,)
        return self.workspace / "notes" / f"{'-'.join(parts).replace('/', '-').replace(' ', '-')}.json"

    def plan(self, cell: Cell, target: Target) -> list[PlannedNetwork]:
        if cell.space == REAL:
            plan = make_plan((), [], ("fp32", "int8"), target, self.seed)
            return plan[:60] if self.quick else plan
        held_out = 12 if self.quick else HELD_OUT
        plan = plan_space(get_space(cell.space), cell.precision, target, seed=self.seed, held_out=held_out)
        return plan[:60] if self.quick else plan

    def judging(self) -> list[PlannedNetwork]:
        """The real models, one at a time so that one that fails costs no other."""
        found = []
        for path in real_models(self.workspace / "models", self.models):
            precision = "int8" if path.stem.endswith("-int8") else "fp32"
            found.append(FileNetwork(path.stem, path, precision=precision, role="held-out"))
        return found


def measure(bench: Bench, cell: Cell) -> bool:
    """Measures what the cell's table does not have; whether that is everything now."""
    device, workspace = RUNTIMES[cell.runtime], bench.table_of(cell)
    profile = load_profile(device, workspace)
    note = {"device_seconds": 0.0, "elapsed_s": 0.0, "complete": False}
    if bench.note_of(cell).is_file():
        note = json.loads(bench.note_of(cell).read_text())
    if note["complete"]:
        return True
    started = time.monotonic()
    end = None if bench.seconds is None else started + bench.seconds
    with connect(profile) as agent, LatencyTable.open(workspace.table_path(device), create=True) as table:
        plan = bench.plan(cell, Target.of(agent.environment, profile.int8_scheme))
        table.begin_run(f"bench {cell.name}")
        measuring = Measuring(agent, table, cell.threads, end, np.random.default_rng(bench.seed))
        if cell.space == REAL:  # as long as the command would take
            over = started + max(0.0, DEFAULT_LIMIT_S - note["elapsed_s"])
            measuring.end = over if end is None else min(end, over)
        measuring.measure(plan)
        note["device_seconds"] += measuring.device_seconds
        if cell.space == REAL:
            measuring.end = end
            measuring.measure(bench.judging())
        note["elapsed_s"] += time.monotonic() - started
        note |= {
            "complete": end is None or time.monotonic() < end,
            "planned_networks": len(plan),
            "fingerprint": measuring.fingerprint,
            "environment": agent.environment.to_dict(),
        }
    bench.note_of(cell).parent.mkdir(parents=True, exist_ok=True)
    bench.note_of(cell).write_text(json.dumps(note))
    return bool(note["complete"])


def judge(bench: Bench, cell: Cell) -> dict[str, object]:
    """The errors of the cell's predictions beside those of the simpler ways."""
    note, device = json.loads(bench.note_of(cell).read_text()), RUNTIMES[cell.runtime]
    with LatencyTable.open(bench.table_of(cell).table_path(device)) as table:
        observations = observe(table, threads=cell.threads, fingerprint=note["fingerprint"])
        predictor = fitted(table, threads=cell.threads, fingerprint=note["fingerprint"])
    space = "models" if cell.space == REAL else cell.space
    held_out = [
        one
        for one in observations.with_role("held-out")
        if one.network.space == space and one.network.precision == cell.precision
    ]
    estimated = list(predictor.estimates(held_out))
    error = summarise(estimated)
    judged = [network for network, _ in estimated]
    measured = np.array([one.latency_ms for one in judged])
    ways = {"edgenas": np.array([estimate.latency_ms for _, estimate in estimated])}
    ways |= simpler(observations, judged, space, cell)
    if cell.runtime == "ort":
        ways |= unfused(bench, cell, judged)
    halves = np.array([one.halves_ms() for one in judged])
    passes = np.array([one.passes_ms[:2] for one in judged if len(one.passes_ms) > 1])
    return {
        "cell": asdict(cell),
        **{name: note[name] for name in ("planned_networks", "device_seconds", "elapsed_s", "environment")},
        "error": error.to_dict() if error else None,
        "unpriceable": [one.network.name for one in held_out if one not in judged],
        "noise_floor": noise_floor(held_out),
        "ways": {name: metrics(predicted, measured) for name, predicted in ways.items()},
        "repeatability": metrics(halves[:, 0], halves[:, 1]) if len(halves) else None,
        "pass_against_pass": metrics(passes[:, 0], passes[:, 1]) if len(passes) else None,
        "samples": {
            "names": [one.network.name for one in judged],
            "measured_ms": measured.tolist(),
            "interval_ms": [found.interval_ms for _, found in estimated],
            **{name: predicted.tolist() for name, predicted in ways.items()},
        },
    }


class UnfusedRuntime(OnnxRuntimeBackend):
    """ONNX Runtime without its graph optimization: every op is a kernel."""

    def _options(self, threads: int, cores: Sequence[int] = ()) -> Any:
        options = super()._options(threads, cores)
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options


def unfused(bench: Bench, cell: Cell, judged: Sequence[MeasuredNetwork]) -> dict[str, np.ndarray]:
    """The sum of every network's own unfused ops, as a table of ops gives it at best."""
    target = Target(17, 8, load_profile(RUNTIMES[cell.runtime], bench.table_of(cell)).int8_scheme)
    plan = bench.judging() if cell.space == REAL else bench.plan(cell, target)
    by_name = {one.name: one for one in plan}
    runtime, sums = UnfusedRuntime(), []
    with tempfile.TemporaryDirectory() as folder:
        for network in judged:
            path = Path(folder) / "network.onnx"
            path.write_bytes(by_name[network.network.name].model().SerializeToString())
            kernels = runtime.trace(path, cell.threads, runs=UNFUSED_RUNS, seed=0).kernels
            sums.append(sum(kernel["latency_ms"] for kernel in kernels))
    return {"sum of unfused ops": np.array(sums)}


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


def show(results: dict[str, dict[str, Any]]) -> None:
    headings = ("±5 %", "±10 %", "RMSPE", "rho", "tau", "90 %", "device s")
    print(f"{'cell':38}{'way':24}{'n':>4}" + "".join(f"{heading:>9}" for heading in headings))
    for name, found in results.items():
        for row in rows(name, found):
            numbers = [f"{row[key]:9.1%}" for key in ("within_5", "within_10", "rmspe")]
            numbers += [f"{row[key]:9.3f}" for key in ("spearman", "kendall")]
            if row["way"] == "edgenas":
                numbers += [f"{row['interval_coverage']:9.2f}", f"{row['device_seconds']:9}"]
            cell = name if row["way"] == "edgenas" else ""
            print(f"{cell:38}{row['way']:24}{row['networks']:4}" + "".join(numbers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 networks a cell")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "latency_accuracy.json")
    parser.add_argument("--seeds", type=int, default=1, help="the seed of the plans is one less")
    parser.add_argument("--cell", action="append", help="only cells whose name contains this")
    parser.add_argument("--again", action="store_true", help="judge finished cells again")
    parser.add_argument("--measure", action="store_true", help="only measure")
    parser.add_argument("--judge", action="store_true", help="only judge what was measured")
    parser.add_argument("--seconds", type=float, help="stop measuring after so long; run again to go on")
    parser.add_argument("--models", type=Path, action="append", default=[], help="folders of more models")
    parser.add_argument("--workspace", type=Path, default=Path("runs") / "latency_accuracy")
    asked = parser.parse_args()
    bench = Bench(asked.workspace, asked.models, asked.quick, asked.seeds - 1, asked.seconds)
    results: dict[str, dict[str, Any]] = {}
    if asked.json.is_file():
        results = json.loads(asked.json.read_text())["samples"]
    for cell in CELLS:
        wanted = not asked.cell or any(part in cell.name for part in asked.cell)
        if not wanted or (cell.name in results and not asked.again):
            continue
        print(f"{cell.name}, {time.strftime('%T')}", file=sys.stderr)
        if not asked.judge and not measure(bench, cell):
            break
        if not asked.measure and bench.note_of(cell).is_file():
            results[cell.name] = judge(bench, cell)
            save(results, asked.json)
    show(results)
    return 0


def save(results: dict[str, dict[str, Any]], path: Path) -> None:
    content = {
        "environment": provenance("numpy", "onnxruntime", "openvino"),
        "summary": [row for name, found in results.items() for row in rows(name, found)],
        "samples": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def rows(name: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a cell comes to, a row a way."""
    known = {**found["ways"], "device against itself": found["repeatability"]}
    for way, one in known.items():
        row = {"cell": name, "way": way, "networks": len(found["samples"]["measured_ms"])}
        row |= {key: round(one[key], 4) for key in ("within_5", "within_10", "rmspe", "spearman", "kendall")}
        if way == "edgenas":
            row["interval_coverage"] = round(found["error"]["interval_coverage"], 3)
            row["device_seconds"] = round(found["device_seconds"])
        yield row


if __name__ == "__main__":
    sys.exit(main())
