"""What a candidate promises by its screening, in the same terms in which the winner is chosen."""

from __future__ import annotations

from edgenas.quantization.decision import Limits
from edgenas.quantization.judging import Judge
from edgenas.quantization.outputs import OutputScore

Rank = tuple[float, float]


class Prospects:
    """Ranks candidates and mixtures that are not built yet; the lowest rank promises most.

    Args:
        judge: of the screening samples. It has no labels: they are too few to count right answers.
        limits: what the winner must keep to.
    """

    def __init__(self, judge: Judge, limits: Limits) -> None:
        self._judge, self._limits = judge, limits

    def of(self, latency_ms: float, score: OutputScore) -> Rank:
        """How far beyond the limits, then what latency and loss are worth."""
        return self._rank(latency_ms, self._judge.drop(score))

    def of_mixture(self, latency_ms: float, whole: OutputScore, share: float) -> Rank:
        """Of a mixture that keeps ``share`` of the squared error of the model that is ``whole`` integers.

        Classes change in proportion to the error's size, not to its square.
        """
        kept = share if self._limits.unit == "outputs" else share**0.5
        return self._rank(latency_ms, self._judge.drop(whole) * kept)

    def _rank(self, latency_ms: float, drop: float) -> Rank:
        return self._limits.excess(latency_ms, drop), self._limits.cost(latency_ms, drop)
