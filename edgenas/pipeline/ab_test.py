"""Is one network slower than another on this device, now? Interleaved rounds and a positive control.

Old network, new network and a copy of the new one that is slowed on purpose run side by side in
several passes; every pass loads its sessions afresh, because where a session's memory lies can be
worth a percent. A verdict stands only if the slowed copy is caught by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgenas.errors import MeasurementError, ModelError
from edgenas.measuring import Agent

Array = NDArray[np.float64]
PASSES, MOST_PASSES, ROUNDS, LEAST_ROUNDS = 4, 12, 12, 4
VIRTUAL_PASSES = 2  # an instruction count repeats itself
PASS_S = 6.0
CALIBRATION_ROUNDS = 8
RESAMPLES = 2000
CONFIDENCE = 0.99
FILLER_SIZE = 128
FILLERS = (64, 320)  # that calibration times alone
CONTROL_FACTOR = 2.0  # the control is slowed by this many times what is allowed, at least
LEAST_CONTROL = 0.10


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times as long B takes as A, with the 99 % interval of the ratio."""

    ratio: float
    interval: tuple[float, float]
    a_ms: float
    b_ms: float

    def verdict(self, allowed: float, floor_ms: float) -> Literal["pass", "fail", "inconclusive"]:
        """Whether B is slower than A by more than ``allowed`` (a share) and more than ``floor_ms``."""
        limit = max(1.0 + allowed, 1.0 + floor_ms / self.a_ms)
        low, high = self.interval
        if low > limit:
            return "fail"
        return "pass" if high <= limit else "inconclusive"


def compare_latency(
    agent: Agent,
    old: onnx.ModelProto,
    new: onnx.ModelProto,
    folder: Path,
    *,
    threads: int,
    allowed: float,
    floor_ms: float,
) -> tuple[Comparison, Comparison]:
    """New against old, and the slowed copy of new against new.

    Measures until both are decided, or for at most twelve passes.

    Args:
        allowed: the share by which new may be slower; the control is slowed by twice that.
        floor_ms: what is never too slow, however small the network.
        folder: where the models are written for shipping.

    Raises:
        MeasurementError: the device cannot run one of them.
    """
    fillers, new_ms = _fillers_for(agent, new, folder, threads=threads, allowed=allowed, floor_ms=floor_ms)
    models = {"old": old, "new": new, "control": slowed(new, fillers)}
    shipped = [ship_model(agent, model, folder / f"{name}.onnx") for name, model in models.items()]
    at_once = VIRTUAL_PASSES if agent.profile.virtual else PASSES
    passes: list[list[Array]] = []
    while len(passes) < (at_once if agent.profile.virtual else MOST_PASSES):
        for _ in range(at_once):
            passes.append(_one_pass(agent, shipped, threads, _rounds_for(new_ms), turned=len(passes)))
        old_rounds, new_rounds, control_rounds = ([one[i] for one in passes] for i in range(3))
        found, control = judge(old_rounds, new_rounds), judge(new_rounds, control_rounds)
        if "inconclusive" not in (found.verdict(allowed, floor_ms), control.verdict(allowed, floor_ms)):
            break
    return found, control


def _rounds_for(latency_ms: float) -> int:
    """Rounds of one pass: fewer where three models of this latency would take longer than ``PASS_S``."""
    # Three runs a turn and one that does not count, for each of three models.
    round_s = 12.0 * latency_ms / 1e3
    return int(np.clip(PASS_S / round_s, LEAST_ROUNDS, ROUNDS))


def _one_pass(agent: Agent, models: list[str], threads: int, rounds: int, *, turned: int) -> list[Array]:
    """Rounds of freshly loaded sessions. Each pass loads another model first: the place in memory that
    the first one gets can be the better one every time."""
    by = turned % len(models)
    found = measured_rounds(agent, [*models[by:], *models[:by]], threads, rounds)
    return [*found[len(models) - by :], *found[: len(models) - by]]


def judge(a: Sequence[Array], b: Sequence[Array], seed: int = 0) -> Comparison:
    """The ratio of B to A from paired rounds of several passes.

    The interval is a two-level bootstrap: passes are drawn with replacement, then rounds in them.

    Args:
        a: per pass, each round's fastest run in ms (R,); ``b`` likewise, round by round.
    """
    rounds = min(len(one) for one in (*a, *b))
    logs = np.stack([np.log(second[:rounds] / first[:rounds]) for first, second in zip(a, b, strict=True)])
    ratio = float(np.exp(np.median(np.median(logs, axis=1))))
    generator = np.random.default_rng(seed)
    chosen = generator.integers(len(logs), size=(RESAMPLES, len(logs), 1))
    drawn = logs[chosen, generator.integers(rounds, size=(RESAMPLES, len(logs), rounds))]
    deviations = np.median(np.median(drawn, axis=2), axis=1) - math.log(ratio)
    # A bootstrap over few passes is too narrow by about this factor.
    deviations *= math.sqrt(len(logs) / max(len(logs) - 1, 1))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = ratio * np.exp(np.quantile(deviations, [tail, 1.0 - tail]))
    return Comparison(
        ratio=ratio,
        interval=(float(min(low, ratio)), float(max(high, ratio))),
        a_ms=float(np.median(np.concatenate(a))),
        b_ms=float(np.median(np.concatenate(b))),
    )


