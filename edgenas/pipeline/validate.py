"""Measures a model as the device runs it and holds it to limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from edgenas.datasets import PREPROCESSING_KEY
from edgenas.datasets.tokenizer import VOCABULARY_KEY
from edgenas.device_profiles import load_profile
from edgenas.errors import DataError, MeasurementError, UsageError
from edgenas.measuring import Agent, connect
from edgenas.progress import say, track, warn
from edgenas.quantization.decision import changes
from edgenas.quantization.device_scoring import Scorer
from edgenas.quantization.inputs import ArrayInputs, Inputs
from edgenas.quantization.judging import doubts_of
from edgenas.quantization.model_checks import check_shapes, load_model, real_inputs
from edgenas.quantization.outputs import OutputScore, ReferenceOutputs
from edgenas.quantization.packing import model_bytes, ship_model, travelling
from edgenas.quantization.samples import describe, load_inputs, parse_options
from edgenas.quantization.trials import TrialStore
from edgenas.records import (
    Characterisation,
    LatencyStatistics,
    Record,
    ValidateResult,
    ValidationFinding,
    Verdict,
)
from edgenas.workspace import Workspace

RANDOM_SAMPLES = 32  # that stand for data where only the outputs of two models are compared
CHARACTERISED_RUNS = 200
VIRTUAL_RUNS = 100  # of an instruction count, whose quantiles are all but one
ROUNDS = 40
RELATIVE_HALFWIDTH = 0.005
PATIENCE_S = 10.0  # with several threads, for a device on which they work together more slowly than before


def validate(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    max_drop: float | None = None,
    threads: int | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    scale: float | None = None,
    input_size: str | Sequence[int] | int | None = None,
    resize: str | None = None,
    layout: str | None = None,
    channels: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    workspace: Workspace | None = None,
) -> ValidateResult:
    """Latency, memory, accuracy and output distance of a model on the device, and the verdict.

    Args:
        model: any ONNX file, quantized or not.
        device: the device; the workspace's when None.
        reference: a model to compare outputs and accuracy with, usually the float one.
        data: images (the test part where there is one) or an ``.npz`` file keyed by the inputs.
        latency_ms: limit of the repeatable latency.
        size_mb: limit of the file, in millions of bytes.
        max_drop: largest accuracy loss against the reference, as a ratio; wants reference and data.

    Raises:
        ModelError: the file is damaged or has dynamic dimensions beside the batch.
        MeasurementError: the device cannot run it.
    """
    workspace = workspace or Workspace()
    path, other = Path(model), Path(reference) if reference is not None else None
    limits = Limits(latency_ms=latency_ms, size_mb=size_mb, max_drop=max_drop)
    limits.check(compared=other is not None and data is not None)
    loaded = _checked_model(path)
    samples = None
    if data is not None:
        options = parse_options(
            mean=mean, std=std, scale=scale, input_size=input_size, resize=resize, layout=layout,
            channels=channels,
        )  # fmt: skip
        source = loaded if other is None else _with_preprocessing(loaded, _checked_model(other))
        listed = Path(labels) if labels is not None else None
        samples = load_inputs(source, os.fspath(data), options, labels=listed, part="test")
        say(f"inputs: {describe(samples)}")
    elif other is not None:
        samples = random_inputs(loaded)
    profile = load_profile(workspace.device_or_default(device), workspace)
    with connect(profile) as agent, tempfile.TemporaryDirectory(prefix="edgenas-validate-") as folder:
        shipped = travelling(loaded, path, Path(folder))
        compared = (
            None if other is None else travelling(_checked_model(other), other, Path(folder) / "reference")
        )
        measured = _Measured(agent, shipped, compared, threads or agent.threads)
        outputs = measured.outputs(samples, Path(folder)) if samples is not None else Compared()
        return measured.result(path, outputs, limits)


class Limits(Record):
    """What the model is held to; None: no limit."""

    latency_ms: float | None = None
    size_mb: float | None = None
    max_drop: float | None = None

    def check(self, *, compared: bool) -> None:
        """Refuses a limit on the accuracy's drop where no two accuracies are compared."""
        if self.max_drop is not None and not compared:
            raise UsageError(
                "max_drop compares accuracies", hint="name --reference FLOAT.onnx and --data, too"
            )


