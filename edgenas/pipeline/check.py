"""``check``: the gate that fails when a change makes a model larger, slower or worse, and only then."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import edgenas
from edgenas.device_profiles import load_profile
from edgenas.errors import ArtifactError, BudgetNotMetError, UnknownNameError, UsageError
from edgenas.files import file_sha256, write_atomically
from edgenas.measuring import Agent, connect
from edgenas.pipeline.ab_test import compare_latency
from edgenas.pipeline.baseline import (
    BASELINE_VERSION,
    Baseline,
    BaselineModel,
    commit_of,
    packed,
    read_baseline,
    write_baseline,
)
from edgenas.pipeline.bundle import installed_versions
from edgenas.pipeline.gate_findings import (
    accuracy_drop,
    budget,
    changed_ops,
    growth,
    not_judged,
    worst,
)
from edgenas.pipeline.onnx_input import read_model, with_batch_one
from edgenas.pipeline.skeleton import seeded_model, strip_weights, structure
from edgenas.progress import track
from edgenas.records import CheckFinding, CheckResult
from edgenas.reporting.gate import junit, markdown
from edgenas.workspace import Workspace

SIZE_FLOOR_BYTES = 1024
MEMORY_FLOOR_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may change against the baseline, and what may never be passed. Shares are of the baseline."""

    slower: float = 0.03
    floor_ms: float = 0.005
    larger: float = 0.01
    more_memory: float = 0.10
    drop: float = 0.01
    latency_ms: float | None = None
    size_mb: float | None = None


def check(
    models: Sequence[Path],
    *,
    baseline: Path,
    device: str | None = None,
    update: bool = False,
    data: str | None = None,
    threads: int | None = None,
    allowance: Allowance | None = None,
    markdown_to: Path | None = None,
    junit_to: Path | None = None,
    json_to: Path | None = None,
    workspace: Workspace | None = None,
) -> CheckResult:
    """Holds models to a baseline: size, latency, memory and, with data, accuracy.

    Latency is judged by running the baseline's weight-free copy beside today's model, interleaved on
    the same device in the same minute, never against stored times.

    Args:
        models: ONNX files; a model is known by its file's name.
        baseline: the committed JSON file.
        update: accept the models as the new baseline, if they meet the absolute limits.
        data: labelled images for accuracy.
        allowance: what may change; the defaults when omitted.
        markdown_to: where to write a summary for a pull request; ``junit_to`` and ``json_to`` likewise.

    Raises:
        UsageError: two models have one name.
        ModelError: a model cannot be read.
        ArtifactError: the baseline is missing, damaged, edited or newer, or does not know a model.
        BudgetNotMetError: with ``update``, when an absolute limit is missed; nothing is written.
    """
    workspace = workspace or Workspace()
    allowance = allowance or Allowance()
    named = _by_name(models)
    start = time.monotonic()
    known = None if update else read_baseline(baseline)
    profile = load_profile(
        workspace.device_or_default(device or (known.device if known else None)), workspace
    )
    with connect(profile) as agent:
        gate = _Gate(agent, threads or agent.threads, allowance, data, workspace)
        today = tuple(gate.measured(name, path) for name, path in named.items())
        findings = [finding for model in today for finding in gate.findings(known, model)]
        result = CheckResult(
            verdict=worst([finding.verdict for finding in findings]),
            device=profile.id,
            threads=gate.threads,
            baseline=str(baseline),
            updated=update,
            findings=tuple(findings),
            environment=agent.environment,
            elapsed_s=time.monotonic() - start,
        )
    outputs = {markdown_to: markdown(result), junit_to: junit(result), json_to: result.to_json()}
    for path, text in outputs.items():
        if path is not None:
            write_atomically(path, text.encode())
    if update:
        _accept(baseline, gate, today, result)
    return result


