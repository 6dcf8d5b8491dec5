"""The accuracy source ``proxy``: a rank that needs no data."""

from __future__ import annotations

from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest
from edgenas.progress import say
from edgenas.search.accuracy import MacsProxy
from edgenas.search_spaces import default_space, get_space, macs

_EVALUATIONS = 4000
_IMAGE_SIZE = 32


def proxy_scoring(request: ScoringRequest) -> Scoring:
    """Scores by multiply-accumulates."""
    say("candidates are ranked by a proxy (their MACs), which is no accuracy")
    space = get_space(request.space or default_space(_IMAGE_SIZE))
    source = MacsProxy(lambda genome: macs(space.network(genome)), space.smallest(), space.largest())
    return Scoring(space, source, "macs", _EVALUATIONS)
