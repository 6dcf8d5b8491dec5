"""Looks for good schemes with few measurements: types first, then how their numbers are found.

Types and granularity decide which kernels the device runs, so they are measured for latency and
output distance. Calibration and corrections leave the kernels alone, so only the distance is
looked at, one improvement after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgenas.errors import MeasurementError, ModelError
from edgenas.progress import Task, warn
from edgenas.quantization.contest import Contest
from edgenas.quantization.decision import LatencyRatio
from edgenas.quantization.device_scoring import Scorer, latency_of
from edgenas.quantization.exactness import SAMPLES, defined_distance, named
from edgenas.quantization.graph import Graph
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.kernel_costs import on_integers, segment_costs
from edgenas.quantization.knapsack import Assignment, assignments, chosen, priced
from edgenas.quantization.outputs import OutputScore
from edgenas.quantization.packing import model_bytes, write_model
from edgenas.quantization.placement import GATES, WEIGHTED
from edgenas.quantization.prospects import Prospects
from edgenas.quantization.quantizer import Quantizer
from edgenas.quantization.samples import spread
from edgenas.quantization.schemes import (
    CALIBRATIONS,
    QuantizationScheme,
    first_schemes,
    replaced,
    with_float_layers,
)
from edgenas.quantization.segments import Segment, segments_of
from edgenas.quantization.sensitivity import squared_errors
from edgenas.quantization.trials import key_of
from edgenas.records import KernelTrace, LayerSensitivity

FLOAT_ROUNDS = 4
SCREENING_SECONDS = 2.0  # of the float model's time, for each candidate
FEWEST_SCREENING = 12
SCREENING_ROUNDS = 12
AS_FAST = 1.10  # schemes within this factor of the fastest compete by output distance alone
MUCH_NEARER = 0.6  # a slower scheme is looked at further where its distance is below this factor
WORTH_IT = 0.98  # a correction must bring outputs this much nearer
SATURATION_SECONDS = 0.2  # of the float model's time, for each integer type
FEWEST_SATURATION = 2  # samples
SENSITIVITY_SECONDS = 20.0  # of the float model's time, for all segments
FEWEST_SENSITIVE, MOST_SENSITIVE = 4, 24  # samples
FEWEST_SEGMENTS = 3
MIXTURES = 6
ATTENTION = frozenset({"Softmax", "LayerNormalization", "Erf", "Gelu"})
"""What transformers have: sums there carry outliers that 8 bits do not hold."""
FORMAT = 3  # of what a candidate's bytes depend on beside scheme and inputs; raised when code changes them


@dataclass
class Candidate:
    """A scheme, the file it was written to, and what is known about it.

    Attributes:
        screened: its outputs on the screening samples; None where it failed.
        latency_ms: measured; of the scheme with the same kernels where ``inherited``.
        defined_distance: its distance where every operator is computed as defined; None: not looked at.
        error: what the device or the quantizer said where it failed.
    """

    scheme: QuantizationScheme
    path: Path
    screened: OutputScore | None = None
    latency_ms: float | None = None
    error: str | None = None
    defined_distance: float | None = None

    @property
    def name(self) -> str:
        return self.scheme.name

    @property
    def distance(self) -> float:
        return float("inf") if self.screened is None else self.screened.distance

    @property
    def screened_distance(self) -> float | None:
        return None if self.screened is None else self.screened.distance

    @property
    def size_bytes(self) -> int:
        return model_bytes(self.path) if self.path.is_file() else 0


class Explorer:
    """Builds, screens and remembers candidates.

    Args:
        folder: where candidates are written; those already there are not built again.
        screening: few samples for output distances.
    """

    def __init__(self, quantizer: Quantizer, scorer: Scorer, screening: Inputs, folder: Path) -> None:
        self.quantizer, self.scorer, self.screening, self.folder = quantizer, scorer, screening, folder
        self.candidates: dict[str, Candidate] = {}
        self.float_latency_ms = math.nan
        self.fastest_float_ms = math.inf  # beside candidates: alone it has the caches for itself
        self.sensitivity: dict[Segment, LayerSensitivity] = {}  # of the last scheme that was mixed

    def measure_float(self) -> None:
        """How long float takes decides how many samples the exploration can afford.

        Raises:
            ModelError: the device cannot run the float model.
        """
        self.measure([], "float", rounds=FLOAT_ROUNDS)
        count = int(1e3 * SCREENING_SECONDS / self.float_latency_ms)
        if count < len(self.screening):
            self.screening = spread(self.screening, max(count, FEWEST_SCREENING), 0)[0]

    def types(
        self, task: Task, float_layers: Sequence[str] = (), others: Sequence[QuantizationScheme] = ()
    ) -> list[Candidate]:
        """Measures the integer types, other engines', and with ``float_layers`` the search's proposal."""
        schemes = [*first_schemes(), *others]
        if any(node.op_type in GATES for node in self.quantizer.graph.nodes):
            schemes.append(replaced(schemes[0], integer_gates=False))
        if any(node.op_type in ATTENTION for node in self.quantizer.graph.nodes):
            schemes.append(replaced(schemes[0], integer_sums=False))
        if float_layers:
            schemes.append(replaced(schemes[0], float_layers=tuple(float_layers), label="searched"))
        candidates = []
        for scheme in schemes:
            candidates.append(self.screen(scheme))
            task.advance(note=scheme.name)
        self.measure([c for c in candidates if c.error is None], "types")
        return candidates

    def saturation(self, candidates: Sequence[Candidate]) -> list[str]:
        """Sentences about types whose kernels here compute something else than the operators mean."""
        affordable = int(1e3 * SATURATION_SECONDS / self.float_latency_ms)
        count = min(max(affordable, FEWEST_SATURATION), SAMPLES, len(self.screening))
        few, found = self.screening.subset(np.arange(count)), []
        for candidate in candidates:
            if candidate.screened is None or not candidate.scheme.is_own or candidate.scheme.float_layers:
                continue
            here = self.scorer.score(candidate.path, few, name=f"exactness of {candidate.name}").score
            if here is None:
                continue
            meant = defined_distance(self.quantizer.original, candidate.path, few)
            candidate.defined_distance = meant
            granularity = "per channel" if candidate.scheme.per_channel else "per tensor"
            what = f"{candidate.scheme.types} {granularity}"
            sentence = named(what, here.distance, meant, self.scorer.agent.environment)
            found += [sentence] if sentence is not None else []
        return found

    def screen(self, scheme: QuantizationScheme, latency_ms: float | None = None) -> Candidate:
        """Builds a candidate and compares its outputs on the device; once for each scheme."""
        if scheme.name in self.candidates:
            return self.candidates[scheme.name]
        candidate = Candidate(scheme, self._path(scheme), latency_ms=latency_ms)
        self.candidates[scheme.name] = candidate
        try:
            if scheme.is_own and not self.quantizer.placement(scheme).integer:
                raise ModelError("it leaves every operator of this model in float")
            self._build(candidate)
        except ModelError as error:
            candidate.error = error.message
            return candidate
        answer = self.scorer.score(candidate.path, self.screening, name=f"screen {scheme.name}")
        candidate.screened, candidate.error = answer.score, answer.error
        return candidate

    def measure(self, candidates: Sequence[Candidate], purpose: str, rounds: int = SCREENING_ROUNDS) -> None:
        """Measures candidates beside the float model, in interleaved rounds.

        Between batches the device may have become faster or slower; what is kept is how a candidate
        compares with the float model of its own batch, in the milliseconds of the first.
        """
        paths = [self.scorer.float_model, *(c.path for c in candidates)]
        measured = self.scorer.latencies(paths, purpose=purpose, rounds=rounds)
        float_ms = latency_of(measured[0])
        if float_ms is None:
            raise ModelError(f"the device cannot run the float model: {measured[0].error}")
        if math.isnan(self.float_latency_ms):
            self.float_latency_ms = float_ms
        if candidates:
            self.fastest_float_ms = min(self.fastest_float_ms, float_ms)
        for candidate, latency in zip(candidates, measured[1:], strict=True):
            here_ms, candidate.error = latency_of(latency), latency.error
            candidate.latency_ms = None if here_ms is None else here_ms * self.float_latency_ms / float_ms

    def contest(self, candidates: Sequence[Candidate]) -> tuple[dict[str, LatencyRatio], str | None]:
        """Measures candidates beside float until it is plain which are faster.

        Returns:
            Each candidate's latency over float's by its name, none for those that failed; and a
            sentence where the device was not steady.
        """
        contest = Contest(self.scorer, [c.path for c in candidates], self.fastest_float_ms)
        contest.run()
        if contest.float_latency_ms is None:
            raise ModelError(f"the device cannot run the float model: {contest.float_error()}")
        self._rescale(contest.float_latency_ms)
        ratios = {}
        for position, candidate in enumerate(candidates):
            candidate.latency_ms, candidate.error = contest.latency_ms(position), contest.error(position)
            ratio = contest.ratio(position)
            if ratio is not None:
                ratios[candidate.name] = ratio
        return ratios, contest.unsteady

    def _rescale(self, float_ms: float) -> None:
        """Puts what was measured earlier into the milliseconds of the final passes."""
        for candidate in self.candidates.values():
            if candidate.latency_ms is not None:
                candidate.latency_ms *= float_ms / self.float_latency_ms
        self.float_latency_ms = float_ms

    def integer_kernels(self, candidate: Candidate) -> int | None:
        """How many of its kernels the device runs on 8-bit integers; None where it cannot tell."""
        try:
            kernels = self.scorer.structure(candidate.path).kernels
        except MeasurementError as error:
            warn(f"which kernels of {candidate.name} run on integers is not known: {error.message}")
            return None
        return sum(on_integers(kernel) for kernel in kernels)

    def bases(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The one or two schemes worth refining: nearest among the fast, and a slower, much nearer one."""
        usable = [c for c in candidates if c.error is None and c.latency_ms is not None and c.scheme.is_own]
        if not usable:
            return []
        fastest = min(c.latency_ms or 0.0 for c in usable)
        fast = [c for c in usable if (c.latency_ms or 0.0) <= AS_FAST * fastest]
        first = min(fast, key=lambda c: c.distance)
        nearer = [
            c
            for c in usable
            if c.distance < MUCH_NEARER * first.distance and (c.latency_ms or 0.0) < self.float_latency_ms
        ]
        return [first, *sorted(nearer, key=lambda c: c.latency_ms or 0.0)[:1]]

    def refine(self, base: Candidate, task: Task) -> Candidate:
        """Other calibrations and corrections for the kernels of ``base``, each kept if it comes nearer."""
        best = base
        for calibration in CALIBRATIONS:
            best = self._nearer(best, replaced(base.scheme, calibration=calibration), task)
        best = self._nearer(best, replaced(best.scheme, bias_corrected=True), task)
        if self.quantizer.can_equalize():
            best = self._nearer(best, replaced(best.scheme, equalized=True), task)
        return self._nearer(best, replaced(best.scheme, refined_rounding=True), task)

    def mix(self, base: Candidate, prospects: Prospects, task: Task) -> list[Candidate]:
        """Mixtures of float and the kernels of ``base``, by measured kernel latency and sensitivity.

        Args:
            prospects: says which of the mixtures are worth building.
        """
        graph, scheme = self.quantizer.graph, base.scheme
        segments = segments_of(graph)
        if len(segments) < FEWEST_SEGMENTS:
            return []
        try:
            costs = segment_costs(graph, segments, *self._traces(base))
        except MeasurementError as error:
            warn(f"mixed precision is left out: {error.message}")
            return []
        errors = self._sensitivity(scheme, segments)
        self.sensitivity = {
            segment: _described(graph, segment, *numbers)
            for segment, *numbers in zip(segments, errors, costs.float_ms, costs.int8_ms, strict=True)
        }
        integer = self.quantizer.placement(scheme).integer
        everything = [any(name in integer for name in segment.nodes) for segment in segments]
        rank = _ranking(base, priced(everything, costs, errors), prospects)
        mixtures = []
        for assignment in chosen(assignments(costs, errors), MIXTURES, everything=everything, rank=rank):
            floats = [
                name
                for segment, on_integers in zip(segments, assignment.integer, strict=True)
                for name in ([] if on_integers else segment.nodes)
            ]
            mixtures.append(self.screen(with_float_layers(scheme, floats, "mixed")))
            task.advance(note=mixtures[-1].name)
        self.measure([c for c in mixtures if c.error is None], f"mixtures of {scheme.name}")
        return mixtures

    def _sensitivity(self, scheme: QuantizationScheme, segments: Sequence[Segment]) -> list[float]:
        """Each segment's error, on the device: its kernels may round and saturate as no other's do."""
        affordable = int(1e3 * SENSITIVITY_SECONDS / self.float_latency_ms / len(segments))
        few = spread(self.screening, min(max(affordable, FEWEST_SENSITIVE), MOST_SENSITIVE), 0)[0]
        return squared_errors(self.quantizer, self.scorer, scheme, segments, samples=few, folder=self.folder)

    def _traces(self, base: Candidate) -> tuple[KernelTrace, KernelTrace]:
        """Kernels of the prepared float model and of ``base`` on the device."""
        prepared = self.folder / f"{self.scorer.float_sha256[:16]}-prepared.onnx"
        write_model(self.quantizer.float_model, prepared)
        return self.scorer.trace(prepared), self.scorer.trace(base.path)

    def _nearer(self, best: Candidate, scheme: QuantizationScheme, task: Task) -> Candidate:
        candidate = self.screen(scheme, best.latency_ms)
        task.advance(note=scheme.name)
        return candidate if candidate.distance < WORTH_IT * best.distance else best

    def _path(self, scheme: QuantizationScheme) -> Path:
        made_of = (FORMAT, scheme.to_json(), self.quantizer.inputs.sha256, self.scorer.float_sha256)
        return self.folder / f"{key_of(*made_of)}.onnx"

    def _build(self, candidate: Candidate) -> None:
        if not candidate.path.is_file():
            write_model(self.quantizer.quantize(candidate.scheme), candidate.path)


def _ranking(
    base: Candidate, whole: Assignment, prospects: Prospects
) -> Callable[[Assignment], tuple[float, float]]:
    """Ranks mixtures beside ``base``, which was measured; ``whole`` is what was predicted of it."""
    score, scale = base.screened, (base.latency_ms or 0.0) / max(whole.latency_ms, 1e-9)
    assert score is not None, "a base was screened"

    def rank(assignment: Assignment) -> tuple[float, float]:
        share = assignment.squared_error / max(whole.squared_error, 1e-30)
        return prospects.of_mixture(scale * assignment.latency_ms, score, share)

    return rank


def _described(
    graph: Graph, segment: Segment, error: float, float_ms: float, int8_ms: float
) -> LayerSensitivity:
    members = set(segment.nodes)
    weighted = (n.name for n in graph.nodes if n.name in members and n.op_type in WEIGHTED)
    return LayerSensitivity(
        layer=next(weighted, segment.nodes[0]), operators=len(segment.nodes), squared_error=error,
        float_ms=float_ms, int8_ms=int8_ms, integer=False,
    )  # fmt: skip
