"""How good a candidate is beside float on the same samples: by labels, by a metric, or by its outputs."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, ttest_1samp

from edgenas.quantization.decision import Unit, changes, estimated_drop, paired_p_value
from edgenas.quantization.device_scoring import Baseline
from edgenas.quantization.outputs import OutputScore

FEWEST_TO_DOUBT = 16
SURELY_BETTER = 0.01  # chance that guessing would be right as often
CHECK = "check --mean, --std, --scale, --channels and the labels' order"
Labels: TypeAlias = npt.NDArray[np.int64] | None


class Judge:
    """Compares scores with the float model's on the selection samples.

    Args:
        baseline: the float model's classes and ratings.
        labels: of the samples; they count where the model has classes.
    """

    def __init__(self, baseline: Baseline, labels: Labels) -> None:
        self._baseline = baseline
        self._labels = labels if baseline.classes else None

    @property
    def unit(self) -> Unit:
        """What drops are counted in."""
        if self._baseline.ratings:
            return "metric"
        return "accuracy" if self._baseline.classes else "outputs"

    @property
    def float_quality(self) -> float | None:
        """The float model's accuracy or mean rating; None without labels and metric."""
        return self._quality(self._baseline.classes, self._baseline.ratings)

    def quality(self, score: OutputScore) -> float | None:
        """A candidate's accuracy or mean rating."""
        return self._quality(score.predictions, score.ratings)

    def drop(self, score: OutputScore) -> float:
        """The expected loss, in ``unit``."""
        if self._baseline.ratings:
            return float(np.mean(self._baseline.ratings) - np.mean(score.ratings))
        return estimated_drop(score, self._baseline.classes, self._labels)

    def paired(self, score: OutputScore) -> str | None:
        """What a paired test on the samples says, in a sentence."""
        if self._baseline.ratings:
            differences = np.subtract(score.ratings, self._baseline.ratings)
            p_value = float(ttest_1samp(differences, 0.0).pvalue) if differences.any() else 1.0
            mean, count = differences.mean(), len(differences)
            return f"paired on {count} selection samples: {mean:+.4g} (p = {p_value:.2g})"
        if self._labels is None:
            return None
        lost, won = changes(score.predictions, self._baseline.classes, self._labels)
        p_value = paired_p_value(lost, won)
        return f"paired on {len(self._labels)} selection images: {lost} lost, {won} won (p = {p_value:.2g})"

    def doubts(self) -> list[str]:
        """What the float model's own answers say against the preprocessing, in sentences."""
        return doubts_of(self._baseline.classes, self._labels, "the float model")

    def _quality(self, classes: tuple[int, ...], ratings: tuple[float, ...]) -> float | None:
        if ratings:
            return float(np.mean(ratings))
        return None if self._labels is None else float(np.mean(np.array(classes) == self._labels))


def doubts_of(predictions: tuple[int, ...], labels: Labels, model: str) -> list[str]:
    """What a model's answers say against the preprocessing, in sentences.

    Args:
        predictions: a class for each sample; none of a model without classes.
        labels: the true classes, where they are known.
        model: how the sentences call the model.
    """
    classes = np.array(predictions)
    if len(classes) < FEWEST_TO_DOUBT:
        return []
    if labels is None:
        same = len(np.unique(classes)) == 1
        return [f"{model} gives all {len(classes)} samples one class; {CHECK}"] if same else []
    if len(np.unique(labels)) == 1:
        return []
    guessed = float(np.bincount(labels).max() / len(classes))
    right = int(np.sum(classes == labels))
    # Where nearly all samples are of one class, chance explains even a model without an error.
    if right / len(classes) >= (1.0 + guessed) / 2.0:
        return []
    if binomtest(right, len(classes), guessed, alternative="greater").pvalue < SURELY_BETTER:
        return []
    return [f"{model} is right on {right} of {len(classes)} samples, no better than a guess; {CHECK}"]
