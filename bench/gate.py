"""How often the gate is wrong: an unchanged model (A/A) and models slowed by a known share (A/B).

    python bench/gate.py [--quick] [--json OUT] [--seeds N] [--model MODEL.onnx]

An unchanged model must hardly ever fail; one that is 10 % slower must be caught, one that is 5 %
slower must at least not pass. How much slower the slowed model really is, is measured once with
many rounds and printed beside the counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgenas.device_profiles import load_profile
from edgenas.measuring import Agent, connect
from edgenas.pipeline.ab_test import (
    CALIBRATION_FILLERS,
    compare_latency,
    judge,
    measured_rounds,
    ship_model,
    slowed,
)
from edgenas.pipeline.check import Allowance
from edgenas.pipeline.onnx_input import read_model, with_batch_one
from edgenas.pipeline.skeleton import seeded_model, strip_weights
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

SLOWDOWNS = (0.0, 0.05, 0.10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 gates a row instead of 200")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, help="gates a row")
    parser.add_argument("--model", type=Path, help="default: a network drawn from mobilenetv3-32px")
    parser.add_argument("--device", default="local")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    gates = options.seeds or (10 if options.quick else 200)
    graph = skeleton(options.model)
    with connect(load_profile(options.device, Workspace())) as agent, tempfile.TemporaryDirectory() as folder:
        rows = [
            row(agent, graph, slowdown, gates=gates, folder=Path(folder), threads=options.threads)
            for slowdown in SLOWDOWNS
        ]
        environment = agent.environment.to_dict()
    print("  asked   really  gates   pass   fail  inconclusive  s a gate")
    for one in rows:
        passed, failed, unsure = (one["verdicts"].get(name, 0) for name in ("pass", "fail", "inconclusive"))
        print(
            f"{one['asked']:>7.0%} {one['really']:>8.1%} {gates:>6} {passed:>6} {failed:>6} {unsure:>13} "
            f"{one['seconds']:>9.1f}"
        )
    if options.json:
        content = {"environment": environment, "allowance": vars(Allowance()), "rows": rows}
        options.json.write_text(json.dumps(content, indent=1))


def skeleton(path: Path | None) -> onnx.ModelProto:
    if path is not None:
        return strip_weights(with_batch_one(read_model(path), path))
    space = get_space("mobilenetv3-32px")
    return strip_weights(build_onnx(space.network(space.sample(np.random.default_rng(0), 1)[0])))


def row(
    agent: Agent, graph: onnx.ModelProto, slowdown: float, *, gates: int, folder: Path, threads: int
) -> dict[str, Any]:
    """``gates`` gates of one slowdown, with every ratio and verdict."""
    old, new = seeded_model(graph, role="baseline"), seeded_model(graph, role="today")
    if slowdown:
        new = slowed(new, fillers_for(agent, new, slowdown, folder, threads), name="injected")
    really = exact_ratio(agent, old, new, folder, threads) - 1.0
    allowance, verdicts, ratios = Allowance(), [], []
    start = time.monotonic()
    for _ in range(gates):
        found, control = compare_latency(
            agent, old, new, folder, threads=threads, allowed=allowance.slower, floor_ms=allowance.floor_ms
        )
        caught = control.verdict(allowance.slower, allowance.floor_ms) == "fail"
        verdicts.append(found.verdict(allowance.slower, allowance.floor_ms) if caught else "inconclusive")
        ratios.append(found.ratio)
    return {
        "asked": slowdown,
        "really": really,
        "verdicts": dict(Counter(verdicts)),
        "ratios": ratios,
        "seconds": (time.monotonic() - start) / gates,
    }


def fillers_for(agent: Agent, model: onnx.ModelProto, slowdown: float, folder: Path, threads: int) -> int:
    plain = ship_model(agent, model, folder / "plain.onnx")
    filled = ship_model(agent, slowed(model, CALIBRATION_FILLERS), folder / "filled.onnx")
    rounds = measured_rounds(agent, [plain, filled], threads, 40)
    plain_ms, filled_ms = (float(np.median(one)) for one in rounds)
    return max(1, round(slowdown * plain_ms * CALIBRATION_FILLERS / (filled_ms - plain_ms)))


def exact_ratio(
    agent: Agent, old: onnx.ModelProto, new: onnx.ModelProto, folder: Path, threads: int
) -> float:
    models = [ship_model(agent, model, folder / f"exact{i}.onnx") for i, model in enumerate((old, new))]
    passes = [measured_rounds(agent, models, threads, 40) for _ in range(8)]
    return judge([one[0] for one in passes], [one[1] for one in passes]).ratio


if __name__ == "__main__":
    main()
