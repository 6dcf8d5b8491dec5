"""One gate: models as they are today, each held to its limits and to its baseline."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from edgenas.device_profiles import load_profile
from edgenas.errors import UsageError
from edgenas.measuring import connect
from edgenas.pipeline.baseline import Baseline, BaselineModel
from edgenas.pipeline.gate_findings import accuracy_drop, budget, changed_ops, floor, growth, not_judged
from edgenas.pipeline.gate_latency import LatencySource, MeasuredLatency
from edgenas.pipeline.gate_limits import Allowance
from edgenas.pipeline.gate_model import GatedModel, known_model
from edgenas.pipeline.gate_prediction import PredictedLatency
from edgenas.pipeline.predict import HOSTS
from edgenas.records import CheckFinding
from edgenas.workspace import Workspace

SIZE_FLOOR_BYTES = 1024


@dataclass(frozen=True)
class Gate:
    """One way of knowing latency, and what is allowed."""

    source: LatencySource
    allowance: Allowance
    data: str | None
    workspace: Workspace

    def today(self, model: GatedModel) -> BaselineModel:
        """The model as it is today, in the form that a baseline keeps."""
        latency_ms, found = self.source.latency(model)
        return BaselineModel(
            name=model.name,
            sha256=model.sha256(),
            size_bytes=model.size_bytes,
            parameters=model.parameters,
            ops=dict(model.ops),
            accuracy=self._accuracy(model.file),
            latency_ms=latency_ms,
            characterisation=found,
            skeleton=model.packed_skeleton(),
        )

    def findings(self, known: Baseline | None, model: GatedModel, now: BaselineModel) -> list[CheckFinding]:
        """Every judgement of one model; without a baseline the absolute limits, and the model twice."""
        if known is None:
            return [*_as_it_is(now), *self._budgets(now), *self.source.against_itself(model)]
        return [*self._budgets(now), *self._against(known, model, now)]

    def _accuracy(self, file: Path) -> float | None:
        if self.data is None:
            return None
        from edgenas.pipeline.validate import validate

        device = HOSTS[self.source.runtime] if self.source.name == "predicted" else self.source.device
        found = validate(
            file, device=device, data=self.data, threads=self.source.threads, workspace=self.workspace
        )
        return found.accuracy

    def _budgets(self, now: BaselineModel) -> list[CheckFinding]:
        """The absolute limits, whatever the baseline says."""
        allowed = self.allowance
        findings = self.source.budgets(now.name, now.latency_ms, now.characterisation)
        if allowed.size_mb is not None:
            findings.append(budget(now.name, "size_mb", now.size_bytes / 1e6, allowed.size_mb))
        if allowed.min_accuracy is not None:
            if now.accuracy is None:
                raise UsageError("--min-accuracy wants labelled images", hint="add --data IMAGES")
            findings.append(floor(now.name, "accuracy", now.accuracy, allowed.min_accuracy))
        return findings

    def _against(self, known: Baseline, model: GatedModel, now: BaselineModel) -> list[CheckFinding]:
        """Everything that is judged against the baseline's model of the same name."""
        before, share, name = known_model(known, model), self.allowance.max_larger, model.name
        findings = [
            growth(
                name, "size_bytes", before.size_bytes, now.size_bytes, share=share, floor=SIZE_FLOOR_BYTES
            ),
            growth(name, "parameters", before.parameters, now.parameters, share=share),
            *changed_ops(name, before.ops, now.ops),
        ]
        different = self.source.incomparable(known)
        if different:
            findings.append(not_judged(name, "latency_ms", "incomparable", different))
        else:
            findings += self.source.against(before, model, now.characterisation)
        if before.accuracy is not None and now.accuracy is not None:
            findings.append(accuracy_drop(name, before.accuracy, now.accuracy, self.allowance.max_drop))
        return findings


def _as_it_is(now: BaselineModel) -> list[CheckFinding]:
    """What a baseline will hold, for information."""
    values = {"size_bytes": now.size_bytes, "parameters": now.parameters, "latency_ms": now.latency_ms}
    if now.accuracy is not None:
        values["accuracy"] = now.accuracy
    return [not_judged(now.name, metric, "pass", "as it is", now=value) for metric, value in values.items()]


@dataclass(frozen=True, kw_only=True)
class Where:
    """How latency was asked to be known; None is what the baseline says."""

    device: str | None
    table: Path | None
    threads: int | None


def latency_source(
    where: Where,
    *,
    known: Baseline | None,
    baseline: Path,
    allowance: Allowance,
    workspace: Workspace,
    stack: contextlib.ExitStack,
) -> LatencySource:
    """A table where one is named or the baseline was predicted from one, else the device.

    Args:
        baseline: the baseline's file; its table is named from there.
        stack: ends what was started.

    Raises:
        UsageError: both a table and a device are named.
        DeviceError: the device cannot be reached.
        TableError: the table is missing or damaged.
    """
    if where.table is not None and where.device is not None:
        raise UsageError("latency is either measured or predicted", hint="give --device or --table")
    table, threads = where.table, where.threads
    if where.table is None and where.device is None and known is not None:
        table = baseline.parent / known.table if known.table else None
        threads = threads or known.threads
    if table is not None:
        return PredictedLatency(table, threads, allowance, workspace, stack)
    device = workspace.device_or_default(where.device or (known.device if known else None))
    agent = stack.enter_context(connect(load_profile(device, workspace)))
    return MeasuredLatency(agent, threads, allowance)
