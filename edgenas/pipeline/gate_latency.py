"""How the gate knows latency: an abstract source, and the one that measures on a device."""

from __future__ import annotations

import abc
import tempfile
from pathlib import Path

from edgenas.measuring import Agent
from edgenas.pipeline.ab_test import Comparison, compare_latency, ship_model
from edgenas.pipeline.baseline import Baseline, BaselineModel
from edgenas.pipeline.gate_findings import budget, growth, not_judged
from edgenas.pipeline.gate_limits import FLOOR_MS, Allowance, LatencySourceName
from edgenas.pipeline.gate_model import GatedModel
from edgenas.pipeline.skeleton import seeded_model
from edgenas.progress import track
from edgenas.records import Characterisation, CheckFinding, Environment, LatencyStatistics

MEMORY_FLOOR_BYTES = 8 << 20
RUNS, FEWEST_RUNS = 200, 100
PERCENTILES = ("latency_p50_ms", "latency_p90_ms", "latency_p99_ms")


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
        self.device, self.runtime = agent.profile.id, agent.environment.runtime
        self.threads = threads or agent.threads
        self.allowed, self.floor_ms = allowance.slower(self.name), FLOOR_MS[self.name]

    @property
    def environment(self) -> Environment:
        """The device, as it was last seen."""
        return self.agent.environment

    def latency(self, model: GatedModel) -> tuple[float, Characterisation]:
        """The repeatable latency in ms and 100 runs or more."""
        with track(f"Measuring {model.name}"):
            found = self._characterised(self.agent.ship(model.file))
        return found.statistics.latency_ms, found

    def _characterised(self, content: str) -> Characterisation:
        runs = FEWEST_RUNS if self.name == "virtual" else RUNS
        return self.agent.characterise(content, threads=self.threads, runs=runs)

    def budgets(self, model: str, latency: float, found: Characterisation | None) -> list[CheckFinding]:
        """Absolute limits; a latency within its own 95 % interval of the limit is inconclusive."""
        assert found is not None
        findings = []
        if self.allowance.latency_ms is not None:
            metric, value, halfwidth = _limited(found.statistics, latency, self.allowance.latency_statistic)
            limit = self.allowance.latency_ms
            findings.append(budget(model, metric, value, limit, relative_halfwidth=halfwidth))
        if self.allowance.memory_mb is not None:
            findings.append(
                budget(model, "memory_mb", found.peak_memory_bytes / 1e6, self.allowance.memory_mb)
            )
        return findings

    def against(
        self, before: BaselineModel, model: GatedModel, found: Characterisation | None
    ) -> list[CheckFinding]:
        """The A/B test's finding, then quantiles and memory of both, measured now."""
        assert found is not None
        with tempfile.TemporaryDirectory(prefix="edgenas-gate-") as folder:
            latency = self.compared(before, model, Path(folder))
            old = seeded_model(before.graph(), role="baseline")
            with track(f"Memory of the baseline's {model.name}"):
                then = self._characterised(ship_model(self.agent, old, Path(folder) / "then.onnx"))
        memory = growth(
            model.name,
            "peak_memory_bytes",
            then.peak_memory_bytes,
            found.peak_memory_bytes,
            share=self.allowance.max_more_memory,
            floor=MEMORY_FLOOR_BYTES,
        )
        return [latency, *_percentiles(model.name, then.statistics, found.statistics), memory]

    def against_itself(self, model: GatedModel) -> list[CheckFinding]:
        """A/A: shows that the skeleton runs and that this device can tell."""
        graph = seeded_model(model.skeleton, role="baseline")
        with tempfile.TemporaryDirectory(prefix="edgenas-gate-") as folder, track(f"{model.name} twice"):
            again = seeded_model(model.skeleton, role="today")
            found, control = compare_latency(
                self.agent, graph, again, Path(folder),
                threads=self.threads, allowed=self.allowed, floor_ms=self.floor_ms,
            )  # fmt: skip
        return [self._finding(model.name, found, control)]

    def compared(self, before: BaselineModel, model: GatedModel, folder: Path) -> CheckFinding:
        """The A/B test alone; ``folder`` takes the models that are shipped."""
        old = seeded_model(before.graph(), role="baseline")
        new = seeded_model(model.skeleton, role="today")
        with track(f"Baseline against today: {model.name}"):
            found, control = compare_latency(
                self.agent, old, new, folder,
                threads=self.threads, allowed=self.allowed, floor_ms=self.floor_ms,
            )  # fmt: skip
        return self._finding(model.name, found, control)

    def _finding(self, model: str, found: Comparison, control: Comparison) -> CheckFinding:
        verdict = found.verdict(self.allowed, self.floor_ms)
        note = f"{found.ratio:.3f}x the baseline; positive control {control.ratio:.3f}x"
        if control.verdict(self.allowed, self.floor_ms) != "fail":
            verdict = "inconclusive"
            note += " was not caught: this device is too noisy now"
        return CheckFinding(
            model=model,
            metric="latency_ms",
            baseline=found.a_ms,
            value=found.a_ms * found.ratio,
            limit=max(found.a_ms * (1.0 + self.allowed), found.a_ms + self.floor_ms),
            verdict=verdict,
            note=note,
            interval=(found.a_ms * found.interval[0], found.a_ms * found.interval[1]),
        )


def _limited(statistics: LatencyStatistics, latency: float, statistic: str) -> tuple[str, float, float]:
    """The metric that is limited, its value and its relative half-width (quantiles have none)."""
    if statistic == "repeatable":
        return "latency_ms", latency, statistics.latency_relative_halfwidth
    metric = f"latency_{statistic}_ms"
    return metric, getattr(statistics, metric), 0.0


def _percentiles(model: str, then: LatencyStatistics, now: LatencyStatistics) -> list[CheckFinding]:
    """Quantiles of both: a busy machine moves them, so they are shown and never judged."""
    note = f"for information, of {now.runs} runs"
    return [
        not_judged(model, name, "pass", note, was=getattr(then, name), now=getattr(now, name))
        for name in PERCENTILES
    ]
