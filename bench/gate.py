"""How often the gate is wrong: unchanged models (A/A) and models slowed by a known share (A/B).

    python bench/gate.py [--quick] [--json OUT] [--seeds N] [--model MODEL.onnx]... [--device ID]

An unchanged model must hardly ever fail; one that is 10 % slower must be caught, one that is 5 %
slower must at least not pass. On a virtual board, which counts instructions, half a percent must be
caught. Every gate judges all that a gate judges: bytes, parameters, operators, latency, memory. An A/A
gate is right when all of it passes, an A/B gate when its latency fails (its size does anyway, by the
weights of what slows it). Slowed models are made slower until many rounds say that they are so by the
share that was asked. On a board a fresh process takes half a minute: there one gate of 25 is whole, the
others judge latency alone.

Beside it runs edgegate 0.2.0 on the same files in turns, with the same 3 %: against a baseline that it
recorded at the start, once with its floor of 0.5 ms as it is shipped, once with our 0.005 ms.

With --json every gate is kept as it comes: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from provenance import provenance

from edgenas.device_profiles import load_profile
from edgenas.files import write_atomically
from edgenas.measuring import Agent, connect
from edgenas.pipeline.ab_test import judge, measured, ship_model, slowed
from edgenas.pipeline.baseline import BASELINE_VERSION, Baseline
from edgenas.pipeline.gate import Gate
from edgenas.pipeline.gate_findings import worst
from edgenas.pipeline.gate_latency import MeasuredLatency
from edgenas.pipeline.gate_limits import Allowance
from edgenas.pipeline.gate_model import GatedModel, read_gated
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

SLOWDOWNS, VIRTUAL_SLOWDOWNS = (0.0, 0.05, 0.10), (0.0, 0.005)
GATES = {0.0: 200, 0.05: 100, 0.10: 100}  # of all models together
VIRTUAL_GATES = {0.0: 100, 0.005: 100}
DRAWN = (5, 16)  # of the first draws of mobilenetv3-32px: about 0.3 ms and 0.9 ms on one desktop core
WHOLE = {False: 1, True: 25}  # of so many gates one judges everything
EXACT_PASSES, EXACT_ROUNDS = {False: 8, True: 3}, 40
EDGEGATE = "edgegate"
Maker = Callable[[int], onnx.ModelProto]  # the model, made slower by that many steps
EDGEGATE_FLOORS_MS = {"edgegate as shipped": 0.5, "edgegate, floor 0.005 ms": 0.005}


@dataclass(frozen=True)
class Row:
    """One model at one slowdown: the file, the accepted baseline and how much slower it really is."""

    model: str
    asked: float
    really: float
    known: Baseline
    today: GatedModel


class Bench:
    """One device, the allowance of a fresh gate, and what was found so far."""

    def __init__(self, agent: Agent, threads: int, folder: Path, kept: Path | None) -> None:
        self.agent, self.folder, self.kept, self.threads = agent, folder, kept, threads
        self.source = MeasuredLatency(agent, threads, Allowance())
        self.one_gate = Gate(self.source, Allowance(), None, Workspace())
        self.virtual = agent.profile.virtual
        self.gates: list[dict[str, Any]] = []
        if kept is not None and kept.exists():
            stored = json.loads(kept.read_text())
            if stored["complete"]:
                raise SystemExit(f"{kept} is complete; remove it for another run")
            self.gates = stored["gates"]

    def rows(self, name: str, make: Maker, slowdowns: tuple[float, ...]) -> list[Row]:
        """The model and its slowed copies."""
        plain = self._gated(name, make(0), "plain")
        known = self._accepted(plain)
        rows = [Row(name, 0.0, 0.0, known, plain)]
        for asked in slowdowns[1:]:
            copy, really = self._slowed_by(make, asked)
            rows.append(Row(name, asked, really, known, self._gated(name, copy, f"{asked:g}")))
        return rows

    def _slowed_by(self, make: Maker, asked: float) -> tuple[onnx.ModelProto, float]:
        """A copy that is slower by a share, and the share by many rounds: secants from two copies."""

        def slower(amount: int) -> tuple[int, float]:
            return amount, self._exact_ratio(make(0), make(amount)) - 1.0

        known = [slower(8), slower(40)]
        for _ in range(5):
            (x0, y0), (x1, y1) = sorted(known, key=lambda one: abs(one[1] - asked))[:2]
            amount = max(1, round(x0 + (asked - y0) * (x1 - x0) / ((y1 - y0) or 1.0)))
            if abs(y0 / asked - 1.0) < 0.05 or amount in (one[0] for one in known):
                break
            known.append(slower(amount))
        amount, really = min(known, key=lambda one: abs(one[1] - asked))
        return make(amount), really

    def gate(self, row: Row) -> None:
        """One gate, noted."""
        start, before = time.monotonic(), row.known.models[0]
        whole = self.count(row, "edgenas") % WHOLE[self.virtual] == 0
        if whole:
            findings = self.one_gate.findings(row.known, row.today, self.one_gate.today(row.today))
        else:
            findings = self.source.compared(before, row.today, self.folder)
        latency = next(one for one in findings if one.metric == "latency_ms")
        everything = worst([one.verdict for one in findings])
        self._note(
            row, "edgenas", latency.verdict if row.asked else everything, time.monotonic() - start,
            ratio=latency.value / latency.baseline, interval=[end / latency.baseline for end in latency.interval],
            control=latency.note, whole=whole, everything=everything,
            not_passed=[f"{one.metric} {one.verdict}" for one in findings if one.verdict != "pass"],
        )  # fmt: skip

    def edgegate(self, row: Row) -> None:
        """One run of edgegate, judged with each of the floors."""
        shape = [one.dim_value for one in row.today.skeleton.graph.input[0].type.tensor_type.shape.dim]
        baseline = self.folder / f"{row.model}-edgegate.json"
        if not baseline.exists():
            plain = self.folder / f"{row.model}-plain" / f"{row.model}.onnx"
            self._edgegate_run(plain, shape, baseline)
        start = time.monotonic()
        found = self.folder / "edgegate.json"
        self._edgegate_run(row.today.file, shape, found)
        seconds = time.monotonic() - start
        for name, floor_ms in EDGEGATE_FLOORS_MS.items():
            config = self._edgegate_config(row.today.file, shape, floor_ms)
            command = [sys.executable, "-m", "edgegate.cli", "check", "-c", config, "--results", found]
            done = subprocess.run([*command, "--baseline", baseline], capture_output=True, check=False)
            self._note(row, name, {0: "pass", 2: "fail"}[done.returncode], seconds)

    def _edgegate_run(self, file: Path, shape: list[int], out: Path) -> None:
        config = self._edgegate_config(file, shape, 0.5)
        command = [sys.executable, "-m", "edgegate.cli", "run", "-c", config, "-o", out]
        subprocess.run(command, capture_output=True, check=True)

    def _edgegate_config(self, file: Path, shape: list[int], floor_ms: float) -> Path:
        thresholds = {
            "latency_p99_regression_pct": 100.0 * self.source.allowed,
            "latency_regression_floor_ms": floor_ms,
        }
        model = {"path": str(file), "backend": "onnxruntime", "precision": "fp32", "input": {"shape": shape}}
        path = self.folder / "edgegate.yaml"
        path.write_text(json.dumps({"version": 1, "model": model, "thresholds": thresholds}))  # JSON is YAML
        return path

    def count(self, row: Row, gate: str) -> int:
        """How many gates of a row are done."""
        return sum(
            (one["model"], one["asked"], one["gate"]) == (row.model, row.asked, gate) for one in self.gates
        )

    def save(self, rows: list[Row], *, complete: bool) -> None:
        """Writes everything; the table of figures is made from it."""
        if self.kept is None:
            return
        really = [{"model": row.model, "asked": row.asked, "really": row.really} for row in rows]
        content = {
            "complete": complete, "environment": self.agent.environment.to_dict(), "provenance": provenance(),
            "threads": self.threads, "max_slower": self.source.allowed, "slowdowns": really,
            "summary": summary(self.gates), "gates": self.gates,
        }  # fmt: skip
        write_atomically(self.kept, json.dumps(content, indent=1).encode())

    def _note(self, row: Row, gate: str, verdict: str, seconds: float, **more: Any) -> None:
        self.gates.append(
            {
                "model": row.model,
                "asked": row.asked,
                "really": row.really,
                "gate": gate,
                "verdict": verdict,
                "seconds": seconds,
                **more,
            }
        )

    def _gated(self, name: str, model: onnx.ModelProto, variant: str) -> GatedModel:
        path = self.folder / f"{name}-{variant}" / f"{name}.onnx"
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
        return read_gated(name, path, self.folder)

    def _accepted(self, model: GatedModel) -> Baseline:
        return Baseline(
            schema_version=BASELINE_VERSION, created_at="", edgenas_version="", versions={}, commit="",
            device=self.source.device, threads=self.threads, latency_source=self.source.name, table="",
            environment=self.source.environment, verdict="pass", models=(self.one_gate.today(model),),
        )  # fmt: skip

    def _exact_ratio(self, old: onnx.ModelProto, new: onnx.ModelProto) -> float:
        models = [
            ship_model(self.agent, model, self.folder / f"exact{i}.onnx")
            for i, model in enumerate((old, new))
        ]
        rounds = (EXACT_ROUNDS, EXACT_ROUNDS)
        passes = [
            measured(self.agent, models, self.threads, rounds) for _ in range(EXACT_PASSES[self.virtual])
        ]
        a, b = ([np.array(one[i].rounds_ms) for one in passes] for i in (0, 1))
        return judge(a, b).ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the gates")
    parser.add_argument("--json", type=Path, help="where every gate is kept; goes on there")
    parser.add_argument("--seeds", type=int, help="gates of a row instead")
    parser.add_argument("--model", type=Path, action="append", help="default: two of mobilenetv3-32px")
    parser.add_argument("--device", default="local")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    peer = importlib.util.find_spec(EDGEGATE) is not None and options.device == "local"
    if not peer:
        print(
            f"without edgegate: {'it runs on this machine only' if options.device != 'local' else 'not installed (make bench-env)'}"
        )
    with connect(load_profile(options.device, Workspace())) as agent, tempfile.TemporaryDirectory() as folder:
        bench = Bench(agent, options.threads, Path(folder), options.json)
        slowdowns = VIRTUAL_SLOWDOWNS if bench.virtual else SLOWDOWNS
        makers = models(options.model, small=bench.virtual)
        rows = [row for name, make in makers.items() for row in bench.rows(name, make, slowdowns)]
        run(bench, rows, options, peer=peer)
    print(table(summary(bench.gates)))


def run(bench: Bench, rows: list[Row], options: argparse.Namespace, *, peer: bool) -> None:
    """Rows in turns, so that all of them see the same noise, however long it takes."""
    names = {row.model for row in rows}
    wanted = {
        asked: options.seeds or max(2, round(count / len(names) / (20 if options.quick else 1)))
        for asked, count in (VIRTUAL_GATES if bench.virtual else GATES).items()
    }
    for turn in range(max(wanted.values())):
        for row in rows:
            if bench.count(row, "edgenas") <= turn < wanted[row.asked]:
                bench.gate(row)
            if peer and bench.count(row, next(iter(EDGEGATE_FLOORS_MS))) <= turn < wanted[row.asked]:
                bench.edgegate(row)
        bench.save(rows, complete=False)
        print(f"\r{turn + 1}/{max(wanted.values())} turns", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    bench.save(rows, complete=not options.quick)


def models(paths: list[Path] | None, *, small: bool) -> dict[str, Maker]:
    """The files given; else draws of a space, or for a board its smallest network in both precisions."""
    space = get_space("mobilenetv3-32px")
    if paths:
        return {path.stem: partial(_with_fillers, onnx.load(path)) for path in paths}
    if small:
        return {f"residual-32px-{precision}": partial(_smallest, precision) for precision in ("fp32", "int8")}
    drawn = space.sample(np.random.default_rng(0), max(DRAWN) + 1)
    return {
        f"mobilenetv3-32px-{i}": partial(_with_fillers, build_onnx(space.network(drawn[i]))) for i in DRAWN
    }


def _with_fillers(model: onnx.ModelProto, amount: int) -> onnx.ModelProto:
    """The model with so many small matrix products more: steps of some microseconds."""
    return slowed(model, amount, name="injected") if amount else model


def _smallest(precision: str, amount: int) -> onnx.ModelProto:
    """The smallest network of a space, with so many classes more: steps of a fraction of a microsecond."""
    space = get_space("residual-32px", classes=10 + amount)
    options = [one.options.index(precision) if precision in one.options else 0 for one in space.choices]
    return build_onnx(space.network(np.array(options)))


def summary(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts and seconds per gate, slowdown and model."""
    keys = sorted({(one["gate"], one["asked"], one["model"]) for one in gates}, key=lambda key: (key[1], key))
    rows = []
    for gate, asked, model in keys:
        chosen = [one for one in gates if (one["gate"], one["asked"], one["model"]) == (gate, asked, model)]
        counts = {
            name: sum(one["verdict"] == name for one in chosen) for name in ("pass", "fail", "inconclusive")
        }
        really = float(np.mean([one.get("really", asked) for one in chosen]))
        seconds = [one["seconds"] for one in chosen]
        rows.append({
            "gate": gate, "model": model, "asked": asked, "really": really, "gates": len(chosen), **counts,
            "seconds": float(np.mean(seconds)), "slowest_s": max(seconds),
        })  # fmt: skip
    return rows


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        f"{'gate':<26} {'model':<20} {'asked':>6} {'really':>7} {'gates':>6} {'pass':>5} {'fail':>5} {'unsure':>6} {'s a gate':>8} {'slowest':>8}"
    ]
    lines += [
        f"{one['gate']:<26} {one['model']:<20} {one['asked']:>6.1%} {one['really']:>7.2%} {one['gates']:>6} "
        f"{one['pass']:>5} {one['fail']:>5} {one['inconclusive']:>6} {one['seconds']:>8.1f} {one['slowest_s']:>8.1f}"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
