"""What a search is for: a space, what to minimise or maximise, and what must not be exceeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from edgenas.errors import UnknownNameError
from edgenas.records import Record

Genomes: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Metric: TypeAlias = Callable[[Genomes], Floats]
"""Genomes (N, genes) -> (N,) values, known before anything is evaluated (a table, a count)."""

MAXIMISED = frozenset({"accuracy"})


class GenomeSpace(Protocol):
    """The part of a search space that strategies need; every ``SearchSpace`` has it."""

    @property
    def name(self) -> str: ...
    @property
    def option_counts(self) -> Genomes: ...
    def canonical(self, genomes: Genomes) -> Genomes: ...
    def sample(self, rng: np.random.Generator, n: int) -> Genomes: ...


class Limit(Record, kw_only=True):
    """A hard limit: ``metric`` must not exceed ``maximum`` (in the metric's unit, above 0)."""

    metric: str
    maximum: float


class Problem:
    """A space with objectives and hard limits.

    Args:
        space: where genomes come from.
        objectives: names; ``accuracy`` is maximised, everything else minimised. A name that is
            not among ``metrics`` is learnt from evaluations alone.
        metrics: what is known about a genome before it is evaluated.
        limits: hard limits on metrics. They may be replaced while a search goes on.
        weights: lambda by metric: the first objective becomes itself + sum of lambda x metric.
        traits: (N, traits) numbers of genomes (N, genes) that may tell of what is learnt, see
            ``CountedSpace.traits``; none where None.

    Raises:
        UnknownNameError: a limit on something that no metric knows.
    """

    def __init__(
        self,
        space: GenomeSpace,
        *,
        objectives: Sequence[str] = ("accuracy",),
        metrics: Mapping[str, Metric] | None = None,
        limits: Sequence[Limit] = (),
        weights: Mapping[str, float] | None = None,
        traits: Metric | None = None,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.metrics = dict(metrics or {})
        self.limits = tuple(limits)
        self.weights = dict(weights or {})
        self.traits: Metric = traits or (lambda genomes: np.zeros((len(genomes), 0)))
        for limit in self.limits:
            if limit.metric not in self.metrics:
                raise UnknownNameError("metric to limit", limit.metric, self.metrics)
        for name in self.weights:
            if name not in self.metrics:
                raise UnknownNameError("metric to weigh", name, self.metrics)

    @property
    def learnt(self) -> tuple[int, ...]:
        """Indices of the objectives that only an evaluation tells."""
        return tuple(i for i, name in enumerate(self.objectives) if name not in self.metrics)

    def objective_values(self, genomes: Genomes, evaluated: Mapping[str, Floats]) -> Floats:
        """(N, objectives), all to be minimised; ``evaluated`` gives what no metric knows."""
        columns = [
            self.metrics[name](genomes) if name in self.metrics else np.asarray(evaluated[name], np.float64)
            for name in self.objectives
        ]
        signs = np.where([name in MAXIMISED for name in self.objectives], -1.0, 1.0)
        values = np.stack(columns, axis=1) * signs
        values[:, 0] += self.penalty(genomes)
        return np.asarray(values)

    def penalty(self, genomes: Genomes) -> Floats:
        """(N,) the sum of lambda x metric that the first objective has on top."""
        total = np.zeros(len(genomes))
        for name, weight in self.weights.items():
            total += weight * self.metrics[name](genomes)
        return total

    def violations(self, genomes: Genomes) -> Floats:
        """(N,) sum over the limits of the share by which each is exceeded; 0 where all hold."""
        total = np.zeros(len(genomes))
        for limit in self.limits:
            total += np.maximum(self.metrics[limit.metric](genomes) / limit.maximum - 1.0, 0.0)
        return total
