"""Finds the best int8 form of a model for a device, by measuring there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnx

from edgenas.datasets.parts import DataParts
from edgenas.device_profiles import DeviceProfile, load_profile
from edgenas.errors import BudgetNotMetError, UsageError
from edgenas.files import write_atomically
from edgenas.measuring import Agent, connect
from edgenas.pipeline.quantize_output import add_ort, written
from edgenas.progress import say
from edgenas.quantization.device_scoring import Scorer
from edgenas.quantization.division import Parts, divide
from edgenas.quantization.engines import OWN, engine_schemes
from edgenas.quantization.exploration import Explorer
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.metric import Metric
from edgenas.quantization.model_checks import check_quantizable, load_model
from edgenas.quantization.packing import travelling
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.reference_run import fixed_batch
from edgenas.quantization.samples import describe, load_parts, parse_options, trained_range
from edgenas.quantization.tournament import Outcome, Tournament
from edgenas.quantization.trials import TrialStore
from edgenas.records import QuantizeResult, Record
from edgenas.units import unit_of
from edgenas.workspace import Workspace


def quantize(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    calibration: str | os.PathLike[str],
    max_drop: float = 0.01,
    latency_ms: float | None = None,
    output: str | os.PathLike[str] | None = None,
    metric: str | None = None,
    engines: Sequence[str] = (OWN,),
    ort: bool = False,
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
    """The best bargain of accuracy and speed among int8 models that are faster than float on the device.

    Part of the samples calibrates, the others select: where the model says that it learnt from the same
    data, those that its training held out, because it is surer of what it has seen. Every trial is
    written beside the output as it comes; a killed run goes on where it stopped.

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
        engines: whose candidates are tried: ``edgenas`` always, also ``onnxruntime``, ``nncf``, and
            ``float16``, 16-bit floats, which compete anyway where the device computes in them.
        ort: writes ``OUT.ort`` beside it, in ONNX Runtime's own format for small builds of it.
        start_float_layers: layers that a search wants in float; tried as one scheme of many.
        threads: of every run on the device; its profile's when None.

    Raises:
        ModelError: the model is damaged, dynamic, already quantized or not finite.
        DataError: the samples are missing, or do not fit the model.
        BudgetNotMetError: nothing meets ``latency_ms``; the fastest is written and carried.
    """
    workspace, path = workspace or Workspace(), Path(model)
    loaded = _quantizable(path, max_drop)
    asked = _Asked(
        max_drop=max_drop, latency_ms=latency_ms, metric=metric, engines=tuple(engines), seed=seed,
        start_float_layers=tuple(start_float_layers), threads=threads,
    )  # fmt: skip
    options = parse_options(
        mean=mean, std=std, scale=scale, input_size=input_size, resize=resize, layout=layout,
        channels=channels,
    )  # fmt: skip
    samples = load_parts(loaded, os.fspath(calibration), options, labels=Path(labels) if labels else None)
    say(f"inputs: {describe(samples.train)}")
    profile = load_profile(workspace.device_or_default(device), workspace)
    target = Path(output) if output is not None else path.with_name(f"{path.stem}-quantized.onnx")
    search = _Search(loaded, path, target.with_suffix(".trials"), asked)
    result = search.result(samples, profile, target)
    if ort:
        result = add_ort(result, search.architecture)
    search.finish(result)
    _check_limit(result, latency_ms)
    return result


class _Asked(Record):
    """What decides how a search goes beside model, samples and device; ``quantize`` explains it."""

    max_drop: float
    latency_ms: float | None
    metric: str | None
    engines: tuple[str, ...]
    seed: int
    start_float_layers: tuple[str, ...]
    threads: int | None


class _Search:
    """The search over one model's schemes, with its trials in a folder.

    Args:
        path: where ``model`` was read from.
        trials: the folder; made when the first trial is written.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, trials: Path, asked: _Asked) -> None:
        self._model, self._trials, self._asked = model, trials, asked
        self._others = engine_schemes(asked.engines)
        self._metric = Metric(asked.metric) if asked.metric is not None else None
        self._source = travelling(model, path, trials)
        self.architecture = ""

    def result(self, samples: DataParts[Inputs], profile: DeviceProfile, target: Path) -> QuantizeResult:
        """Decides on the device and writes the models."""
        parts = divide(samples.train, samples.unseen, self._asked.seed, trained_range(self._model))
        with connect(profile) as agent:
            self.architecture = agent.environment.architecture
            outcome = self._outcome(agent, parts)
        return written(outcome, self._source, target, profile=profile, parts=parts, metric=self._asked.metric)

    def finish(self, result: QuantizeResult) -> None:
        """Keeps what the report shows; candidates have served."""
        shutil.rmtree(self._trials / "candidates", ignore_errors=True)  # not there where none could be built
        path = self._trials / "quantize.json"
        write_atomically(path, msgspec.json.format(msgspec.json.encode(result), indent=1))
        say(f"every scheme, plotted: edgenas report {self._trials}")

    def _outcome(self, agent: Agent, parts: Parts) -> Outcome:
        asked, environment = self._asked, agent.environment.fingerprint()
        facts = {"device": agent.profile.id, "environment": environment}
        with Scorer(
            agent, TrialStore(self._trials / "trials.jsonl"), self._source, asked.threads or agent.threads,
            metric=self._metric, batch=fixed_batch(self._model) or 1,
        ) as scorer:  # fmt: skip
            quantizer = Quantizer(self._model, parts.calibration, facts)
            explorer = Explorer(quantizer, scorer, parts.screening, self._trials / "candidates")
            tournament = Tournament(explorer, parts.selection, asked.max_drop, asked.latency_ms, self._others)
            return tournament.run(asked.start_float_layers)


def _quantizable(path: Path, max_drop: float) -> onnx.ModelProto:
    """The model, if it can be quantized within a loss that can be asked for."""
    if not 0 <= max_drop <= 1:
        raise UsageError(
            f"max_drop {max_drop} is not a ratio from 0 to 1", hint="0.01 is one point of accuracy"
        )
    loaded = load_model(path)
    check_quantizable(loaded, path)
    return loaded


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
