"""A search on fewer options: the accuracy source goes on scoring genomes of the whole space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgenas.pipeline.accuracy_sources import Scoring
from edgenas.progress import say
from edgenas.search.accuracy import AccuracySource
from edgenas.search.problem import Floats, Genomes, Metric
from edgenas.search.shrinking import shrink
from edgenas.search_spaces import RestrictedSpace


class OnWholeSpace:
    """Scores candidates of a restricted space with a source that knows the whole one."""

    def __init__(self, source: AccuracySource, space: RestrictedSpace) -> None:
        self.name = source.name
        self._source, self._space = source, space

    def score(self, genomes: Genomes) -> Floats:
        """Accuracies (N,) of genomes (N, genes) of the restricted space."""
        return self._source.score(self._whole(genomes))

    def _whole(self, genomes: Genomes) -> Genomes:
        return self._space.base.canonical(self._space.to_base(genomes))


def shrunk(scoring: Scoring, latencies: Mapping[str, Metric]) -> Scoring:
    """The scoring of the space without what the tables rule out; the same one where that is nothing.

    Args:
        scoring: of the whole space.
        latencies: predicted latency in ms by device.
    """
    found = shrink(scoring.space, latencies)
    for one in found.dropped:
        say(f"dropped: {one.reason}")
    if not isinstance(found.space, RestrictedSpace):
        return scoring
    space, missing = found.space, scoring.missing
    return dataclasses.replace(
        scoring,
        space=space,
        source=OnWholeSpace(scoring.source, space),
        confirming=scoring.confirming and OnWholeSpace(scoring.confirming, space),
        missing=missing and (lambda genomes: missing(space.base.canonical(space.to_base(genomes)))),
        dropped=found.dropped,
    )