def slowed(model: onnx.ModelProto, fillers: int, *, name: str = "edgenas_control") -> onnx.ModelProto:
    """A copy that also does ``fillers`` small matrix products which nothing can optimise away.

    They start from the first input and end in an output of their own; ``name`` keeps them apart
    from what a slowed model already has.

    Raises:
        ModelError: the first input is not a float tensor.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    weights = {tensor.name for tensor in graph.initializer}
    start = next(one for one in graph.input if one.name not in weights)
    if start.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelError(f"the gate's positive control needs a float input; '{start.name}' is not one")
    matrix = np.random.default_rng(0).normal(0, FILLER_SIZE**-0.5, (FILLER_SIZE, FILLER_SIZE))
    constants = {
        "matrix": matrix.astype(np.float32),
        "shape": np.array([1, FILLER_SIZE], np.int64),
        "flat": np.array([-1], np.int64),
        "first": np.array([0], np.int64),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, f"{name}/{key}") for key, value in constants.items()
    )
    graph.node.append(helper.make_node("Reshape", [start.name, f"{name}/flat"], [f"{name}/line"]))
    graph.node.append(helper.make_node("Gather", [f"{name}/line", f"{name}/first"], [f"{name}/pixel"]))
    graph.node.append(helper.make_node("Expand", [f"{name}/pixel", f"{name}/shape"], [f"{name}/0"]))
    graph.node.extend(
        helper.make_node("MatMul", [f"{name}/{i}", f"{name}/matrix"], [f"{name}/{i + 1}"])
        for i in range(fillers)
    )
    end = helper.make_tensor_value_info(f"{name}/{fillers}", TensorProto.FLOAT, [1, FILLER_SIZE])
    graph.output.append(end)
    return copy


def _fillers_for(
    agent: Agent, model: onnx.ModelProto, folder: Path, *, threads: int, allowed: float, floor_ms: float
) -> tuple[int, float]:
    """How many fillers slow the model by twice what is allowed, and its latency in ms, by measurement."""
    plain = ship_model(agent, model, folder / "plain.onnx")
    one_ms, plain_ms = filler_ms(agent, plain, folder, threads=threads)
    least = 0.0 if agent.profile.virtual else LEAST_CONTROL
    slower_ms = max(CONTROL_FACTOR * max(allowed * plain_ms, floor_ms), least * plain_ms)
    return max(1, math.ceil(slower_ms / one_ms)), plain_ms


def filler_ms(agent: Agent, plain: str, folder: Path, *, threads: int) -> tuple[float, float]:
    """What one filler takes, and the shipped model ``plain``, in ms.

    Fillers are timed alone: beside a large model's own time a few of them would be lost in its noise.
    """
    few, many = (
        ship_model(agent, slowed(_nothing(), count), folder / f"fillers{count}.onnx") for count in FILLERS
    )
    plain_ms, few_ms, many_ms = (
        float(np.median(one))
        for one in measured_rounds(agent, [plain, few, many], threads, CALIBRATION_ROUNDS)
    )
    return max((many_ms - few_ms) / (FILLERS[1] - FILLERS[0]), 1e-5), plain_ms


def _nothing() -> onnx.ModelProto:
    """A model that hands its input back."""
    one = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("input", "output")]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["output"])], "nothing", one[:1], one[1:]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def ship_model(agent: Agent, model: onnx.ModelProto, path: Path) -> str:
    """Writes a model and puts it on the device."""
    path.write_bytes(model.SerializeToString(deterministic=True))
    return agent.ship(path)


def measured_rounds(agent: Agent, models: list[str], threads: int, rounds: int) -> list[Array]:
    """Each model's rounds in ms, round by round beside the others'."""
    compared = agent.compare(
        models, threads=threads, min_rounds=rounds, max_rounds=rounds, relative_halfwidth=0.0
    )
    found = {one.model_sha256: one for one in compared}
    for one in found.values():
        if one.statistics is None:
            raise MeasurementError(f"the device cannot run a model of the gate: {one.error}")
    by_model = [found[model].statistics for model in models]
    return [np.array(one.rounds_ms) for one in by_model if one is not None]
