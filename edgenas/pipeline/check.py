"""``check``: the gate that fails when a change makes a model larger, slower or worse, and only then."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Unpack

import msgspec

import edgenas
from edgenas.errors import ArtifactError, BudgetNotMetError
from edgenas.files import write_atomically
from edgenas.pipeline.baseline import (
    BASELINE_VERSION,
    Baseline,
    BaselineModel,
    commit_of,
    read_baseline,
    replaced_baseline,
    write_baseline,
)
from edgenas.pipeline.bundle import installed_versions
from edgenas.pipeline.check_history import append
from edgenas.pipeline.gate import Gate, Where, latency_source
from edgenas.pipeline.gate_findings import worst
from edgenas.pipeline.gate_latency import LatencySource
from edgenas.pipeline.gate_limits import Limits, Tolerable, allowance_from
from edgenas.pipeline.gate_model import known_model, named_models, read_gated
from edgenas.records import CheckFinding, CheckResult
from edgenas.reporting.gate import junit, markdown
from edgenas.workspace import Workspace


def check(
    models: Sequence[str | Path],
    *,
    baseline: Path,
    device: str | None = None,
    table: Path | None = None,
    update: bool = False,
    data: str | None = None,
    threads: int | None = None,
    tolerate: Sequence[Tolerable] = (),
    markdown_to: Path | None = None,
    junit_to: Path | None = None,
    json_to: Path | None = None,
    history: Path | None = None,
    workspace: Workspace | None = None,
    **limits: Unpack[Limits],
) -> CheckResult:
    """Holds models to a baseline: size, latency, memory and, with data, accuracy.

    Latency is judged by running the baseline's weight-free copy beside today's model, interleaved on
    the same device in the same minute, never against stored times. With a table it is predicted, and
    no device is used.

    Args:
        models: ONNX files; a model is known by its file's name, or by NAME of ``NAME=FILE``.
        baseline: the committed JSON file.
        device: where to measure; the baseline's when None.
        table: an exported latency table to predict from; the baseline's, if it was predicted.
        threads: those that models run with; the baseline's when None.
        update: accept the models as the new baseline; how latency is known stays as it was, unless a
            device or a table is named.
        data: labelled images for accuracy.
        tolerate: verdicts besides pass that open the gate.
        markdown_to: where to write a summary for a pull request; ``junit_to`` and ``json_to`` likewise.
        history: a JSON Lines file that the result is added to.
        limits: see ``Allowance``; ``[check]`` of ``edgenas.toml`` has the defaults.

    Raises:
        UsageError: two models have one name, or a limit is wrong.
        ModelError: a model cannot be read.
        ArtifactError: the baseline is missing, damaged, edited or newer.
        UnknownNameError: the baseline does not know a model.
        BudgetNotMetError: with ``update``, when the models miss an absolute limit or the device is too
            noisy to judge by; nothing is written.
    """
    workspace = workspace or Workspace()
    allowance = allowance_from(limits, tuple(tolerate), workspace)
    request = _Request(named_models(models), baseline, update)
    with contextlib.ExitStack() as stack:
        where = Where(device=device, table=table, threads=threads)
        source = latency_source(
            where,
            known=request.before,
            baseline=baseline,
            allowance=allowance,
            workspace=workspace,
            stack=stack,
        )
        result, today = request.judged(Gate(source, allowance, data, workspace))
    outputs = {markdown_to: markdown(result), junit_to: junit(result), json_to: result.to_json()}
    for path, text in outputs.items():
        if path is not None:
            write_atomically(path, text.encode())
    if history is not None:
        append(history, result)
    if update:
        _accept(request, source, today, result)
    return result


class _Request:
    """Which models, and the baseline that they are held to or replace.

    Raises:
        ArtifactError: the baseline cannot be read, or must not be replaced.
    """

    def __init__(self, named: dict[str, Path], baseline: Path, update: bool) -> None:
        self.named, self.baseline, self.update = named, baseline, update
        self.before = replaced_baseline(baseline) if update else read_baseline(baseline)

    def judged(self, gate: Gate) -> tuple[CheckResult, list[BaselineModel]]:
        """The gate's result, and the models as they are today."""
        start = time.monotonic()
        known = None if self.update else self.before
        with tempfile.TemporaryDirectory(prefix="edgenas-check-") as folder:
            gated = [read_gated(name, path, Path(folder)) for name, path in self.named.items()]
            if known is not None:
                for model in gated:
                    known_model(known, model)  # an error before anything is measured
            if self.update:
                self.others(gate.source)
            today = [gate.today(model) for model in gated]
            found = [gate.findings(known, *pair) for pair in zip(gated, today, strict=True)]
        findings = tuple(finding for one in found for finding in one)
        return self._result(gate, findings, time.monotonic() - start), today

    def others(self, source: LatencySource) -> tuple[BaselineModel, ...]:
        """Models of the old baseline that were not given; they stay in the new one.

        Raises:
            ArtifactError: their latency was known in another way, so that one file cannot hold both.
        """
        if self.before is None:
            return ()
        was = (self.before.device, self.before.threads, self.before.latency_source)
        now = (source.device, source.threads, source.name)
        others = tuple(model for model in self.before.models if model.name not in self.named)
        if others and was != now:
            raise ArtifactError(
                f"{self.baseline} is of {_words(was)}, not of {_words(now)}",
                hint="give every model of it, another file to --baseline, or remove this one",
            )
        return others

    def _result(self, gate: Gate, findings: tuple[CheckFinding, ...], elapsed_s: float) -> CheckResult:
        return CheckResult(
            verdict=worst([finding.verdict for finding in findings]),
            device=gate.source.device,
            threads=gate.source.threads,
            baseline=str(self.baseline),
            updated=self.update,
            findings=findings,
            environment=gate.source.environment,
            elapsed_s=elapsed_s,
            latency_source=gate.source.name,
            tolerated=gate.allowance.tolerate,
            created_at=_now(),
            commit=commit_of(gate.workspace.root),
            virtual_clock=gate.source.environment.virtual_clock,
        )


def _words(of: tuple[str, int, str]) -> str:
    device, threads, source = of
    return f"{device} with {threads} threads, {source}"


def _accept(
    request: _Request, source: LatencySource, today: list[BaselineModel], result: CheckResult
) -> None:
    """Writes the new baseline in one step, if its own gate was passed."""
    if result.verdict != "pass":
        missed = [finding.metric for finding in result.findings if finding.verdict != "pass"]
        raise BudgetNotMetError(
            f"the models are no baseline: {', '.join(missed)} {result.verdict}",
            hint="nothing was written; mend the models, change the limits, or try when the device is quiet",
            result=msgspec.structs.replace(result, updated=False),
        )
    baseline = Baseline(
        schema_version=BASELINE_VERSION,
        created_at=_now(),
        edgenas_version=edgenas.__version__,
        versions=installed_versions(),
        commit=result.commit,
        device=source.device,
        threads=source.threads,
        latency_source=source.name,
        table=os.path.relpath(source.table, request.baseline.parent) if source.table else "",
        environment=source.environment,
        verdict=result.verdict,
        models=(*request.others(source), *today),
    )
    write_baseline(request.baseline, baseline)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
