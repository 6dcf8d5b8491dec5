"""Is one network slower than another on this device, now? Interleaved rounds and a positive control.

Old network, new network and a copy of the new one that is slowed on purpose run side by side in
several passes; every pass loads its sessions afresh, because where a session's memory lies can be
worth a percent. A verdict stands only if the slowed copy is caught by the same rule.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgenas.errors import MeasurementError, ModelError
from edgenas.measuring import Agent
from edgenas.records import LatencyStatistics

Array = NDArray[np.float64]
Statistic = Literal["repeatable", "p50", "p90", "p99"]
PASSES, FEWEST_PASSES, MOST_PASSES = 4, 3, 24  # judged every four, while undecided
VIRTUAL_PASSES = 2  # an instruction count repeats itself
TAIL_PASSES = 6  # a pass has one value of a quantile, and as many as its rounds of the repeatable latency
ROUNDS, LEAST_ROUNDS = 12, 2
PASS_S, LONGEST_S = 5.0, 26.0
SLOWEST_S = 37.0  # what the fewest passes may take; a model of more than a second gets fewer, and no verdict
PATIENCE = 1.5  # disturbed rounds are made again until a pass takes so many times what it was planned to
SLOW_MS = 100.0  # models from here on run once a round: one run is longer than what disturbs a run
QUANTILE_RUNS = {"repeatable": 0, "p50": 5, "p90": 10, "p99": 100}  # what a pass needs to know one
CALIBRATION_ROUNDS = (3, 8)
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


@dataclass(frozen=True, kw_only=True)
class Tested:
    """New against old by one statistic, and the slowed copy of new against new by the same."""

    found: Comparison
    control: Comparison
    passes: int

    def decided(self, allowed: float, floor_ms: float) -> bool:
        """Whether more passes would tell nothing else."""
        verdicts = (one.verdict(allowed, floor_ms) for one in (self.found, self.control))
        return "inconclusive" not in verdicts


class Rounds(NamedTuple):
    """Rounds of one pass, runs of a model in each of them (None leaves them to the agent), and the seconds of
    rounds after which no other one begins."""

    number: int
    runs: int | None = None
    limit_s: float | None = None


def compare_latency(
    agent: Agent,
    old: onnx.ModelProto,
    new: onnx.ModelProto,
    folder: Path,
    *,
    threads: int,
    allowed: float,
    floor_ms: float,
    statistics: Sequence[Statistic] = ("repeatable",),
) -> dict[Statistic, Tested]:
    """New against old, and the slowed copy of new against new, by each statistic.

    Measures until all of them are decided, for at most 24 passes or about 26 s; the fewest passes
    that can be judged may take longer.

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
    rounds = rounds_for(new_ms, statistics)
    passes: list[list[LatencyStatistics]] = []
    start, at_once = time.monotonic(), _passes_at_once(agent, statistics)
    while True:
        passes.append(_one_pass(agent, shipped, threads, rounds, turned=len(passes)))
        over = len(passes) >= MOST_PASSES or _takes_too_long(agent, len(passes), time.monotonic() - start)
        if over or len(passes) % at_once == 0:
            tested = {statistic: judged_passes(passes, statistic) for statistic in statistics}
            if over or all(one.decided(allowed, floor_ms) for one in tested.values()):
                return tested


def _passes_at_once(agent: Agent, statistics: Sequence[Statistic]) -> int:
    """Passes between two judgements."""
    if tuple(statistics) != ("repeatable",):
        return TAIL_PASSES
    return VIRTUAL_PASSES if agent.profile.virtual else PASSES


def _takes_too_long(agent: Agent, passes: int, elapsed_s: float) -> bool:
    """Whether one more pass would end too late; on a virtual board the host's clock means nothing."""
    if agent.profile.virtual:
        return False
    return elapsed_s * (passes + 1) / passes > (LONGEST_S if passes >= FEWEST_PASSES else SLOWEST_S)


def judged_passes(passes: Sequence[Sequence[LatencyStatistics]], statistic: Statistic) -> Tested:
    """What passes of old, new and control say by one statistic."""
    old, new, control = ([_values(one[i], statistic) for one in passes] for i in range(3))
    return Tested(found=judge(old, new), control=judge(new, control), passes=len(passes))


def _values(statistics: LatencyStatistics, statistic: Statistic) -> Array:
    """What one pass says of one model in ms: its rounds (R,), or a quantile of all its runs (1,)."""
    if statistic == "repeatable":
        return np.array(statistics.rounds_ms)
    return np.array([getattr(statistics, f"latency_{statistic}_ms")], float)


def rounds_for(latency_ms: float, statistics: Sequence[Statistic]) -> Rounds:
    """Rounds of one pass: fewer where three models of this latency would take longer than ``PASS_S``,
    enough for a quantile where one is asked for."""
    if latency_ms >= SLOW_MS:
        runs, round_s = 1, 3 * latency_ms / 1e3
    else:
        # The agent takes so many runs a turn, and one that does not count, for each of three models.
        runs = 5 if latency_ms < 20 else 3
        round_s = 3 * (runs + 1) * latency_ms / 1e3
    least = max(LEAST_ROUNDS, *(math.ceil(QUANTILE_RUNS[one] / runs) for one in statistics))
    number = max(least, int(np.clip(PASS_S / round_s, LEAST_ROUNDS, ROUNDS)))
    # A quantile needs all of its runs, however long they take.
    limit_s = PATIENCE * max(PASS_S, number * round_s) if tuple(statistics) == ("repeatable",) else None
    return Rounds(number, 1 if latency_ms >= SLOW_MS else None, limit_s)