class Compared(Record):
    """What the outputs tell; None where there is nothing to tell it from."""

    accuracy: float | None = None
    reference_accuracy: float | None = None
    agreement: float | None = None
    output_distance: float | None = None
    drop_deviation: float = 0.0


class _Measured:
    """One model on one device, beside its reference."""

    def __init__(self, agent: Agent, model: Path, reference: Path | None, threads: int) -> None:
        self._agent, self._model, self._reference, self._threads = agent, model, reference, threads
        self._content = ship_model(agent, model)
        with track("Measuring", total=2) as task:
            self.characterisation = agent.characterise(
                self._content,
                threads=threads,
                runs=VIRTUAL_RUNS if agent.profile.virtual else CHARACTERISED_RUNS,
            )
            task.advance(note="alone")
            self.latency = self._compared()
            task.advance(note="side by side")

    def _compared(self) -> LatencyStatistics:
        """The repeatable latency, in rounds interleaved with the reference's where there is one."""
        contents = [self._content]
        if self._reference is not None:
            contents.append(ship_model(self._agent, self._reference))
        measured = self._agent.compare(
            list(dict.fromkeys(contents)), threads=self._threads, max_rounds=ROUNDS,
            relative_halfwidth=RELATIVE_HALFWIDTH, patience_s=PATIENCE_S,
        )  # fmt: skip
        for latency in measured:
            if latency.model_sha256 == self._content:
                if latency.statistics is None:
                    raise MeasurementError(
                        f"the device cannot run {self._model}: {latency.error}", reason=latency.error or ""
                    )
                mine = latency.statistics
        return mine

    def outputs(self, samples: Inputs, folder: Path) -> Compared:
        """Accuracy on the labels and distance to the reference, with the device's own kernels."""
        compared_with = self._reference or self._model
        with (
            Scorer(self._agent, TrialStore(folder / "trials.jsonl"), compared_with, self._threads) as scorer,
            track("Evaluating", total=None),
        ):
            reference = scorer.reference(samples)
            if self._reference is None:
                _doubt(reference.predictions, samples)
                return Compared(accuracy=_accuracy(reference.predictions, samples))
            answer = scorer.score(self._model, samples, name="validate")
        if answer.score is None:
            raise MeasurementError(
                f"the device cannot run {self._model}: {answer.error}", reason=answer.error or ""
            )
        _doubt(answer.score.predictions, samples)
        return _compare(answer.score, reference, samples)

    def result(self, path: Path, outputs: Compared, limits: Limits) -> ValidateResult:
        size = model_bytes(path)
        findings = tuple(judge(self.latency, size, outputs, limits))
        alone: Characterisation = self.characterisation
        return ValidateResult(
            model=str(path),
            device=self._agent.profile.id,
            verdict=overall(findings),
            latency_ms=self.latency.latency_ms,
            latency_p50_ms=alone.statistics.latency_p50_ms,
            latency_p90_ms=alone.statistics.latency_p90_ms,
            latency_p99_ms=alone.statistics.latency_p99_ms,
            latency_relative_halfwidth=self.latency.latency_relative_halfwidth,
            accuracy=outputs.accuracy,
            reference_accuracy=outputs.reference_accuracy,
            agreement=outputs.agreement,
            output_distance=outputs.output_distance,
            size_bytes=size,
            peak_memory_bytes=alone.peak_memory_bytes,
            load_ms=alone.load_ms,
            threads=self._threads,
            environment=self._agent.refresh_environment(),
            findings=findings,
            virtual_clock=self._agent.environment.virtual_clock,
        )


