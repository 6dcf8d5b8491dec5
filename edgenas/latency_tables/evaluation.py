"""How well a table predicts: networks that were held out, and leaving networks out one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.observations import MeasuredNetwork, Observations
from edgenas.latency_tables.predictor import LatencyPredictor
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


def summarise(
    predicted: Array, intervals: Array, networks: Sequence[MeasuredNetwork]
) -> PredictionError | None:
    """The error of predictions (N,) with intervals (N, 2) for measured networks; None without any."""
    if not networks:
        return None
    measured = np.array([network.latency_ms for network in networks])
    first, second = np.array([network.halves_ms() for network in networks]).T
    held = (intervals[:, 0] <= measured) & (measured <= intervals[:, 1])
    return PredictionError(
        networks=len(networks),
        within_5=share_within(predicted, measured, 0.05),
        within_10=share_within(predicted, measured, 0.10),
        rmspe=rmspe(predicted, measured),
        spearman=spearman(predicted, measured),
        interval_coverage=float(held.mean()),
        repeat_within_5=share_within(first, second, 0.05),
        repeat_within_10=share_within(first, second, 0.10),
    )


def predict_networks(
    predictor: LatencyPredictor, observations: Observations, networks: Sequence[MeasuredNetwork]
) -> tuple[Array, Array]:
    """Predicted latencies (N,) and intervals (N, 2) from the kernels that the networks have."""
    predicted, intervals = [], []
    for network in networks:
        found = predictor.estimate([observations.specs[key] for key in network.kernels.elements()])
        predicted.append(found.latency_ms)
        intervals.append(predictor.interval(found.latency_ms, found.sd_ms))
    return np.array(predicted), np.array(intervals).reshape(-1, 2)


def held_out_error(
    predictor: LatencyPredictor, observations: Observations, networks: Sequence[MeasuredNetwork]
) -> PredictionError | None:
    """The error on networks that the predictor was not fitted to; unpriceable ones are left out."""
    known = [
        network
        for network in networks
        if all(predictor.knows(observations.specs[key]) for key in network.kernels)
    ]
    return summarise(*predict_networks(predictor, observations, known), known)


def cross_validated(
    observations: Observations, networks: Sequence[MeasuredNetwork], *, folds: int = 10, seed: int = 0
) -> Array:
    """Predictions (N,) of every network by a predictor fitted without its fold; ``folds`` N leaves one out.

    Kernel times stay those of all traces: what is left out is the end-to-end time.
    """
    order = np.random.default_rng(seed).permutation(len(networks))
    predicted = np.empty(len(networks))
    for fold in np.array_split(order, min(folds, len(networks))):
        left_out = set(fold.tolist())
        kept = [network for index, network in enumerate(networks) if index not in left_out]
        predictor = LatencyPredictor.fit_to(observations, kept)
        predicted[fold], _ = predict_networks(predictor, observations, [networks[index] for index in fold])
    return predicted


def noise_floor(networks: Sequence[MeasuredNetwork]) -> float:
    """90th percentile of the relative difference between two halves of each network's rounds."""
    differences = [
        abs(first / second - 1.0) for first, second in (network.halves_ms() for network in networks)
    ]
    return float(np.quantile(differences, 0.9)) if differences else 0.0
