"""What a device with few measurements has, and the fit of donors to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from edgenas.errors import TableError
from edgenas.latency_tables.donors import Donor, MakeUp
from edgenas.latency_tables.evaluation import left_out_rmspe
from edgenas.latency_tables.few_shot import FEWEST, FewShot
from edgenas.latency_tables.observations import MeasuredNetwork, Observations
from edgenas.latency_tables.table import ENOUGH

_Seen = TypeVar("_Seen")


def networks_of(
    observations: Observations, space: str, precision: str | None = None
) -> list[MeasuredNetwork]:
    """The networks of a space that a table is fitted to."""
    return [
        one
        for one in observations.with_role("fit")
        if one.network.space == space and precision in (None, one.network.precision)
    ]


def is_few(networks: Sequence[MeasuredNetwork]) -> bool:
    """Whether donors may help: with more networks a table stands on its own."""
    return FEWEST <= len(networks) < ENOUGH


def fitted_few_shot(
    offers: Sequence[tuple[Donor, MakeUp, _Seen]],
    measured: Sequence[MeasuredNetwork],
) -> tuple[FewShot, list[_Seen]] | None:
    """Fits to the networks that donors can price, with as many donors as leave enough networks."""
    for count in range(len(offers), 0, -1):
        kept = sorted(offers, key=lambda offer: -int(np.isfinite(offer[1].latency_ms).sum()))[:count]
        priced = np.all([np.isfinite(made.latency_ms) for _, made, _ in kept], axis=0)
        if priced.sum() >= FEWEST:
            rows = np.flatnonzero(priced)
            networks = [measured[int(row)] for row in rows]
            made = [one.at(rows) for _, one, _ in kept]
            return FewShot([donor for donor, _, _ in kept], made, networks), [seen for *_, seen in kept]
    return None


def own_rmspe(observations: Observations, judged: Sequence[MeasuredNetwork]) -> float | None:
    """How far the device's own table is off the networks; None where it cannot price them."""
    try:
        return left_out_rmspe(observations, judged)
    except TableError:
        return None