def _by_name(models: Sequence[Path]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in models:
        if path.stem in named:
            raise UsageError(
                f"two models are named '{path.stem}': {named[path.stem]} and {path}",
                hint="rename one of them",
            )
        named[path.stem] = path
    if not named:
        raise UsageError("check needs a model", hint="edgenas check MODEL.onnx --baseline ci/baseline.json")
    return named


class _Gate:
    """One connected device and what is allowed on it."""

    def __init__(
        self, agent: Agent, threads: int, allowance: Allowance, data: str | None, workspace: Workspace
    ) -> None:
        self.agent, self.threads, self.allowance = agent, threads, allowance
        self.data, self.workspace = data, workspace

    def measured(self, name: str, path: Path) -> BaselineModel:
        """The model as it is today, in the form that a baseline keeps."""
        model = with_batch_one(read_model(path), path)
        parameters, ops = structure(model)
        with track(f"Measuring {name}"):
            content = self.agent.ship(path)
            found = self.agent.characterise(content, threads=self.threads)
        return BaselineModel(
            name=name,
            sha256=file_sha256(path),
            size_bytes=path.stat().st_size,
            parameters=parameters,
            ops=ops,
            accuracy=self._accuracy(path),
            characterisation=found,
            skeleton=packed(strip_weights(model)),
        )

    def _accuracy(self, path: Path) -> float | None:
        if self.data is None:
            return None
        from edgenas.pipeline.validate import validate

        found = validate(
            path, device=self.agent.profile.id, data=self.data, threads=self.threads, workspace=self.workspace
        )
        return found.accuracy

    def findings(self, known: Baseline | None, model: BaselineModel) -> list[CheckFinding]:
        """Every judgement of one model; without a baseline the absolute limits alone."""
        return self.budgets(model) + (self.against(known, model) if known is not None else [])

    def budgets(self, model: BaselineModel) -> list[CheckFinding]:
        """The absolute limits, whatever the baseline says."""
        latency = model.characterisation.statistics.latency_ms
        limits = (
            ("latency_ms", latency, self.allowance.latency_ms),
            ("size_mb", model.size_bytes / 1e6, self.allowance.size_mb),
        )
        return [
            budget(model.name, metric, value, limit) for metric, value, limit in limits if limit is not None
        ]

    def against(self, known: Baseline, model: BaselineModel) -> list[CheckFinding]:
        """Everything that is judged against the baseline's model of the same name."""
        before = _baseline_model(known, model)
        allowed = self.allowance
        findings = [
            growth(
                model.name, "size_bytes", before.size_bytes, model.size_bytes,
                share=allowed.larger, floor=SIZE_FLOOR_BYTES,
            ),
            growth(model.name, "parameters", before.parameters, model.parameters, share=allowed.larger),
            *changed_ops(model.name, before.ops, model.ops),
        ]  # fmt: skip
        different = self._incomparable(known)
        if different:
            findings.append(not_judged(model.name, "latency_ms", "incomparable", different))
        else:
            findings += [self._latency(before, model), self._memory(known, before, model)]
        if before.accuracy is not None and model.accuracy is not None:
            findings.append(accuracy_drop(model.name, before.accuracy, model.accuracy, allowed.drop))
        return findings

    def _incomparable(self, known: Baseline) -> str:
        """Why latencies mean nothing beside this baseline; empty where they do.

        Another machine of the same device profile is no reason: old and new run side by side on it.
        """
        now = self.agent.environment
        pairs = (
            ("device", known.device, self.agent.profile.id),
            ("runtime", known.environment.runtime, now.runtime),
            ("threads", known.threads, self.threads),
        )
        return "; ".join(f"{what} was {was}, is {is_now}" for what, was, is_now in pairs if was != is_now)

    def _latency(self, before: BaselineModel, model: BaselineModel) -> CheckFinding:
        allowed, floor_ms = self.allowance.slower, self.allowance.floor_ms
        old = seeded_model(before.graph(), role="baseline")
        new = seeded_model(model.graph(), role="today")
        with tempfile.TemporaryDirectory() as folder, track(f"Baseline against today: {model.name}"):
            found, control = compare_latency(
                self.agent, old, new, Path(folder), threads=self.threads, allowed=allowed, floor_ms=floor_ms
            )
        verdict = found.verdict(allowed, floor_ms)
        note = f"{found.ratio:.3f}x the baseline; positive control {control.ratio:.3f}x"
        if control.verdict(allowed, floor_ms) != "fail":
            verdict = "inconclusive"
            note += " was not caught: this device is too noisy now"
        return CheckFinding(
            model=model.name,
            metric="latency_ms",
            baseline=found.a_ms,
            value=found.a_ms * found.ratio,
            limit=max(found.a_ms * (1.0 + allowed), found.a_ms + floor_ms),
            verdict=verdict,
            note=note,
            interval=(found.a_ms * found.interval[0], found.a_ms * found.interval[1]),
        )

    def _memory(self, known: Baseline, before: BaselineModel, model: BaselineModel) -> CheckFinding:
        was, now = before.characterisation.peak_memory_bytes, model.characterisation.peak_memory_bytes
        if known.environment.fingerprint() != self.agent.environment.fingerprint():
            reason = "not judged: the baseline is of another machine"
            return not_judged(model.name, "peak_memory_bytes", "pass", reason, was=was, now=now)
        share = self.allowance.more_memory
        return growth(model.name, "peak_memory_bytes", was, now, share=share, floor=MEMORY_FLOOR_BYTES)


def _baseline_model(known: Baseline, model: BaselineModel) -> BaselineModel:
    found = next((one for one in known.models if one.name == model.name), None)
    if found is not None:
        return found
    renamed = next((one.name for one in known.models if one.skeleton == model.skeleton), None)
    hint = f"it is '{renamed}' under another name; " if renamed else ""
    raise UnknownNameError(
        "model in the baseline",
        model.name,
        [one.name for one in known.models],
        hint=f"{hint}accept it with --update",
    )


def _accept(path: Path, gate: _Gate, today: tuple[BaselineModel, ...], result: CheckResult) -> None:
    """Writes the new baseline; models of the old one that were not given stay in it."""
    if result.verdict == "fail":
        raise BudgetNotMetError(
            "the models miss absolute limits, so they are no baseline", hint="see the findings", result=result
        )
    given = {model.name for model in today}
    kept: tuple[BaselineModel, ...] = ()
    if path.exists():
        old = read_baseline(path)
        if (old.device, old.threads) != (gate.agent.profile.id, gate.threads):
            raise ArtifactError(
                f"{path} is of {old.device} with {old.threads} threads, not of {gate.agent.profile.id} "
                f"with {gate.threads}",
                hint="give another file to --baseline, or remove this one",
            )
        kept = tuple(model for model in old.models if model.name not in given)
    baseline = Baseline(
        schema_version=BASELINE_VERSION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        edgenas_version=edgenas.__version__,
        versions=installed_versions(),
        commit=commit_of(gate.workspace.root),
        device=gate.agent.profile.id,
        threads=gate.threads,
        environment=gate.agent.environment,
        models=(*kept, *today),
    )
    write_baseline(path, baseline)
