"""How often the gate is wrong: unchanged models (A/A) and models slowed by a known share (A/B).

    python bench/gate.py [--quick] [--json OUT] [--seeds N] [--model MODEL.onnx]... [--device ID]

An unchanged model must hardly ever fail; one that is 10 % slower must be caught, one that is 5 %
slower must at least not pass. On a virtual board, which counts instructions, half a percent must be
caught. A/A gates judge everything that a gate judges, A/B gates latency alone. Slowed models are made
slower until many rounds say that they are so by the share that was asked.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from provenance import provenance

from edgenas.device_profiles import load_profile
from edgenas.files import write_atomically
from edgenas.measuring import Agent, connect
from edgenas.pipeline.ab_test import filler_ms, judge, measured_rounds, ship_model, slowed
from edgenas.pipeline.baseline import BaselineModel
from edgenas.pipeline.gate_findings import worst
from edgenas.pipeline.gate_latency import MeasuredLatency
from edgenas.pipeline.gate_limits import Allowance
from edgenas.pipeline.gate_model import GatedModel, read_gated
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

SLOWDOWNS, VIRTUAL_SLOWDOWNS = (0.0, 0.05, 0.10), (0.0, 0.005)
GATES = {0.0: 200, 0.005: 100, 0.05: 100, 0.10: 100}  # of all models together
DRAWN = (5, 16)  # of the first draws of mobilenetv3-32px: about 0.3 ms and 0.9 ms on one desktop core
EXACT_PASSES, EXACT_ROUNDS = 8, 40
EDGEGATE = "edgegate"
EDGEGATE_FLOORS_MS = {"edgegate as shipped": 0.5, "edgegate, floor 0.005 ms": 0.005}


@dataclass(frozen=True)
class Row:
    """One model at one slowdown: the file, the accepted model and how much slower it really is."""

    model: str
    asked: float
    really: float
    known: BaselineModel
    today: GatedModel


class Bench:
    """One device, the allowance of a fresh gate, and what was found so far."""

    def __init__(self, agent: Agent, threads: int, folder: Path, kept: Path | None) -> None:
        self.agent, self.folder, self.kept, self.threads = agent, folder, kept, threads
        self.source = MeasuredLatency(agent, threads, Allowance())
        self.gates: list[dict[str, Any]] = []
        if kept is not None and kept.exists():
            stored = json.loads(kept.read_text())
            if stored["complete"]:
                raise SystemExit(f"{kept} is complete; remove it for another run")
            self.gates = stored["gates"]

    def rows(self, name: str, model: onnx.ModelProto, slowdowns: tuple[float, ...]) -> list[Row]:
        """The model and its slowed copies."""
        plain = self._gated(name, model, "plain")
        known = self._accepted(plain)
        rows = [Row(name, 0.0, 0.0, known, plain)]
        sha256 = ship_model(self.agent, model, self.folder / f"{name}-plain.onnx")
        one_ms, plain_ms = filler_ms(self.agent, sha256, self.folder, threads=self.threads)
        for asked in slowdowns[1:]:
            count = max(1, round(asked * plain_ms / one_ms))
            for _ in range(3):  # what a filler costs inside the model is measured there
                copy = slowed(model, count, name="injected")
                really = self._exact_ratio(model, copy) - 1.0
                if abs(really / asked - 1.0) < 0.1:
                    break
                count = max(1, round(count * asked / max(really, 0.2 * asked)))
            rows.append(Row(name, asked, really, known, self._gated(name, copy, f"{asked:g}")))
        return rows

    def gate(self, row: Row) -> None:
        """One gate, noted."""
        start = time.monotonic()
        if row.asked:
            finding = self.source.compared(row.known, row.today, self.folder)
            findings = [finding]
        else:
            _, found = self.source.latency(row.today)
            findings = self.source.against(row.known, row.today, found)
            finding = findings[0]
        self._note(
            row, "edgenas", worst([one.verdict for one in findings]), time.monotonic() - start,
            ratio=finding.value / finding.baseline, interval=[end / finding.baseline for end in finding.interval],
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

    def _accepted(self, model: GatedModel) -> BaselineModel:
        latency_ms, found = self.source.latency(model)
        return BaselineModel(
            name=model.name, sha256=model.sha256(), size_bytes=model.size_bytes, parameters=model.parameters,
            ops=dict(model.ops), accuracy=None, latency_ms=latency_ms, characterisation=found,
            skeleton=model.packed_skeleton(),
        )  # fmt: skip

    def _exact_ratio(self, old: onnx.ModelProto, new: onnx.ModelProto) -> float:
        models = [
            ship_model(self.agent, model, self.folder / f"exact{i}.onnx")
            for i, model in enumerate((old, new))
        ]
        passes = [
            measured_rounds(self.agent, models, self.threads, EXACT_ROUNDS) for _ in range(EXACT_PASSES)
        ]
        return judge([one[0] for one in passes], [one[1] for one in passes]).ratio


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
        slowdowns = VIRTUAL_SLOWDOWNS if agent.profile.virtual else SLOWDOWNS
        rows = [
            row for name, model in models(options.model).items() for row in bench.rows(name, model, slowdowns)
        ]
        run(bench, rows, options, peer=peer)
    print(table(summary(bench.gates), rows))


def run(bench: Bench, rows: list[Row], options: argparse.Namespace, *, peer: bool) -> None:
    """Rows in turns, so that all of them see the same noise, however long it takes."""
    names = {row.model for row in rows}
    wanted = {
        asked: options.seeds or max(2, round(GATES[asked] / len(names) / (20 if options.quick else 1)))
        for asked in {row.asked for row in rows}
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


def models(paths: list[Path] | None) -> dict[str, onnx.ModelProto]:
    if paths:
        return {path.stem: onnx.load(path) for path in paths}
    space = get_space("mobilenetv3-32px")
    drawn = space.sample(np.random.default_rng(0), max(DRAWN) + 1)
    return {f"mobilenetv3-32px-{i}": build_onnx(space.network(drawn[i])) for i in DRAWN}


def summary(gates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Verdicts and seconds per gate, slowdown and model."""
    keys = sorted({(one["gate"], one["asked"], one["model"]) for one in gates}, key=lambda key: (key[1], key))
    rows = []
    for gate, asked, model in keys:
        chosen = [one for one in gates if (one["gate"], one["asked"], one["model"]) == (gate, asked, model)]
        counts = {
            name: sum(one["verdict"] == name for one in chosen) for name in ("pass", "fail", "inconclusive")
        }
        seconds = float(np.mean([one["seconds"] for one in chosen]))
        rows.append(
            {"gate": gate, "asked": asked, "model": model, "gates": len(chosen), **counts, "seconds": seconds}
        )
    return rows


def table(found: list[dict[str, Any]], rows: list[Row]) -> str:
    really = {(row.model, row.asked): row.really for row in rows}
    lines = [
        f"{'gate':<26} {'model':<20} {'asked':>6} {'really':>7} {'gates':>6} {'pass':>5} {'fail':>5} {'unsure':>6} {'s a gate':>8}"
    ]
    lines += [
        f"{one['gate']:<26} {one['model']:<20} {one['asked']:>6.1%} {really[one['model'], one['asked']]:>7.1%} "
        f"{one['gates']:>6} {one['pass']:>5} {one['fail']:>5} {one['inconclusive']:>6} {one['seconds']:>8.1f}"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