def judge(
    latency: LatencyStatistics, size_bytes: int, outputs: Compared, limits: Limits
) -> list[ValidationFinding]:
    """One finding for each limit.

    A latency limit inside the measured interval is inconclusive. A drop above its limit is, too,
    where the paired samples are too few to exclude that the true one is below (95 %, one-sided).
    """
    findings = []
    if limits.latency_ms is not None:
        halfwidth = latency.latency_ms * latency.latency_relative_halfwidth
        verdict = _against(latency.latency_ms, limits.latency_ms, halfwidth, halfwidth)
        findings.append(_finding("latency_ms", latency.latency_ms, limits.latency_ms, verdict))
    if limits.size_mb is not None:
        verdict = _against(size_bytes / 1e6, limits.size_mb, 0.0, 0.0)
        findings.append(_finding("size_mb", size_bytes / 1e6, limits.size_mb, verdict))
    if limits.max_drop is not None:
        if outputs.accuracy is None or outputs.reference_accuracy is None:
            findings.append(_finding("drop", None, limits.max_drop, "inconclusive"))
        else:
            drop = outputs.reference_accuracy - outputs.accuracy
            verdict = _against(drop, limits.max_drop, 1.645 * outputs.drop_deviation, 0.0)
            findings.append(_finding("drop", drop, limits.max_drop, verdict))
    return findings


def overall(findings: Sequence[ValidationFinding]) -> Verdict:
    """The worst of the findings."""
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


def random_inputs(model: onnx.ModelProto) -> ArrayInputs:
    """Samples from a fixed seed that fit a model's inputs: normal floats, and zeros for other types."""
    generator = np.random.default_rng(0)
    arrays = {}
    for value in real_inputs(model):
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = (RANDOM_SAMPLES, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        drawn = generator.standard_normal(shape) if kind.kind == "f" else np.zeros(shape)
        arrays[value.name] = drawn.astype(kind)
    return ArrayInputs(arrays)


def _checked_model(path: Path) -> onnx.ModelProto:
    loaded = load_model(path)
    check_shapes(loaded, path)
    return loaded


def _with_preprocessing(model: onnx.ModelProto, reference: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose metadata says how images or texts become inputs: its own, else the reference's."""
    known = {entry.key for entry in model.metadata_props} & {PREPROCESSING_KEY, VOCABULARY_KEY}
    return model if known else reference


def _doubt(predictions: Sequence[int], samples: Inputs) -> None:
    """Warns where the labels say that the model only guesses; random inputs have none."""
    if samples.labels is not None and predictions:
        for doubt in doubts_of(tuple(predictions), samples.labels, "the model"):
            warn(doubt)


def _accuracy(predictions: Sequence[int], samples: Inputs) -> float | None:
    if samples.labels is None:
        return None
    if len(predictions) != len(samples):
        raise DataError("the data has labels, but the model's outputs are not scores of classes")
    return float(np.mean(np.asarray(predictions) == samples.labels))


def _compare(score: OutputScore, reference: ReferenceOutputs, samples: Inputs) -> Compared:
    classes = reference.classifies
    agreement = float(np.mean(np.asarray(score.predictions) == reference.predictions)) if classes else None
    if samples.labels is None:
        return Compared(agreement=agreement, output_distance=score.distance)
    count = len(samples)
    accuracy = _accuracy(score.predictions, samples)
    lost, won = changes(score.predictions, reference.predictions, samples.labels)
    variance = max((lost + won) - (lost - won) ** 2 / count, 0.0)
    return Compared(
        accuracy=accuracy,
        reference_accuracy=_accuracy(reference.predictions, samples),
        agreement=agreement,
        output_distance=score.distance,
        drop_deviation=float(np.sqrt(variance)) / count,
    )


def _against(value: float, limit: float, below: float, above: float) -> Verdict:
    """Pass or fail, or inconclusive where the limit lies in ``[value - below, value + above]``."""
    if value - below <= limit < value or value <= limit < value + above:
        return "inconclusive"
    return "pass" if value <= limit else "fail"


def _finding(metric: str, value: float | None, limit: float, verdict: Verdict) -> ValidationFinding:
    return ValidationFinding(metric=metric, value=value, limit=limit, verdict=verdict)
