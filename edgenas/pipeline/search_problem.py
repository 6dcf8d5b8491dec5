"""What a search is asked for, as a problem: metrics by name, objectives, limits and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgenas.errors import UnknownNameError, UsageError
from edgenas.pipeline.latency import SpaceLatency
from edgenas.search.problem import Limit, Metric, Problem
from edgenas.search_spaces import SearchSpace
from edgenas.search_spaces.counted import CountedSpace

ACCURACY, LATENCY, ENERGY = "accuracy", "latency_ms", "energy"
COUNTED = ("size_mb", "memory_mb", "macs", "parameters")
OBJECTIVES = (ACCURACY, LATENCY, *COUNTED)


def build_problem(
    space: SearchSpace,
    latencies: Mapping[str, SpaceLatency],
    *,
    limits_ms: Sequence[float],
    objectives: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    missing: Metric | None = None,
) -> Problem:
    """The problem of a search.

    Args:
        space: where candidates come from.
        latencies: predicted latency in ms by device.
        limits_ms: hard limits on them, in the same order.
        objectives: what is optimised beside the accuracy; ``latency_ms`` stands for every device,
            ``latency_ms:ID`` for one.
        limits: hard limits on ``COUNTED`` metrics.
        weights: lambdas by metric: 1 - accuracy + sum of lambda x metric is minimised; ``latency_ms``
            is the mean over the devices.
        missing: above 1 for candidates that the accuracy source cannot score.

    Raises:
        UnknownNameError: a name that is no metric.
        UsageError: energy is asked for and no device has a meter.
    """
    counted = CountedSpace(space)
    metrics: dict[str, Metric] = {f"{LATENCY}:{one}": latency for one, latency in latencies.items()}
    metrics |= {name: getattr(counted, name) for name in COUNTED}
    hard = [
        Limit(metric=f"{LATENCY}:{one}", maximum=ms) for one, ms in zip(latencies, limits_ms, strict=True)
    ]
    hard += [Limit(metric=_known(name, metrics), maximum=most) for name, most in (limits or {}).items()]
    if missing is not None:
        metrics["not in the table"] = missing
        hard.append(Limit(metric="not in the table", maximum=1.0))
    further = [one for name in objectives for one in _expanded(name, latencies, metrics) if one != ACCURACY]
    return Problem(
        space,
        objectives=tuple(dict.fromkeys((ACCURACY, *further))),
        metrics=metrics,
        limits=hard,
        weights={
            one: weight / len(found)
            for name, weight in (weights or {}).items()
            for found in [_expanded(name, latencies, metrics)]
            for one in found
        },
        traits=counted.traits,
    )


def _expanded(name: str, latencies: Mapping[str, SpaceLatency], metrics: Mapping[str, Metric]) -> list[str]:
    if name == LATENCY:
        return [f"{LATENCY}:{one}" for one in latencies]
    return [name if name == ACCURACY else _known(name, metrics)]


def _known(name: str, metrics: Mapping[str, Metric]) -> str:
    if name == ENERGY:
        raise UsageError(
            "energy was asked for and no device of this search has a meter; it is never estimated",
            hint=f"known: {', '.join(OBJECTIVES)}",
        )
    if name not in metrics:
        raise UnknownNameError("objective", name, (*OBJECTIVES, *metrics))
    return name