def _one_pass(
    agent: Agent, models: list[str], threads: int, rounds: Rounds, *, turned: int
) -> list[LatencyStatistics]:
    """Freshly loaded sessions side by side. Each pass loads another model first: the place in memory
    that the first one gets can be the better one every time."""
    by = turned % len(models)
    both = rounds.number, rounds.number
    turned_models = [*models[by:], *models[:by]]
    found = measured(
        agent, turned_models, threads, both, runs_per_round=rounds.runs, rounds_limit_s=rounds.limit_s
    )
    return [*found[len(models) - by :], *found[: len(models) - by]]


def judge(a: Sequence[Array], b: Sequence[Array], seed: int = 0) -> Comparison:
    """The ratio of B to A from paired rounds of several passes.

    The interval is a two-level bootstrap: passes are drawn with replacement, then rounds in them.

    Args:
        a: per pass, each round's fastest run in ms (R,); ``b`` likewise, round by round. Passes may have
            made more or fewer rounds.
    """
    logs = [_paired_logs(first, second) for first, second in zip(a, b, strict=True)]
    ratio = float(np.exp(np.median([np.median(one) for one in logs])))
    generator = np.random.default_rng(seed)
    deviations = np.median(_resampled_medians(logs, generator), axis=1) - math.log(ratio)
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


def _resampled_medians(passes: Sequence[Array], generator: np.random.Generator) -> Array:
    """Medians (RESAMPLES, P) of passes drawn with replacement, each of its own rounds drawn again."""
    counts = np.array([len(one) for one in passes])
    rounds = np.full((len(passes), counts.max()), np.nan)
    for row, one in zip(rounds, passes, strict=True):
        row[: len(one)] = one
    chosen = generator.integers(len(passes), size=(RESAMPLES, len(passes)))
    count = counts[chosen][..., None]
    picked = (generator.random((*chosen.shape, counts.max())) * count).astype(int)
    drawn = np.where(np.arange(counts.max()) < count, rounds[chosen[..., None], picked], np.nan)
    drawn.sort(axis=2)  # what is beyond a pass's rounds goes to the end
    low, high = (np.take_along_axis(drawn, middle, axis=2) for middle in ((count - 1) // 2, count // 2))
    medians: Array = (low + high)[..., 0] / 2.0
    return medians


def _paired_logs(first: Array, second: Array) -> Array:
    rounds = min(len(first), len(second))
    logs: Array = np.log(second[:rounds] / first[:rounds])
    return logs


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
    plain_ms = roughly_ms(agent, plain, threads)
    one_ms = filler_ms(agent, folder, threads=threads)
    least = 0.0 if agent.profile.virtual else LEAST_CONTROL
    slower_ms = max(CONTROL_FACTOR * max(allowed * plain_ms, floor_ms), least * plain_ms)
    return max(1, math.ceil(slower_ms / one_ms)), plain_ms


def roughly_ms(agent: Agent, model: str, threads: int) -> float:
    """A shipped model's latency in ms from four runs: enough to plan by, cheap where one takes a second."""
    return measured(agent, [model], threads, (2, 2), runs_per_round=1)[0].latency_ms


def filler_ms(agent: Agent, folder: Path, *, threads: int) -> float:
    """What one filler takes in ms.

    Fillers are timed alone: beside a large model's own time a few of them would be lost in its noise.
    """
    few, many = (
        ship_model(agent, slowed(_nothing(), count), folder / f"fillers{count}.onnx") for count in FILLERS
    )
    found = measured(agent, [few, many], threads, CALIBRATION_ROUNDS, relative_halfwidth=0.02)
    few_ms, many_ms = (one.latency_ms for one in found)
    return max((many_ms - few_ms) / (FILLERS[1] - FILLERS[0]), 1e-5)


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


def measured(
    agent: Agent,
    models: list[str],
    threads: int,
    rounds: tuple[int, int],
    *,
    relative_halfwidth: float = 0.0,
    runs_per_round: int | None = None,
    rounds_limit_s: float | None = None,
) -> list[LatencyStatistics]:
    """Each shipped model's latency, measured side by side in interleaved rounds.

    Args:
        rounds: the fewest and the most; a model is done when its median is known within
            ``relative_halfwidth``.
        runs_per_round: runs of a model in each round; when None the agent takes more of fast models.
        rounds_limit_s: no other round begins when they took so long; None: all are made.

    Raises:
        MeasurementError: the device cannot run one of them.
    """
    fewest, most = rounds
    compared = agent.compare(
        models,
        threads=threads,
        min_rounds=fewest,
        max_rounds=most,
        relative_halfwidth=relative_halfwidth,
        runs_per_round=runs_per_round,
        rounds_limit_s=rounds_limit_s,
    )
    found = {}
    for one in compared:
        if one.statistics is None:
            raise MeasurementError(f"the device cannot run a model of the gate: {one.error}")
        found[one.model_sha256] = one.statistics
    return [found[model] for model in models]
