"""Which candidate wins: from measured latency, measured accuracy and output distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, t

from edgenas.quantization.outputs import OutputScore

# Of the samples whose class changes, the share by which wrong changes outnumber right ones for a
# classifier that is mostly right; only its order of magnitude matters, because the labels correct it.
LOSS_PER_FLIP = 0.4
# The factor in speed that the loss of all of max_drop must bring: what 8-bit lanes promise beside float's.
WORTH_OF_MAX_DROP = 4.0
WITHIN_LIMIT = 0.1  # weight of speed where a latency limit is met anyway
SMALLEST_DROP = 1e-3
SAME_LATENCY = 1.02  # latencies within this factor are one: no device repeats itself better
TRIMMED = 0.2  # of the passes on either side
Unit = Literal["accuracy", "outputs", "metric"]
CONFIDENCE = 0.95  # that no candidate is called faster than float which is not


@dataclass(frozen=True)
class LatencyRatio:
    """A candidate's latency over float's, with its interval."""

    ratio: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether more passes could not change which is faster, or only by less than matters."""
        return not self.low <= 1.0 <= self.high or self.high / self.low <= SAME_LATENCY**2


def latency_ratio(
    float_passes: Sequence[Sequence[float]], passes: Sequence[Sequence[float]], *, comparisons: int
) -> LatencyRatio:
    """The ratio from interleaved rounds of several passes.

    A pass loads its sessions afresh, because where their memory lies can be worth a percent; so the
    passes are what is drawn independently, and the interval is Student's over their medians, the
    outermost fifth of which is trimmed: another process that wakes up spoils a pass, not the verdict.
    Several candidates are compared with one float model, perhaps several times: each interval is as
    much wider (Bonferroni).

    Args:
        float_passes: per pass the float model's latency of each round in ms; ``passes`` likewise, in
            the same rounds.
        comparisons: how many candidates are compared, times how often one looks.

    Source: Yuen, The two-sample trimmed t for unequal population variances (1974).
    """
    logs = np.sort(
        [
            float(np.median(np.log(np.divide(mine[: len(base)], base[: len(mine)]))))
            for base, mine in zip(float_passes, passes, strict=True)
        ]
    )
    count, cut = len(logs), int(TRIMMED * len(logs))
    kept = logs[cut : count - cut]
    center = float(np.mean(kept))
    deviation = float(np.std(np.clip(logs, kept[0], kept[-1]), ddof=1)) * count / len(kept)
    tail = (1.0 - CONFIDENCE) / 2.0 / max(comparisons, 1)
    halfwidth = float(t.ppf(1.0 - tail, len(kept) - 1)) * deviation / math.sqrt(count)
    return LatencyRatio(math.exp(center), math.exp(center - halfwidth), math.exp(center + halfwidth))


@dataclass(frozen=True)
class Judged:
    """What is known about a candidate when the decision is made.

    Attributes:
        accuracy: on the selection samples, or the metric's mean; None without labels and metric.
        estimated_drop: expected loss in the unit of the limits, see ``estimated_drop``.
        against_float: its latency over float's.
        integer_kernels: how many kernels the device runs on 8-bit integers; None where it cannot tell.
        integer: whether it is int8; 16-bit floats compete with it.
    """

    name: str
    latency_ms: float
    accuracy: float | None
    distance: float
    estimated_drop: float
    against_float: LatencyRatio
    integer_kernels: int | None = None
    integer: bool = True

    @property
    def idle(self) -> bool:
        """Whether it is int8 and the device runs none of it on integers."""
        return self.integer and self.integer_kernels == 0

    @property
    def pays(self) -> bool:
        """Whether it does what it is for and is faster than float beyond doubt."""
        return not self.idle and self.against_float.high < 1.0


@dataclass(frozen=True)
class Limits:
    """What the winner must keep to; ``latency_ms`` None means no slower than float.

    Attributes:
        unit: of ``max_drop`` and the estimated drops: ratios of accuracy, the outputs' energy that is
            error (models without classes), or what the user's metric counts in.
    """

    max_drop: float
    float_latency_ms: float
    latency_ms: float | None = None
    unit: Unit = "accuracy"

    def shown(self, drop: float) -> str:
        """A drop for people."""
        if self.unit == "metric":
            return f"{drop:.4g} of the metric"
        what = "points" if self.unit == "accuracy" else "% of the outputs' energy"
        return f"{100 * drop:.2f} {what}"

    @property
    def allowed_ms(self) -> float:
        return self.float_latency_ms if self.latency_ms is None else self.latency_ms

    def cost(self, latency_ms: float, drop: float) -> float:
        """What a latency and a loss of accuracy together are worth, in logarithms of latency."""
        weight = 1.0 if self.latency_ms is None else WITHIN_LIMIT
        lost = drop / max(self.max_drop, SMALLEST_DROP)
        return weight * math.log(latency_ms) + math.log(WORTH_OF_MAX_DROP) * lost

    def excess(self, latency_ms: float, drop: float) -> float:
        """How far beyond the limits they are, in multiples of the limits; 0 within."""
        slow = max(0.0, math.log(latency_ms / self.allowed_ms))
        return slow + max(0.0, drop / max(self.max_drop, 1e-6) - 1.0)


@dataclass(frozen=True)
class Verdict:
    """The winner's name (None: float) and a sentence about every candidate."""

    winner: str | None
    best_int8: str | None
    reasons: dict[str, str]


