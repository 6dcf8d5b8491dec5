"""The accuracy source ``train``: candidates are trained from scratch, the worse ones not to the end."""

from __future__ import annotations

from edgenas.errors import UsageError
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest

_EPOCHS = 9
_EVALUATIONS = 48


def train_scoring(request: ScoringRequest) -> Scoring:
    """Scores by training; its detail is the epochs of those that are trained to the end.

    Raises:
        UsageError: no data is given, or the detail is no number of epochs.
    """
    if request.data is None:
        raise UsageError("the accuracy source 'train' needs data to train on", hint="add --data")
    epochs = _epochs(request.detail)
    from edgenas.training.from_scratch import TrainingAccuracy

    source = TrainingAccuracy(
        request.data,
        space=request.space,
        epochs=epochs,
        folder=request.folder,
        seed=request.seed,
        workers=request.workers,
    )
    return Scoring(source.space, source, source.identity, _EVALUATIONS, distributed=True)


def _epochs(detail: str | None) -> int:
    if detail is None:
        return _EPOCHS
    if not detail.isdigit() or not int(detail):
        raise UsageError(
            f"the accuracy source 'train:{detail}' needs a number of epochs",
            hint=f"--accuracy train:{_EPOCHS}",
        )
    return int(detail)
