"""How the gate knows latency: an abstract source, and the one that measures on a device."""

from __future__ import annotations

import abc
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx

from edgenas.measuring import Agent
from edgenas.pipeline.ab_test import (
    FEWEST_PASSES,
    VIRTUAL_PASSES,
    Statistic,
    Tested,
    compare_latency,
    roughly_ms,
    ship_model,
)
from edgenas.pipeline.baseline import Baseline, BaselineModel
from edgenas.pipeline.gate_findings import budget, growth, not_judged
from edgenas.pipeline.gate_limits import FLOOR_MS, Allowance, LatencySourceName, require_knowable
from edgenas.pipeline.gate_model import GatedModel
from edgenas.pipeline.skeleton import seeded_model
from edgenas.progress import track
from edgenas.records import Characterisation, CheckFinding, Environment, LatencyStatistics

MEMORY_FLOOR_BYTES = 8 << 20
RUNS, P99_RUNS, FEWEST_RUNS, FEWEST_RUNS_BEFORE = 200, 100, 10, 3
TODAY_S, BEFORE_S = 12.0, 3.0  # what the runs of a slow model may take; the fewest are made in any case
SLOW_TODAY_S = 10.0  # where 100 runs do not fit there, a p99 is not known, and less time serves as well
TAIL_PROCESSES = 3  # a quantile that is limited is known as well as fresh processes agree on it
QUANTILES: tuple[Statistic, ...] = ("p50", "p90", "p99")


class LatencySource(abc.ABC):
    """One way of knowing latency on one device.

    Attributes:
        name: what it is called in results.
        device: the device's id.
        runtime: what executes the models there.
        threads: threads that models run with.
        table: the table that predicts; empty without one.
    """

    name: LatencySourceName
    device: str
    runtime: str
    threads: int
    table: str = ""

    @property
    @abc.abstractmethod
    def environment(self) -> Environment:
        """The device, as it was last seen."""

    @abc.abstractmethod
    def latency(self, model: GatedModel) -> tuple[float, Characterisation | None]:
        """The repeatable latency in ms and, where something ran, all that was measured."""

    @abc.abstractmethod
    def budgets(self, model: str, latency: float, found: Characterisation | None) -> list[CheckFinding]:
        """Absolute limits of latency and memory."""

    @abc.abstractmethod
    def against(
        self, before: BaselineModel, model: GatedModel, found: Characterisation | None
    ) -> list[CheckFinding]:
        """Latency, and what else running tells, against the baseline's skeleton."""

    @abc.abstractmethod
    def against_itself(self, model: GatedModel) -> list[CheckFinding]:
        """Whether a baseline of this model could be judged by at all."""

    def incomparable(self, known: Baseline) -> str:
        """Why latencies mean nothing beside this baseline; empty where they do.

        Another machine of the same device profile is no reason: old and new run side by side on it.
        """
        pairs = (
            ("device", known.device, self.device),
            ("runtime", known.environment.runtime, self.runtime),
            ("threads", known.threads, self.threads),
        )
        return "; ".join(f"{what} was {was}, is {now}" for what, was, now in pairs if was != now)


