"""How long one gate of one model takes, up to models of almost a second.

    python bench/gate_seconds.py [--quick] [--json OUT] [--seeds N]

Every row is `edgenas check MODEL --baseline BASELINE` as CI runs it: the new baseline (`--update`),
then the unchanged model and a copy with a tenth more layers, which must not pass. One gate measured
may take 60 s, one predicted from a committed table 3 s. Where no baseline is accepted, nothing can be
held to it, and the row says so. With --json every gate is kept as it comes: the same command goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from provenance import provenance

from edgenas.api import check, profile, table_export
from edgenas.device_profiles import load_profile
from edgenas.errors import BudgetNotMetError
from edgenas.files import write_atomically
from edgenas.measuring import connect
from edgenas.pipeline.ab_test import roughly_ms, ship_model
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

LAYERS_MS = (50.0, 100.0, 200.0, 400.0, 800.0)
QUICK_LAYERS_MS = (50.0,)
SLOWER = 0.10
SIZE, CHANNELS = 56, 128
SPACE, PROFILE_S = "mobilenetv3-demo", 15.0
COLUMNS = ("model", "way", "change", "threads", "latency_ms", "seconds", "verdict")
CHANGES, BASELINE, BASELINE_TRIES = ("none", "10 % more layers"), "new baseline", 3


def layers(count: int) -> onnx.ModelProto:
    """A network of so many equal convolutions (128 channels, 56x56), whose latency is nearly theirs."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            generator.normal(0, 0.03, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32), f"w{i}"
        )
        for i in range(count)
    ]
    nodes = [
        node
        for i in range(count)
        for node in (
            helper.make_node("Conv", [f"x{i}", f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]),
        )
    ]
    shape = [1, CHANNELS, SIZE, SIZE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x0", f"x{count}")]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def models(folder: Path, wanted_ms: tuple[float, ...], threads: int | None) -> dict[str, tuple[Path, Path]]:
    """By name a model of about each latency and one with a tenth more layers."""
    with connect(load_profile("local", Workspace(folder))) as agent:
        ten = ship_model(agent, layers(10), folder / "ten.onnx")
        one_ms = roughly_ms(agent, ten, threads or agent.threads) / 10
    found = {}
    for ms in wanted_ms:
        # A tenth more needs ten layers at least.
        count = max(10, round(ms / one_ms))
        found[f"about {ms:g} ms"] = tuple(
            written(folder / kind / f"layers-{ms:g}.onnx", layers(many))
            for kind, many in (("plain", count), ("slower", round((1 + SLOWER) * count)))
        )
    return found


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def gated(model: Path, baseline: Path, workspace: Workspace, **options: Any) -> dict[str, Any]:
    """One gate; the latency's verdict, because a model with more layers is larger, too."""
    started = time.monotonic()
    try:
        result = check([model], baseline=baseline, workspace=workspace, **options)
    except BudgetNotMetError as error:
        result = error.result
    seconds = time.monotonic() - started
    latency = next(one for one in reversed(result.findings) if one.metric == "latency_ms")
    return {
        "latency_ms": latency.baseline,
        "seconds": seconds,
        "verdict": latency.verdict,
        "threads": result.threads,
        "note": latency.note,
    }


class Measured:
    """Gates of models of several latencies, measured on this machine."""

    def __init__(self, folder: Path, threads: int | None, kept: list[dict[str, Any]]) -> None:
        self.folder, self.threads, self.kept = folder, threads, kept
        self.workspace = Workspace(folder)

    def rows(self, wanted_ms: tuple[float, ...], gates: int) -> Iterator[dict[str, Any]]:
        """The gates that are still due, one by one."""
        for name, files in models(self.folder, wanted_ms, self.threads).items():
            due = [
                (file, change)
                for file, change in zip(files, CHANGES, strict=True)
                for _ in range(gates - self._done(name, change))
            ]
            baseline = self.folder / f"{name}.json"
            for row in self._baselines(files[0], baseline) if due else ():
                yield {"model": name, "way": "measured", "change": BASELINE, **row}
            if baseline.exists():
                for file, change in due:
                    row = gated(file, baseline, self.workspace)
                    yield {"model": name, "way": "measured", "change": change, **row}

    def _done(self, name: str, change: str) -> int:
        return sum((one["model"], one["change"]) == (name, change) for one in self.kept)

    def _baselines(self, file: Path, baseline: Path) -> Iterator[dict[str, Any]]:
        """Tries until one is accepted, three times at most, as a user would."""
        for _ in range(BASELINE_TRIES):
            if not baseline.exists():
                yield gated(file, baseline, self.workspace, device="local", threads=self.threads, update=True)


def predicted_row(folder: Path) -> dict[str, Any]:
    """An unchanged model of a profiled space; the fastest way for a pull request."""
    workspace, table = Workspace(folder), folder / "table.json"
    profile(device="local", space=[SPACE], threads=1, time_limit_s=PROFILE_S, workspace=workspace)
    table_export("local", output=table, workspace=workspace)
    space = get_space(SPACE)
    drawn = space.sample(np.random.default_rng(0), 1)[0]
    model = written(folder / "plain" / "drawn.onnx", build_onnx(space.network(drawn)))
    baseline = folder / "predicted.json"
    check([model], baseline=baseline, table=table, update=True, workspace=workspace)
    return {"model": SPACE, "way": "predicted", "change": "none", **gated(model, baseline, workspace)}


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'model':<18} {'way':<10} {'change':<17} {'threads':>7} {'latency ms':>10} {'gate s':>7} verdict"
    ]
    lines += [
        f"{one['model']:<18} {one['way']:<10} {one['change']:<17} {one['threads']:>7} "
        f"{one['latency_ms']:>10.2f} {one['seconds']:>7.1f} {one['verdict']}"
        for one in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one model")
    parser.add_argument("--json", type=Path, help="where every gate is kept; goes on there")
    parser.add_argument("--seeds", type=int, default=1, help="gates of every row")
    parser.add_argument("--threads", type=int, help="default: what a user gets, the device's")
    options = parser.parse_args()
    kept = json.loads(options.json.read_text())["gates"] if options.json and options.json.exists() else []

    def keep(row: dict[str, Any]) -> None:
        kept.append(row)
        print(table([row]).splitlines()[1], file=sys.stderr)
        summary = [{key: one[key] for key in COLUMNS} for one in kept]
        content = {"provenance": provenance("onnx", "onnxruntime"), "summary": summary, "gates": kept}
        if options.json:
            write_atomically(options.json, json.dumps(content, indent=1).encode())

    with tempfile.TemporaryDirectory() as folder:
        if not any(one["way"] == "predicted" for one in kept):
            keep(predicted_row(Path(folder)))
        measured = Measured(Path(folder), options.threads, kept)
        for row in measured.rows(QUICK_LAYERS_MS if options.quick else LAYERS_MS, options.seeds):
            keep(row)
    print(table(kept))
    slowest = max((one["seconds"] for one in kept if one["way"] == "measured"), default=0.0)
    print(f"slowest measured gate {slowest:.1f} s (at most 60 s)", file=sys.stderr)


if __name__ == "__main__":
    main()
