"""Finds the best int8 form of a model for a device, by measuring there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import BudgetNotMetError, UsageError
from edgenas.files import replaced
from edgenas.measuring import connect
from edgenas.progress import say, warn
from edgenas.quantization.device_scoring import Scorer
from edgenas.quantization.exploration import Candidate, Explorer
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.metric import Metric
from edgenas.quantization.model_checks import check_quantizable, load_model
from edgenas.quantization.packing import one_file
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.reference_run import fixed_batch
from edgenas.quantization.samples import describe, load_inputs, parse_options, spread, suspicious
from edgenas.quantization.tournament import Outcome, Tournament
from edgenas.quantization.trials import TrialStore
from edgenas.records import QuantizeResult, SchemeTrial
from edgenas.units import unit_of
from edgenas.workspace import Workspace

FLOAT = "float"
CALIBRATION_SAMPLES = 300
CALIBRATION_SHARE = 0.6  # of the samples where there are few; the others select
SELECTION_SAMPLES = 2000
SCREENING_SAMPLES = 48


def quantize(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    calibration: str | os.PathLike[str],
    max_drop: float = 0.01,
    latency_ms: float | None = None,
    output: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    start_float_layers: Sequence[str] = (),
    threads: int | None = None,
    seed: int = 0,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    scale: float | None = None,
    input_size: str | Sequence[int] | int | None = None,
    resize: str | None = None,
    layout: str | None = None,
    channels: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    workspace: Workspace | None = None,
) -> QuantizeResult:
    """The most accurate int8 model that is not slower than float on the device.

    Part of the samples calibrates, the others, unseen, select. Every trial is written beside the
    output as it comes; a killed run goes on where it stopped.

    Args:
        model: a float ONNX file.
        device: the device; the workspace's when None.
        calibration: images, or an ``.npz`` file keyed by the model's inputs; labels help to select.
        max_drop: largest accuracy loss that is expected, as a ratio. For a model without classes it
            limits the share of the outputs' energy that is error: 0.01 is 20 dB.
        latency_ms: a hard limit instead of the float model's latency.
        output: where the winner goes; the best int8 model stands beside it as ``OUT-int8.onnx``.
        metric: ``module:function``, rates the outputs of each sample where they are no classes;
            ``max_drop`` is then in its unit.
        start_float_layers: layers that a search wants in float; tried as one scheme of many.
        threads: of every run on the device; its profile's when None.

    Raises:
        ModelError: the model is damaged, dynamic, already quantized or not finite.
        DataError: the samples are missing, or do not fit the model.
        BudgetNotMetError: nothing meets ``latency_ms``; the fastest is written and carried.
    """
    workspace = workspace or Workspace()
    path = Path(model)
    loaded = _quantizable(path, max_drop)
    options = parse_options(
        mean=mean, std=std, scale=scale, input_size=input_size, resize=resize, layout=layout,
        channels=channels,
    )  # fmt: skip
    samples = load_inputs(loaded, os.fspath(calibration), options, labels=Path(labels) if labels else None)
    say(f"inputs: {describe(samples)}")
    profile = load_profile(workspace.device_or_default(device), workspace)
    target = Path(output) if output is not None else path.with_name(f"{path.stem}-quantized.onnx")
    trials = target.with_suffix(".trials")
    source, parts = one_file(loaded, path, trials), divide(samples, seed)
    store, rating = TrialStore(trials / "trials.jsonl"), Metric(metric) if metric is not None else None
    with (
        connect(profile) as agent,
        Scorer(
            agent, store, source, threads or agent.threads, metric=rating, batch=fixed_batch(loaded) or 1
        ) as scorer,
    ):
        facts = {"device": profile.id, "environment": agent.environment.fingerprint()}
        quantizer = Quantizer(loaded, parts.calibration, facts)
        explorer = Explorer(quantizer, scorer, parts.screening, trials / "candidates")
        outcome = Tournament(explorer, parts.selection, max_drop, latency_ms).run(start_float_layers)
    result = _written(outcome, source, target, profile, parts)
    shutil.rmtree(trials / "candidates", ignore_errors=True)  # not there where nothing could be built
    _check_limit(result, latency_ms)
    return result


def _quantizable(path: Path, max_drop: float) -> onnx.ModelProto:
    """The model, if it can be quantized within a loss that can be asked for."""
    if not 0 <= max_drop <= 1:
        raise UsageError(
            f"max_drop {max_drop} is not a ratio from 0 to 1", hint="0.01 is one point of accuracy"
        )
    loaded = load_model(path)
    check_quantizable(loaded, path)
    return loaded


@dataclass(frozen=True)
class Parts:
    """Samples by purpose; calibration and selection share none, screening is some of the selection's."""

    calibration: Inputs
    selection: Inputs
    screening: Inputs
    warnings: tuple[str, ...]


