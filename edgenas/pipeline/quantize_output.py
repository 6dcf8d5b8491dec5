"""What ``quantize`` leaves: the winner, the best int8 model, the smallest one, and what became of all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import ModelError
from edgenas.progress import say, warn
from edgenas.quantization.division import Parts
from edgenas.quantization.exploration import Candidate
from edgenas.quantization.packing import copy_file, copy_model_file, model_bytes
from edgenas.quantization.schemes import replaced as changed
from edgenas.quantization.tournament import Outcome
from edgenas.records import QuantizeResult, SchemeTrial

FLOAT = "float"
WORTH_A_FILE = 0.98  # of the winner's size: what the smallest must be below to be written


def written(
    outcome: Outcome, source: Path, target: Path, *, profile: DeviceProfile, parts: Parts, metric: str | None
) -> QuantizeResult:
    """Puts the models where they belong, and says what happened."""
    winner, best = outcome.verdict.winner, outcome.verdict.best_int8
    by_name = {candidate.name: candidate for candidate in outcome.candidates}
    int8_output = _beside(target, "int8", by_name[best]) if best is not None else None
    smallest = _smallest(outcome, by_name)
    smallest_output = _beside(target, "smallest", smallest) if smallest is not None else None
    copy_model_file(by_name[winner].path if winner is not None else source, target)
    for note in outcome.notes:
        say(note)
    for warning in outcome.warnings:
        warn(warning)
    chosen = outcome.judged.get(winner or "")
    return QuantizeResult(
        device=profile.id,
        output=str(target),
        int8_output=int8_output,
        scheme=winner or FLOAT,
        latency_ms=chosen.latency_ms if chosen else outcome.float_latency_ms,
        float_latency_ms=outcome.float_latency_ms,
        accuracy=chosen.accuracy if chosen else outcome.float_accuracy,
        float_accuracy=outcome.float_accuracy,
        size_bytes=model_bytes(target),
        float_size_bytes=model_bytes(source),
        calibration_images=len(parts.calibration),
        selection_images=outcome.selection_samples,
        tried=tuple(_trial(candidate, outcome) for candidate in outcome.candidates),
        warnings=(*parts.warnings, *outcome.warnings, *_float_warning(outcome)),
        virtual_clock=profile.virtual,
        metric=metric,
        smallest_output=smallest_output,
        sensitivity=outcome.sensitivity,
        stayed_float=outcome.stayed_float,
    )


def add_ort(result: QuantizeResult, architecture: str) -> QuantizeResult:
    """Writes the output in ONNX Runtime's own format too, optimized for the device's kind of processor.

    Raises:
        ModelError: ONNX Runtime's converter refuses the model.
    """
    model = Path(result.output)
    target = model.with_suffix(".ort")
    platform = "arm" if architecture in {"aarch64", "arm64", "armv7l"} else "amd64"
    with tempfile.TemporaryDirectory(prefix="edgenas-ort-") as folder:
        command = [
            sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(model),
            "--output_dir", folder, "--optimization_style", "Fixed", "--target_platform", platform,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        made = Path(folder) / target.name
        if done.returncode or not made.is_file():
            reason = (done.stderr.strip() or "it wrote no file").splitlines()[-1]
            raise ModelError(f"ONNX Runtime cannot convert {model} to .ort: {reason}")
        copy_file(made, target)
    return changed(result, ort_output=str(target))


def _smallest(outcome: Outcome, by_name: dict[str, Candidate]) -> Candidate | None:
    """The smallest model within the limit of accuracy, where it is neither the winner nor the best int8."""
    verdict = outcome.verdict
    within = [by_name[name] for name, one in outcome.judged.items() if one.estimated_drop <= outcome.max_drop]
    smallest = min(within, key=lambda c: c.size_bytes, default=None)
    known = [by_name[name].size_bytes for name in (verdict.winner, verdict.best_int8) if name is not None]
    if smallest is None or smallest.size_bytes > WORTH_A_FILE * min(known, default=0):
        return None
    return smallest


def _beside(target: Path, kind: str, candidate: Candidate) -> str:
    path = target.with_name(f"{target.stem}-{kind}.onnx")
    copy_model_file(candidate.path, path)
    return str(path)


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
        defined_distance=candidate.defined_distance,
    )


def _why_no_finalist(candidate: Candidate, outcome: Outcome) -> str:
    """Names the finalist that is at least as near and as fast."""
    for other in outcome.candidates:
        if other.name not in outcome.judged or other.latency_ms is None or candidate.latency_ms is None:
            continue
        if other.distance <= candidate.distance * 1.05 and other.latency_ms <= candidate.latency_ms * 1.05:
            return f"{other.name} is nearer to float ({other.distance:.3g} against {candidate.distance:.3g})"
    return "between two finalists in both latency and distance"