def estimated_drop(
    score: OutputScore, reference: Sequence[int], labels: npt.NDArray[np.int64] | None
) -> float:
    """Expected drop of accuracy against the reference.

    The paired difference on the labels is unbiased but noisy where samples are few; what the output
    distance lets expect is steady but biased. Each weighs by the inverse of its variance. A model
    without classes loses what the energy of its outputs' error is of the outputs' own.
    """
    expected = LOSS_PER_FLIP * score.flips
    if not score.predictions:
        return score.squared_error
    if labels is None:
        return expected
    lost, won = changes(score.predictions, reference, labels)
    count = len(labels)
    observed = (lost - won) / count
    variance = (lost + won + 1.0) / count**2
    prior_variance = max(expected, 1e-4) ** 2
    weight = prior_variance / (prior_variance + variance)
    return float(weight * observed + (1.0 - weight) * expected)


def changes(
    predictions: Sequence[int], reference: Sequence[int], labels: npt.NDArray[np.int64]
) -> tuple[int, int]:
    """How many samples the candidate alone gets wrong, and how many it alone gets right."""
    mine, theirs = np.asarray(predictions) == labels, np.asarray(reference) == labels
    return int(np.sum(theirs & ~mine)), int(np.sum(mine & ~theirs))


def paired_p_value(lost: int, won: int) -> float:
    """Exact McNemar test: chance of a difference at least this large between equal models."""
    return float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0


def decide(candidates: Sequence[Judged], limits: Limits, *, float_accuracy: float | None) -> Verdict:
    """Of those within both limits the best bargain. None wins that is not faster than float beyond
    doubt, or that has no kernel which runs on integers.

    Using up all of ``max_drop`` must pay with four times the speed, half of it with twice. Where a
    latency limit is given, what is faster than it counts for little more and accuracy for the rest.
    Where no candidate is within the limits float wins, but for a latency limit that float misses, too:
    then the fastest accurate one does. The best int8 is otherwise the one nearest to the limits.
    """
    reasons = {c.name: _why_out(c, limits) for c in candidates}
    allowed = [c for c in candidates if not reasons[c.name]]
    winner = _cheapest(allowed, limits) or _fastest_accurate(candidates, limits)
    for candidate in allowed:
        assert winner is not None, "one of the allowed wins"
        reasons[candidate.name] = _why_lost(candidate, winner, limits)
    if winner is not None and winner in allowed:
        reasons[winner.name] = _why_won(winner, limits, float_accuracy)
    best = _best_int8([c for c in candidates if c.integer], allowed, winner, limits)
    return Verdict(None if winner is None else winner.name, None if best is None else best.name, reasons)


def _cheapest(allowed: Sequence[Judged], limits: Limits) -> Judged | None:
    return min(allowed, key=lambda c: limits.cost(c.latency_ms, c.estimated_drop), default=None)


def _best_int8(
    integers: Sequence[Judged], allowed: Sequence[Judged], winner: Judged | None, limits: Limits
) -> Judged | None:
    """The winner if it is int8; else the best of those within the limits; else the nearest to them."""
    if winner in integers:
        return winner
    nearest = min(integers, key=lambda c: limits.excess(c.latency_ms, c.estimated_drop), default=None)
    return _cheapest([c for c in integers if c in allowed], limits) or nearest


def _fastest_accurate(candidates: Sequence[Judged], limits: Limits) -> Judged | None:
    """What comes nearest to a latency limit that nothing meets."""
    if limits.latency_ms is None or limits.float_latency_ms <= limits.latency_ms:
        return None
    accurate = [c for c in candidates if c.estimated_drop <= limits.max_drop]
    faster = [c for c in accurate if c.pays]
    return min(faster, key=lambda c: c.latency_ms, default=None)


def _why_out(candidate: Judged, limits: Limits) -> str:
    if candidate.idle:
        return "no kernel of it runs on integers on this device"
    if candidate.latency_ms > limits.allowed_ms:
        what = "float's" if limits.latency_ms is None else "the limit of"
        return f"slower: {candidate.latency_ms:.3g} ms, {what} {limits.allowed_ms:.3g} ms"
    if candidate.estimated_drop > limits.max_drop:
        lost, most = limits.shown(candidate.estimated_drop), limits.shown(limits.max_drop)
        return f"expected to lose {lost}, more than {most}"
    if not candidate.pays:
        found = candidate.against_float
        what = "slower than float" if found.low > 1.0 else "not faster than float beyond doubt"
        return f"{what}: {found.ratio:.3f}x its latency ({found.low:.3f} to {found.high:.3f})"
    return ""


def _why_lost(candidate: Judged, winner: Judged, limits: Limits) -> str:
    return (
        f"{candidate.latency_ms / winner.latency_ms:.2f}x the winner's latency, expected to lose "
        f"{limits.shown(candidate.estimated_drop)}, the winner {limits.shown(winner.estimated_drop)}"
    )


def _why_won(winner: Judged, limits: Limits, float_accuracy: float | None) -> str:
    speed = limits.float_latency_ms / winner.latency_ms
    known = (
        ""
        if float_accuracy is None or winner.accuracy is None
        else (f", {limits.unit} {winner.accuracy:.4f} against {float_accuracy:.4f}")
    )
    return f"{speed:.2f}x as fast as float{known}, expected to lose {limits.shown(winner.estimated_drop)}"