def divide(samples: Inputs, seed: int) -> Parts:
    """Divides what the user gave: at most 300 samples calibrate, the others select."""
    warnings = suspicious(samples)
    count = min(CALIBRATION_SAMPLES, max(1, round(CALIBRATION_SHARE * len(samples))))
    calibration, rest = spread(samples, count, seed)
    if len(rest) == 0:
        warnings.append("one sample calibrates and selects: give more")
        rest = calibration
    selection = spread(rest, SELECTION_SAMPLES, seed + 1)[0]
    screening = spread(selection, SCREENING_SAMPLES, seed + 2)[0]
    for warning in warnings:
        warn(warning)
    return Parts(calibration, selection, screening, tuple(warnings))


def _written(
    outcome: Outcome, source: Path, target: Path, profile: DeviceProfile, parts: Parts
) -> QuantizeResult:
    """Puts the winner and the best int8 model where they belong, and says what happened."""
    winner, best = outcome.verdict.winner, outcome.verdict.best_int8
    by_name = {candidate.name: candidate for candidate in outcome.candidates}
    int8_output = None if best is None else target.with_name(f"{target.stem}-int8.onnx")
    if best is not None and int8_output is not None:
        _copy(by_name[best].path, int8_output)
    _copy(by_name[winner].path if winner is not None else source, target)
    for note in outcome.notes:
        say(note)
    for warning in outcome.warnings:
        warn(warning)
    warnings = [*parts.warnings, *outcome.warnings, *_float_warning(outcome)]
    chosen = outcome.judged.get(winner or "")
    return QuantizeResult(
        device=profile.id,
        output=str(target),
        int8_output=None if int8_output is None else str(int8_output),
        scheme=winner or FLOAT,
        latency_ms=chosen.latency_ms if chosen else outcome.float_latency_ms,
        float_latency_ms=outcome.float_latency_ms,
        accuracy=chosen.accuracy if chosen else outcome.float_accuracy,
        float_accuracy=outcome.float_accuracy,
        size_bytes=target.stat().st_size,
        float_size_bytes=source.stat().st_size,
        calibration_images=len(parts.calibration),
        selection_images=outcome.selection_samples,
        tried=tuple(_trial(candidate, outcome) for candidate in outcome.candidates),
        warnings=tuple(warnings),
        virtual_clock=profile.virtual,
    )


def _copy(source: Path, target: Path) -> None:
    """One file in place of another, never a half of it."""
    with replaced(target) as unfinished:
        shutil.copyfile(source, unfinished)


def _float_warning(outcome: Outcome) -> list[str]:
    if outcome.verdict.winner is not None:
        return []
    best = outcome.verdict.best_int8
    if best is None:
        failed = next((c.error for c in outcome.candidates if c.error is not None), None)
        reason = f"no int8 model of it works: {failed}"
    else:
        reason = f"the best int8 model, {best}, is out: {outcome.verdict.reasons[best]}"
    warning = f"the output is the float model: {reason}"
    warn(warning)
    return [warning]


def _trial(candidate: Candidate, outcome: Outcome) -> SchemeTrial:
    judged = outcome.judged.get(candidate.name)
    verdict = outcome.verdict
    if candidate.error is not None:
        kind, reason = "failed", candidate.error
    elif judged is None:
        kind, reason = "rejected", _why_no_finalist(candidate, outcome)
    elif candidate.name == verdict.winner:
        kind, reason = "chosen", verdict.reasons[candidate.name]
    else:
        kept = candidate.name == verdict.best_int8
        kind, reason = ("kept" if kept else "rejected"), verdict.reasons[candidate.name]
    return SchemeTrial(
        scheme=candidate.name,
        latency_ms=candidate.latency_ms,
        accuracy=judged.accuracy if judged else None,
        size_bytes=candidate.size_bytes,
        output_distance=judged.distance if judged else candidate.screened_distance,
        verdict=kind,  # type: ignore[arg-type]  # one of four words
        reason=reason,
    )


def _why_no_finalist(candidate: Candidate, outcome: Outcome) -> str:
    """Names the finalist that is at least as near and as fast."""
    for other in outcome.candidates:
        if other.name not in outcome.judged or other.latency_ms is None or candidate.latency_ms is None:
            continue
        if other.distance <= candidate.distance * 1.05 and other.latency_ms <= candidate.latency_ms * 1.05:
            return f"{other.name} is nearer to float ({other.distance:.3g} against {candidate.distance:.3g})"
    return "between two finalists in both latency and distance"


def _check_limit(result: QuantizeResult, latency_ms: float | None) -> None:
    if latency_ms is None or result.latency_ms <= latency_ms:
        return
    measured = [t.latency_ms for t in result.tried if t.latency_ms is not None]
    fastest = min([*measured, result.float_latency_ms])
    unit = unit_of(virtual=result.virtual_clock)
    raise BudgetNotMetError(
        f"{latency_ms:g} {unit} was asked for; the fastest form of this model takes {fastest:.3g} {unit} on "
        f"'{result.device}' (float {result.float_latency_ms:.3g} {unit}); {result.output} is within max_drop",
        hint="allow a larger --max-drop, raise --latency-ms, or search a smaller network",
        result=result,
    )
