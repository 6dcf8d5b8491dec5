"""From many schemes to one: exploration, finalists scored on unseen samples, last interleaved passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgenas.progress import Task, track
from edgenas.quantization.decision import (
    SAME_LATENCY,
    Judged,
    LatencyRatio,
    Limits,
    Verdict,
    decide,
)
from edgenas.quantization.engines import half_schemes
from edgenas.quantization.exploration import Candidate, Explorer
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.judging import Judge
from edgenas.quantization.outputs import OutputScore
from edgenas.quantization.placement import why_float
from edgenas.quantization.prospects import Prospects
from edgenas.quantization.samples import spread
from edgenas.quantization.schemes import QuantizationScheme, replaced
from edgenas.records import FloatOperators, LayerSensitivity

FINALISTS = 5
SELECTION_SECONDS = 30.0  # of device time for each finalist
FEWEST_SELECTING = 32
STEPS = 26  # trials of an exploration, for the progress bar


@dataclass
class Outcome:
    """What the tournament found.

    Attributes:
        candidates: everything that was tried, in order.
        scores: of the finalists on the selection samples, by scheme name.
        verdict: who won and why the others did not.
    """

    candidates: list[Candidate]
    judged: dict[str, Judged]
    scores: dict[str, OutputScore]
    verdict: Verdict
    float_latency_ms: float
    float_accuracy: float | None
    selection_samples: int
    max_drop: float
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    sensitivity: tuple[LayerSensitivity, ...] = ()
    stayed_float: tuple[FloatOperators, ...] = ()


class Tournament:
    """Runs the exploration of one model on one device.

    Args:
        selection: samples that no candidate was calibrated with.
        others: schemes of other engines that compete.
    """

    def __init__(
        self, explorer: Explorer, selection: Inputs, max_drop: float, latency_ms: float | None,
        others: Sequence[QuantizationScheme] = (),
    ) -> None:  # fmt: skip
        self._explorer = explorer
        self._selection = selection
        self._max_drop = max_drop
        self._latency_ms = latency_ms
        self._others = others
        self._warnings: list[str] = []

    def run(self, start_float_layers: Sequence[str]) -> Outcome:
        """Explores, scores the finalists, and decides."""
        self._explorer.measure_float()
        with track("Trying schemes", total=STEPS) as task:
            self._explore(start_float_layers, task)
        finalists = self._finalists()
        selection = self._affordable()
        with track("Scoring finalists", total=len(finalists)) as task:
            scores = self._scores(finalists, selection, task)
        scored = [c for c in finalists if c.name in scores]
        ratios, unsteady = self._explorer.contest(scored)
        self._warnings += [unsteady] if unsteady is not None else []
        return self._outcome([c for c in scored if c.name in ratios], scores, selection, ratios)

    def _explore(self, start_float_layers: Sequence[str], task: Task) -> None:
        half = half_schemes(self._explorer.scorer.agent.environment)
        others = [*self._others, *(scheme for scheme in half if scheme not in self._others)]
        tried = self._explorer.types(task, start_float_layers, others)
        self._warnings += self._explorer.saturation(tried)
        prospects = self._prospects()
        for base in self._explorer.bases(tried):
            self._explorer.mix(self._explorer.refine(base, task), prospects, task)

    def _prospects(self) -> Prospects:
        judge = Judge(self._explorer.scorer.baseline(self._explorer.screening), None)
        limits = Limits(self._max_drop, self._explorer.float_latency_ms, self._latency_ms, judge.unit)
        return Prospects(judge, limits)

    def _finalists(self) -> list[Candidate]:
        """Those that none beats in both distance and latency, and the nearest that is integer throughout.

        Schemes with the same kernels have the same latency here; the nearest stands for them. Of a long
        front the most promising go on, and some spread over the rest.
        """
        usable = [
            c for c in self._explorer.candidates.values() if c.error is None and c.latency_ms is not None
        ]
        front = [c for c in usable if not any(_beats(other, c) for other in usable)]
        if len(front) > FINALISTS:
            front = _thinned(front, self._prospects())
        complete = min(
            (c for c in usable if c.scheme.is_integer and not c.scheme.float_layers),
            key=lambda c: c.distance,
            default=None,
        )
        return front if complete is None or complete in front else [*front, complete]

    def _affordable(self) -> Inputs:
        """As many selection samples as the time for a finalist allows."""
        count = int(1e3 * SELECTION_SECONDS / max(self._explorer.float_latency_ms, 1e-3))
        if count >= len(self._selection):
            return self._selection
        return spread(self._selection, max(count, FEWEST_SELECTING), 0)[0]

    def _scores(
        self, finalists: Sequence[Candidate], selection: Inputs, task: Task
    ) -> dict[str, OutputScore]:
        scores = {}
        for candidate in finalists:
            answer = self._explorer.scorer.score(candidate.path, selection, name=f"select {candidate.name}")
            candidate.error = answer.error
            if answer.score is not None:
                scores[candidate.name] = answer.score
            task.advance(note=candidate.name)
        return scores

    def _outcome(
        self,
        finalists: Sequence[Candidate],
        scores: dict[str, OutputScore],
        selection: Inputs,
        ratios: dict[str, LatencyRatio],
    ) -> Outcome:
        judge = Judge(self._explorer.scorer.baseline(selection), selection.labels)
        judged = {c.name: self._judged(c, judge, scores[c.name], ratios[c.name]) for c in finalists}
        float_ms, quality = self._explorer.float_latency_ms, judge.float_quality
        limits = Limits(self._max_drop, float_ms, self._latency_ms, judge.unit)
        verdict = decide(list(judged.values()), limits, float_accuracy=quality)
        self._warnings += judge.doubts()
        paired = judge.paired(scores[verdict.winner]) if verdict.winner is not None else None
        return Outcome(
            list(self._explorer.candidates.values()), judged, scores, verdict, float_ms, quality,
            len(selection), self._max_drop, self._warnings, [paired] if paired is not None else [],
            *self._explained(verdict.best_int8),
        )  # fmt: skip

    def _explained(self, best: str | None) -> tuple[tuple[LayerSensitivity, ...], tuple[FloatOperators, ...]]:
        """What each part of the best int8 model costs, and which operators of it are float and why."""
        if best is None:
            return (), ()
        scheme = self._explorer.candidates[best].scheme
        if not scheme.is_own:
            return (), ()
        integer = self._explorer.quantizer.placement(scheme).integer
        sensitivity = tuple(
            replaced(found, integer=any(name in integer for name in segment.nodes))
            for segment, found in self._explorer.sensitivity.items()
        )
        return sensitivity, tuple(why_float(self._explorer.quantizer.graph, scheme))

    def _judged(self, candidate: Candidate, judge: Judge, score: OutputScore, ratio: LatencyRatio) -> Judged:
        assert candidate.latency_ms is not None, "failed candidates were left out"
        integer = candidate.scheme.is_integer
        kernels = self._explorer.integer_kernels(candidate) if integer else None
        return Judged(
            candidate.name, candidate.latency_ms, judge.quality(score), score.distance, judge.drop(score),
            ratio, kernels, integer,
        )  # fmt: skip


def _thinned(front: Sequence[Candidate], prospects: Prospects) -> list[Candidate]:
    """``FINALISTS`` of them, fastest first."""

    def rank(candidate: Candidate) -> tuple[float, float]:
        assert candidate.screened is not None, "only screened ones are on the front"
        return prospects.of(candidate.latency_ms or 0.0, candidate.screened)

    by_latency = sorted(front, key=lambda c: c.latency_ms or 0.0)
    promising = sorted(by_latency, key=rank)[: (FINALISTS + 1) // 2]
    others = [c for c in by_latency if c not in promising]
    spread_over = np.linspace(0, len(others) - 1, FINALISTS - len(promising)).round().astype(int)
    chosen = [*promising, *(others[i] for i in np.unique(spread_over))]
    return sorted(chosen, key=lambda c: c.latency_ms or 0.0)


def _beats(one: Candidate, other: Candidate) -> bool:
    """Nearer to float at what is the same latency or less."""
    assert one.latency_ms is not None and other.latency_ms is not None, "only measured ones compete"
    return one.distance < other.distance and one.latency_ms <= SAME_LATENCY * other.latency_ms
