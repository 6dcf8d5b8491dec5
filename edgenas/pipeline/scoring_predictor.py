"""The accuracy source ``predictor``: learnt from a sample of networks that a supernet scored."""

from __future__ import annotations

import numpy as np

from edgenas.errors import UsageError
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest
from edgenas.pipeline.scoring_supernet import supernet_accuracy
from edgenas.progress import say, warn
from edgenas.search.predictor import AccuracyPredictor, HeldOutError
from edgenas.search_spaces.counted import CountedSpace

_NETWORKS, _FEWEST = 240, 20
_EVALUATIONS = 4000


def predictor_scoring(request: ScoringRequest) -> Scoring:
    """Scores with a predictor; its detail is how many networks the supernet scores for it.

    What the supernet scored is kept in the folder, so that a killed run scores only the rest. The
    finalists of a search are scored by the supernet itself.

    Raises:
        UsageError: no supernet or data is given, or too few networks are to be scored.
    """
    networks = _networks(request.detail)
    supernet, weights = supernet_accuracy(request)
    space = supernet.space
    genomes = np.unique(space.sample(np.random.default_rng([request.seed, 2]), networks), axis=0)
    accuracies = supernet.score(genomes)
    predictor = AccuracyPredictor(space.option_counts, genomes, accuracies, CountedSpace(space).traits)
    _tell(predictor.error)
    return Scoring(
        space,
        predictor,
        f"{weights} {networks} {request.seed}",
        _EVALUATIONS,
        confirming=supernet,
        distributed=True,
        rmse=predictor.error.rmse,
    )


def _networks(detail: str | None) -> int:
    if detail is None:
        return _NETWORKS
    if not detail.isdigit() or int(detail) < _FEWEST:
        raise UsageError(
            f"the accuracy source 'predictor:{detail}' needs a number of networks, at least {_FEWEST}",
            hint=f"--accuracy predictor:{_NETWORKS}",
        )
    return int(detail)


def _tell(error: HeldOutError) -> None:
    say(f"accuracy predictor: {error}")
    if error.rmse > 0.9 * error.spread:
        warn(
            "the accuracy predictor learnt next to nothing: train the supernet longer, or score more networks"
        )
