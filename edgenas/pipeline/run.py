"""``edgenas run``: from data and a budget in milliseconds to a validated int8 model."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np

from edgenas.datasets import Dataset, load_parted
from edgenas.datasets.texts import TextDataset
from edgenas.device_profiles import load_profile
from edgenas.errors import BudgetNotMetError, UnknownKernelsError
from edgenas.files import file_sha256
from edgenas.pipeline.bundle import (
    FP32_MODEL,
    INT8_MODEL,
    MANIFEST,
    MODEL,
    describe_file,
    read_manifest,
    write_bundle,
)
from edgenas.pipeline.final import input_preprocessing, train_winner
from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.predict import predict
from edgenas.pipeline.profile import profile
from edgenas.pipeline.quantize import quantize
from edgenas.pipeline.report import report
from edgenas.pipeline.search import search
from edgenas.pipeline.stages import RunFolder
from edgenas.pipeline.train import train
from edgenas.pipeline.validate import validate
from edgenas.progress import say, warn
from edgenas.records import (
    Candidate,
    NetworkPoint,
    Prediction,
    ProfileResult,
    QuantizeResult,
    Record,
    RunResult,
    SearchResult,
    TrainResult,
    ValidateResult,
)
from edgenas.search_spaces import SearchSpace, default_space, get_space
from edgenas.search_spaces.text_encoder import VOCABULARY, TextEncoder
from edgenas.workspace import Workspace

SUPERNET = "supernet.pt"
# CPU seconds that networks of CIFAR's size need to be worth comparing; larger images need more.
TRAIN_SECONDS, FINAL_SECONDS, EVALUATIONS, PROFILE_TIME_LIMIT_S = 900.0, 600.0, 120, 600.0


class RunSettings(Record):
    """Everything that was asked of a run; stored as ``run.json``."""

    name: str
    device: str
    latency_ms: float
    data: str
    space: str
    train_seconds: float
    final_seconds: float
    evaluations: int
    profile_time_limit_s: float
    threads: int | None
    seed: int


def run(
    *,
    latency_ms: float,
    data: str,
    device: str | None = None,
    space: str | None = None,
    name: str | None = None,
    train_seconds: float | None = None,
    final_seconds: float | None = None,
    evaluations: int | None = None,
    profile_time_limit_s: float | None = None,
    threads: int | None = None,
    seed: int = 0,
    workspace: Workspace | None = None,
) -> RunResult:
    """All stages in a folder under ``runs/``; the same call goes on where a killed one stopped.

    Args:
        latency_ms: the hard limit on the device, batch 1.
        data: labelled images or texts; their test part is used once, at the end.
        device: the device; the workspace's default when omitted.
        space: the search space; by image size when omitted.
        name: the folder; made from data, device and limit when omitted.
        train_seconds: CPU seconds of supernet training.
        final_seconds: CPU seconds of training the winner.
        evaluations: candidates that the supernet scores.
        profile_time_limit_s: longest time on the device for the latency table.
        threads: threads to measure with; the device's when omitted.
        seed: of everything that is drawn.
        workspace: where tables and runs are; the current folder when omitted.

    Raises:
        DataError: the data cannot be used.
        BudgetNotMetError: the fastest network of the space is predicted to miss the limit. Where
            only measurements miss it, the bundle is made all the same and its verdict is ``fail``.
    """
    workspace = workspace or Workspace()
    dataset = load_parted(data, vocabulary=VOCABULARY)
    device = workspace.device_or_default(device)
    load_profile(device, workspace)
    settings = RunSettings(
        name=name or _default_name(dataset, device, latency_ms, space, seed),
        device=device,
        latency_ms=latency_ms,
        data=data,
        space=space or _default_space(dataset),
        train_seconds=TRAIN_SECONDS if train_seconds is None else train_seconds,
        final_seconds=FINAL_SECONDS if final_seconds is None else final_seconds,
        evaluations=EVALUATIONS if evaluations is None else evaluations,
        profile_time_limit_s=PROFILE_TIME_LIMIT_S if profile_time_limit_s is None else profile_time_limit_s,
        threads=threads,
        seed=seed,
    )
    with RunFolder(workspace.runs / settings.name) as folder:
        return _Run(settings, dataset, folder, workspace).result()


def _default_name(
    dataset: Dataset | TextDataset, device: str, latency_ms: float, space: str | None, seed: int
) -> str:
    """A folder of its own for whatever was asked otherwise than by default."""
    parts = (dataset.name, space and Path(space).stem, device, f"{latency_ms:g}ms", seed and f"seed{seed}")
    return "-".join(part for part in parts if part)


def _default_space(dataset: Dataset | TextDataset) -> str:
    return (
        TextEncoder.name if isinstance(dataset, TextDataset) else default_space(min(dataset.image_shape[:2]))
    )


def profile_stage(
    folder: RunFolder,
    *,
    device: str,
    space: str,
    classes: int,
    time_limit_s: float,
    threads: int | None,
    seed: int,
    workspace: Workspace,
) -> ProfileResult:
    """The first stage of a run: the device's latency table covers the space.

    With another time limit it goes on from where the last one stopped.
    """

    def work() -> ProfileResult:
        return profile(
            device=device,
            space=(space,),
            classes=classes,
            time_limit_s=time_limit_s,
            threads=threads,
            seed=seed,
            workspace=workspace,
        )

    if not workspace.table_path(device).exists():
        folder.forget("profile")
    inputs = {
        "device": device,
        "threads": threads,
        "space": get_space(space, classes=classes).identity,
        "time_limit_s": time_limit_s,
        "seed": seed,
    }
    return folder.stage("profile", ProfileResult, work, inputs=inputs)


class _Run:
    """The stages of one run, each with the inputs that it depends on."""

    def __init__(
        self, settings: RunSettings, dataset: Dataset | TextDataset, folder: RunFolder, workspace: Workspace
    ) -> None:
        self.settings, self.dataset, self.folder, self.workspace = settings, dataset, folder, workspace
        self.work = self.folder.path / "work"
        self.work.mkdir(exist_ok=True)
        self.space: SearchSpace = get_space(settings.space, classes=len(dataset.class_names))
        self.common = {"space": self.space.identity, "seed": settings.seed, "data_sha256": dataset.sha256}
        self.threads = settings.threads

    @property
    def on_device(self) -> dict[str, str | int | None]:
        """Where latencies are predicted and measured: with the threads that were profiled."""
        return {"device": self.settings.device, "threads": self.threads}

    def result(self) -> RunResult:
        """Does what is not finished yet and returns what the run leaves behind."""
        start = time.monotonic()
        self.folder.save("run", self.settings)
        profiled = profile_stage(
            self.folder,
            device=self.settings.device,
            space=self.settings.space,
            classes=self.space.classes,
            time_limit_s=self.settings.profile_time_limit_s,
            threads=self.settings.threads,
            seed=self.settings.seed,
            workspace=self.workspace,
        )
        self.threads = profiled.threads
        self._trained()
        found = self._found()
        best = found.best
        assert best is not None, "a search without a best candidate raises"
        self.folder.save("networks", self._finalists(found))
        final = self._final(best, _highest(found))
        quantized = self._quantized(best, final)
        self._predicted(self.work / MODEL)
        validated = self._validated(quantized)
        self._bundled(best, quantized, validated)
        result = self._summary(best, quantized, validated, time.monotonic() - start)
        self.folder.save("result", result)
        say(f"table {profiled.table}, bundle {self.folder.path}")
        return result

    def _trained(self) -> TrainResult:
        settings = self.settings

        def work() -> TrainResult:
            return train(
                space=settings.space,
                data=settings.data,
                folder=self.work,
                cpu_seconds=settings.train_seconds,
                device=settings.device,
                latency_ms=settings.latency_ms,
                threads=self.threads,
                seed=settings.seed,
                workspace=self.workspace,
            )

        inputs = {
            **self.common,
            **self.on_device,
            "latency_ms": settings.latency_ms,
            "cpu_seconds": settings.train_seconds,
        }
        return self.folder.stage("train", TrainResult, work, inputs=inputs, files=_supernet)

    def _found(self) -> SearchResult:
        settings = self.settings

        def work() -> SearchResult:
            try:
                found = search(
                    latency_ms=(settings.latency_ms,),
                    device=(settings.device,),
                    space=settings.space,
                    accuracy="supernet",
                    checkpoint=self.work / SUPERNET,
                    data=settings.data,
                    evaluations=settings.evaluations,
                    threads=self.threads,
                    seed=settings.seed,
                    folder=self.work / "search",
                    workspace=self.workspace,
                )
            except BudgetNotMetError as error:
                found = _nearest(error)
            if found.interrupted:
                raise KeyboardInterrupt
            return found

        inputs = {
            **self.common,
            **self.on_device,
            "latency_ms": settings.latency_ms,
            "evaluations": settings.evaluations,
            "supernet": file_sha256(self.work / SUPERNET),
        }
        return self.folder.stage("search", SearchResult, work, inputs=inputs)

    def _finalists(self, found: SearchResult) -> list[NetworkPoint]:
        """What the table says of the candidates that were measured, beside what they took."""
        device = self.settings.device
        measured = {
            msgspec.json.encode(c.candidate): c
            for c in (*found.front, *found.evaluated)
            if c.latency_source == "measured" and device in c.predicted_ms
        }
        if not measured:
            return []
        latency = compiled_latency(self.space, device, threads=self.threads, workspace=self.workspace)
        genomes = np.array([self.space.genome_of(c.candidate) for c in measured.values()])
        return [
            NetworkPoint(
                name=" ".join(f"{gene}={value}" for gene, value in c.candidate.items()),
                predicted_ms=c.predicted_ms[device],
                low_ms=float(low_ms),
                high_ms=float(high_ms),
                measured_ms=c.latency_ms[device],
            )
            for c, (low_ms, high_ms) in zip(measured.values(), latency.interval_ms(genomes), strict=True)
        ]

    def _final(self, best: Candidate, teacher: Candidate) -> TrainResult:
        settings, output = self.settings, self.work / FP32_MODEL

        def work() -> TrainResult:
            return train_winner(
                best.candidate,
                self.space,
                self.dataset,
                teacher=teacher.candidate,
                checkpoint=self.work / SUPERNET,
                output=output,
                cpu_seconds=settings.final_seconds,
                seed=settings.seed,
            )

        inputs = {
            **self.common,
            "candidate": best.candidate,
            "teacher": teacher.candidate,
            "cpu_seconds": settings.final_seconds,
            "supernet": file_sha256(self.work / SUPERNET),
        }
        return self.folder.stage("final", TrainResult, work, inputs=inputs, files=_float_model)

    def _predicted(self, model: Path) -> None:
        """What the table says of the shipped model; a table that cannot tell stops nothing."""
        settings = self.settings

        def work() -> Prediction:
            return predict(model, device=settings.device, threads=self.threads, workspace=self.workspace)

        inputs = {**self.on_device, "model": file_sha256(model)}
        try:
            self.folder.stage("prediction", Prediction, work, inputs=inputs)
        except UnknownKernelsError as error:
            warn(f"the report has no prediction: {error.message}")

    def _quantized(self, best: Candidate, final: TrainResult) -> QuantizeResult:
        settings, model = self.settings, self.work / FP32_MODEL
        network = self.space.network(self.space.genome_of(best.candidate))
        floats = tuple(layer.name for layer in network.layers if layer.precision == "fp32")

        def work() -> QuantizeResult:
            try:
                return quantize(
                    model,
                    device=settings.device,
                    calibration=settings.data,
                    latency_ms=settings.latency_ms,
                    output=self.work / MODEL,
                    start_float_layers=floats,
                    threads=self.threads,
                    seed=settings.seed,
                    workspace=self.workspace,
                )
            except BudgetNotMetError as error:
                if not isinstance(error.result, QuantizeResult):
                    raise
                warn(f"{error.message}; going on with it")
                return error.result

        inputs = {
            **self.common,
            **self.on_device,
            "model": file_sha256(model),
            "float_layers": floats,
            "latency_ms": settings.latency_ms,
            "validation_accuracy": final.validation_accuracy,
        }
        return self.folder.stage("quantize", QuantizeResult, work, inputs=inputs, files=_quantized_models)

    def _validated(self, quantized: QuantizeResult) -> dict[str, ValidateResult]:
        """Each model of the bundle on the test part: the first and only time that it is used."""
        models = {MODEL: self.work / MODEL, FP32_MODEL: self.work / FP32_MODEL}
        if quantized.int8_output is not None:
            models[INT8_MODEL] = self.work / Path(quantized.int8_output).name
        stages = {MODEL: "validate", FP32_MODEL: "validate-fp32", INT8_MODEL: "validate-int8"}
        return {name: self._validated_one(stages[name], path) for name, path in models.items()}

    def _validated_one(self, stage: str, model: Path) -> ValidateResult:
        settings = self.settings
        reference = self.work / FP32_MODEL
        limit_ms = settings.latency_ms if stage == "validate" else None

        def work() -> ValidateResult:
            return validate(
                model,
                device=settings.device,
                reference=None if model == reference else reference,
                data=settings.data,
                latency_ms=limit_ms,
                threads=self.threads,
                workspace=self.workspace,
            )

        inputs = {**self.common, **self.on_device, "model": file_sha256(model), "latency_ms": limit_ms}
        return self.folder.stage(stage, ValidateResult, work, inputs=inputs)

    def _bundled(
        self, best: Candidate, quantized: QuantizeResult, validated: dict[str, ValidateResult]
    ) -> None:
        settings = self.settings
        report(self.folder.path, workspace=self.workspace)
        write_bundle(
            self.folder.path,
            name=settings.name,
            model=self.work / MODEL,
            fp32_model=self.work / FP32_MODEL,
            int8_model=self.work / Path(quantized.int8_output).name if quantized.int8_output else None,
            validated=validated,
            scheme=quantized.scheme,
            limits={"latency_ms": settings.latency_ms},
            preprocessing=input_preprocessing(self.dataset, self.space, best.candidate),
            labels=self.dataset.class_names,
            space=settings.space,
            candidate=best.candidate,
            seeds={"seed": settings.seed},
            data={"name": self.dataset.name, "sha256": self.dataset.sha256},
        )

    def _summary(
        self,
        best: Candidate,
        quantized: QuantizeResult,
        validated: dict[str, ValidateResult],
        elapsed_s: float,
    ) -> RunResult:
        winner, fp32 = validated[MODEL], validated[FP32_MODEL]
        manifest = read_manifest(self.folder.path)
        return RunResult(
            name=self.settings.name,
            folder=str(self.folder.path),
            device=self.settings.device,
            space=self.settings.space,
            latency_limit_ms=self.settings.latency_ms,
            verdict=winner.verdict,
            scheme=quantized.scheme,
            latency_ms=winner.latency_ms,
            accuracy=winner.accuracy,
            fp32_accuracy=fp32.accuracy,
            size_bytes=winner.size_bytes,
            fp32_size_bytes=fp32.size_bytes,
            candidate=best.candidate,
            files=(*manifest.files, describe_file(self.folder.path / MANIFEST)),
            elapsed_s=elapsed_s,
            virtual_clock=winner.virtual_clock,
        )


def _supernet(result: TrainResult) -> tuple[str, ...]:
    del result
    return (f"work/{SUPERNET}",)


def _float_model(result: TrainResult) -> tuple[str, ...]:
    del result
    return (f"work/{FP32_MODEL}",)


def _quantized_models(result: QuantizeResult) -> tuple[str, ...]:
    """By name: a run's folder may be moved between two of its stages."""
    names = [MODEL, *([Path(result.int8_output).name] if result.int8_output else [])]
    return tuple(f"work/{name}" for name in dict.fromkeys(names))


def _nearest(error: BudgetNotMetError) -> SearchResult:
    """What to go on with where every finalist missed the limit by measurement: the fastest of them.

    Raises:
        BudgetNotMetError: nothing was measured.
    """
    found = error.result
    measured = (
        [c for c in found.evaluated if c.latency_source == "measured"]
        if isinstance(found, SearchResult)
        else []
    )
    if not measured or not isinstance(found, SearchResult):
        raise error
    warn(f"{error.message}; going on with the fastest of them")
    return msgspec.structs.replace(found, best=min(measured, key=lambda c: max(c.latency_ms.values())))


def _highest(found: SearchResult) -> Candidate:
    """The candidate that the supernet scored highest, whatever it takes on the device."""
    return max(found.evaluated, key=lambda candidate: candidate.accuracy)
