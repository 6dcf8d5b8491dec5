"""How well a table predicts: networks that were held out, and leaving networks out one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.observations import MeasuredNetwork, Observations
from edgenas.latency_tables.predictor import Estimate, LatencyPredictor
from edgenas.records import PredictionError

Array = NDArray[np.float64]


def share_within(predicted: Array, measured: Array, tolerance: float) -> float:
    """Share of networks whose prediction is within ``tolerance`` (0..1) of the measurement."""
    return float(np.mean(np.abs(predicted / measured - 1.0) <= tolerance))


def rmspe(predicted: Array, measured: Array) -> float:
    """Root mean square of the relative errors, 0..1."""
    return float(np.sqrt(np.mean((predicted / measured - 1.0) ** 2)))


def spearman(left: Array, right: Array) -> float:
    """Spearman's rank correlation; nan below two networks."""
    from scipy.stats import spearmanr

    return float(spearmanr(left, right).statistic) if len(left) > 1 else float("nan")


def kendall(left: Array, right: Array) -> float:
    """Kendall's tau-b; nan below two networks."""
    from scipy.stats import kendalltau

    return float(kendalltau(left, right).statistic) if len(left) > 1 else float("nan")


def summarise(found: Sequence[tuple[MeasuredNetwork, Estimate]]) -> PredictionError | None:
    """The error of estimates beside what was measured; None without any."""
    if not found:
        return None
    predicted = np.array([estimate.latency_ms for _, estimate in found])
    intervals = np.array([one.interval_ms for _, one in found])
    return error_of([network for network, _ in found], predicted, intervals)


def error_of(networks: Sequence[MeasuredNetwork], predicted: Array, intervals: Array) -> PredictionError:
    """The error of predictions (N,) in ms with intervals (N, 2) beside what was measured."""
    measured = np.array([network.latency_ms for network in networks])
    low, high = intervals.T
    first, second = np.array([network.halves_ms() for network in networks]).T
    return PredictionError(
        networks=len(networks),
        within_5=share_within(predicted, measured, 0.05),
        within_10=share_within(predicted, measured, 0.10),
        rmspe=rmspe(predicted, measured),
        spearman=rank if math.isfinite(rank := spearman(predicted, measured)) else None,
        interval_coverage=float(np.mean((low <= measured) & (measured <= high))),
        repeat_within_5=share_within(first, second, 0.05),
        repeat_within_10=share_within(first, second, 0.10),
    )


def held_out_error(
    predictor: LatencyPredictor, networks: Sequence[MeasuredNetwork]
) -> PredictionError | None:
    """The error on networks that the predictor was not fitted to; unpriceable ones are left out."""
    return summarise(list(predictor.estimates(networks)))


def cross_validated(
    observations: Observations, networks: Sequence[MeasuredNetwork], *, folds: int = 10
) -> list[tuple[MeasuredNetwork, Estimate]]:
    """Estimates of every network by predictors that saw neither its latency nor its trace.

    ``folds`` equal to the number of networks leaves one out at a time.
    """
    whole = LatencyPredictor.fit_to(observations, networks)
    found: list[tuple[MeasuredNetwork, Estimate]] = []
    for fold in range(min(folds, len(networks))):
        judged = networks[fold::folds]
        names = {network.network.model_sha256 for network in judged}
        kept = [network for network in networks if network.network.model_sha256 not in names]
        fitted = LatencyPredictor.fit_to(observations, kept, left_out=names, like=whole)
        found += fitted.estimates(judged)
    return found


def left_out_rmspe(observations: Observations, judged: Sequence[MeasuredNetwork]) -> float | None:
    """Error of the table alone on ``judged`` networks, each predicted as if it had not been measured.

    All other networks of the table may help. None where the table cannot price all of them so.
    """
    networks = observations.with_role("fit")
    whole = LatencyPredictor.fit_to(observations, networks)
    errors = []
    for one in judged:
        name = one.network.model_sha256
        kept = [network for network in networks if network.network.model_sha256 != name]
        fitted = LatencyPredictor.fit_to(observations, kept, left_out={name}, like=whole)
        errors += [found.latency_ms / one.latency_ms - 1.0 for _, found in fitted.estimates([one])]
    return float(np.sqrt(np.mean(np.square(errors)))) if len(errors) == len(judged) else None


def noise_floor(networks: Sequence[MeasuredNetwork]) -> float:
    """90th percentile of the relative difference between two halves of each network's rounds."""
    differences = [
        abs(first / second - 1.0) for first, second in (network.halves_ms() for network in networks)
    ]
    return float(np.quantile(differences, 0.9)) if differences else 0.0