class MeasuredLatency(LatencySource):
    """Old and new run interleaved on the device, in the same minute."""

    def __init__(self, agent: Agent, threads: int | None, allowance: Allowance) -> None:
        self.agent, self.allowance = agent, allowance
        self.name = "virtual" if agent.profile.virtual else "measured"
        require_knowable(allowance, self.name)
        self.device, self.runtime = agent.profile.id, agent.environment.runtime
        self.threads = threads or agent.threads
        self.allowed, self.floor_ms = allowance.slower(self.name), FLOOR_MS[self.name]

    @property
    def environment(self) -> Environment:
        """The device, as it was last seen."""
        return self.agent.environment

    def latency(self, model: GatedModel) -> tuple[float, Characterisation]:
        """The repeatable latency in ms and 100 runs or more."""
        content = self.agent.ship(model.file)
        with track(f"Measuring {model.name}"):
            found = self._characterised(
                content, self._runs_today(roughly_ms(self.agent, content, self.threads))
            )
        return found.statistics.latency_ms, found

    def _runs_today(self, latency_ms: float) -> int:
        """As many runs as there is time for: 100 or more, but for a model that is too slow for that."""
        if self.name == "virtual" or self.allowance.latency_statistic == "p99":
            return P99_RUNS
        affordable = 1e3 * TODAY_S / latency_ms
        if affordable < P99_RUNS:
            affordable = max(FEWEST_RUNS, 1e3 * SLOW_TODAY_S / latency_ms)
        return min(RUNS, int(affordable))

    def _runs_before(self, latency_ms: float) -> int:
        """Runs of the baseline, whose quantiles are shown for information."""
        if self.name == "virtual":
            return FEWEST_RUNS_BEFORE
        return int(np.clip(1e3 * BEFORE_S / latency_ms, FEWEST_RUNS_BEFORE, RUNS))

    def _characterised(self, content: str, runs: int) -> Characterisation:
        return self.agent.characterise(content, threads=self.threads, runs=runs)

    def budgets(self, model: str, latency: float, found: Characterisation | None) -> list[CheckFinding]:
        """Absolute limits; a latency that is not known well enough beside its limit is inconclusive."""
        assert found is not None
        findings = []
        if self.allowance.latency_ms is not None:
            metric, value, halfwidth = self._limited(found, latency)
            limit = self.allowance.latency_ms
            findings.append(budget(model, metric, value, limit, relative_halfwidth=halfwidth))
        if self.allowance.memory_mb is not None:
            findings.append(
                budget(model, "memory_mb", found.peak_memory_bytes / 1e6, self.allowance.memory_mb)
            )
        return findings

    def _limited(self, found: Characterisation, latency: float) -> tuple[str, float, float]:
        """The metric that is limited, its value in ms and the half-width of its interval, a share of it.

        A quantile's interval is the range of what fresh processes say: it holds its median in 75 % of
        cases with three of them.
        """
        metric = _metric(self.allowance.latency_statistic)
        if metric == "latency_ms":
            return metric, latency, found.statistics.latency_relative_halfwidth
        others = [
            self._characterised(found.model_sha256, found.statistics.runs) for _ in range(TAIL_PROCESSES - 1)
        ]
        values = [getattr(one.statistics, metric) for one in (found, *others)]
        value = float(np.median(values))
        return metric, value, max(abs(one / value - 1.0) for one in values)

    def against(
        self, before: BaselineModel, model: GatedModel, found: Characterisation | None
    ) -> list[CheckFinding]:
        """The A/B test's findings, then quantiles and memory of both, measured now."""
        assert found is not None
        with tempfile.TemporaryDirectory(prefix="edgenas-gate-") as folder:
            latencies = self.compared(before, model, Path(folder))
            old = seeded_model(before.graph(), role="baseline")
            runs = self._runs_before(found.statistics.latency_ms)
            with track(f"Memory of the baseline's {model.name}"):
                then = self._characterised(ship_model(self.agent, old, Path(folder) / "then.onnx"), runs)
        memory = growth(
            model.name,
            "peak_memory_bytes",
            then.peak_memory_bytes,
            found.peak_memory_bytes,
            share=self.allowance.max_more_memory,
            floor=MEMORY_FLOOR_BYTES,
        )
        judged = {one.metric for one in latencies}
        shown = _quantiles(model.name, then.statistics, found.statistics, without=judged)
        return [*latencies, *shown, memory]

    def against_itself(self, model: GatedModel) -> list[CheckFinding]:
        """A/A: shows that the skeleton runs and that this device can tell."""
        with tempfile.TemporaryDirectory(prefix="edgenas-gate-") as folder, track(f"{model.name} twice"):
            return self._compared(model.skeleton, model, Path(folder))

    def compared(self, before: BaselineModel, model: GatedModel, folder: Path) -> list[CheckFinding]:
        """The A/B test alone; ``folder`` takes the models that are shipped."""
        with track(f"Baseline against today: {model.name}"):
            return self._compared(before.graph(), model, folder)

    def _compared(self, before: onnx.ModelProto, model: GatedModel, folder: Path) -> list[CheckFinding]:
        statistics = dict.fromkeys(("repeatable", self.allowance.latency_statistic))
        tested = compare_latency(
            self.agent,
            seeded_model(before, role="baseline"),
            seeded_model(model.skeleton, role="today"),
            folder,
            threads=self.threads,
            allowed=self.allowed,
            floor_ms=self.floor_ms,
            statistics=tuple(statistics),
        )
        return [self._finding(model.name, _metric(name), one) for name, one in tested.items()]

    def _finding(self, model: str, metric: str, tested: Tested) -> CheckFinding:
        found, control = tested.found, tested.control
        verdict = found.verdict(self.allowed, self.floor_ms)
        note = f"{found.ratio:.3f}x the baseline; positive control {control.ratio:.3f}x"
        if control.verdict(self.allowed, self.floor_ms) != "fail":
            verdict = "inconclusive"
            note += " was not caught: this device is too noisy now"
        if tested.passes < (VIRTUAL_PASSES if self.name == "virtual" else FEWEST_PASSES):
            verdict = "inconclusive"
            note += f"; a minute is too short for this model: {tested.passes} of {FEWEST_PASSES} passes"
        return CheckFinding(
            model=model,
            metric=metric,
            baseline=found.a_ms,
            value=found.a_ms * found.ratio,
            limit=max(found.a_ms * (1.0 + self.allowed), found.a_ms + self.floor_ms),
            verdict=verdict,
            note=note,
            interval=(found.a_ms * found.interval[0], found.a_ms * found.interval[1]),
        )


def _metric(statistic: Statistic) -> str:
    return "latency_ms" if statistic == "repeatable" else f"latency_{statistic}_ms"


def _quantiles(
    model: str, then: LatencyStatistics, now: LatencyStatistics, *, without: Collection[str]
) -> list[CheckFinding]:
    """Quantiles of both: a busy machine moves them, so they are judged only where that was asked."""
    note = f"for information, of {now.runs} runs (baseline {then.runs})"
    return [
        not_judged(model, name, "pass", note, was=getattr(then, name), now=getattr(now, name))
        for name in map(_metric, QUANTILES)
        if name not in without
    ]
