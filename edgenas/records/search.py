"""What a search found."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from edgenas.records.base import Record
from edgenas.records.predictions import TransferSummary

SEARCH_VERSION = 2
"""Of ``SearchResult`` on disk; version 1 did not say which it is, and knew no ``next_steps``."""


class Candidate(Record):
    """One network of a search space: its genes by name, and what is known about it.

    ``latency_ms`` is by device; ``latency_source`` says whether it was predicted or measured.
    ``hyperparameters`` are those of its training where they were searched with it.
    """

    candidate: dict[str, Any]
    accuracy: float
    accuracy_source: str
    latency_ms: dict[str, float]
    latency_source: Literal["predicted", "measured"] = "predicted"
    predicted_ms: dict[str, float] = msgspec.field(default_factory=dict)
    macs: int = 0
    parameters: int = 0
    feasible: bool = True
    hyperparameters: dict[str, float] = msgspec.field(default_factory=dict)
    size_mb: float | None = None
    memory_mb: float | None = None


class DroppedOption(Record):
    """An option that a table proved useless before the search: ``better`` is faster and more capable."""

    gene: str
    option: str
    better: str
    slower_ms: float
    reason: str


class HypervolumePoint(Record):
    """Share 0..1 of the box between the best and the worst of a search that its front dominated."""

    evaluations: int
    hypervolume: float


class SearchResult(Record):
    """The Pareto front and the best candidate under the hard limit.

    ``best`` is None where nothing meets the limit; ``fastest`` is then what the device can do.
    ``interrupted`` searches were stopped by the user before all evaluations were made.
    ``accuracy_rmse`` is the held-out error of a source that predicts accuracies, None for others.
    ``limits`` are those on anything but latency, by metric; ``weights`` the lambdas of the weighted form.
    ``next_steps`` are commands that go on from here, for who started the search by itself.
    ``schema_version`` is ``SEARCH_VERSION`` where this EdgeNAS wrote it.
    """

    space: str
    devices: tuple[str, ...]
    limits_ms: tuple[float, ...]
    strategy: str
    accuracy_source: str
    seed: int
    evaluations: int
    elapsed_s: float
    best: Candidate | None
    fastest: Candidate | None
    front: tuple[Candidate, ...]
    evaluated: tuple[Candidate, ...] = ()
    path: str = ""
    interrupted: bool = False
    transfers: dict[str, TransferSummary] = msgspec.field(default_factory=dict)
    virtual_devices: tuple[str, ...] = ()
    accuracy_rmse: float | None = None
    objectives: tuple[str, ...] = ("accuracy",)
    limits: dict[str, float] = msgspec.field(default_factory=dict)
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    pressure: str = "constant"
    dropped: tuple[DroppedOption, ...] = ()
    hypervolume: tuple[HypervolumePoint, ...] = ()
    next_steps: tuple[str, ...] = ()
    schema_version: int = 1
