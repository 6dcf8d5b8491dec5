"""The accuracy source ``supernet``: validation accuracy with the weights of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.errors import UsageError
from edgenas.files import file_sha256
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest
from edgenas.pipeline.workers import LocalWorkers

if TYPE_CHECKING:
    from edgenas.training.accuracy import SupernetAccuracy

_EVALUATIONS = 120


def supernet_scoring(request: ScoringRequest) -> Scoring:
    """Scores with a supernet; what it scored is kept in ``scores.jsonl`` of the folder."""
    source, identity = supernet_accuracy(request)
    return Scoring(source.space, source, identity, _EVALUATIONS, distributed=True)


def supernet_accuracy(request: ScoringRequest) -> tuple[SupernetAccuracy, str]:
    """The supernet of a request, ready to score, and what its scores depend on.

    Raises:
        UsageError: no checkpoint or no data is given.
    """
    if request.checkpoint is None:
        raise UsageError(
            "the accuracy source needs a supernet", hint="edgenas train, then add --checkpoint with its file"
        )
    if request.data is None:
        raise UsageError("a supernet scores on data", hint="add --data with what it was trained on")
    from edgenas.training.accuracy import SupernetAccuracy
    from edgenas.training.compute import usable_cores
    from edgenas.training.subnets import SupernetFile, load

    sha256 = file_sha256(request.checkpoint)
    file = SupernetFile(
        checkpoint=str(request.checkpoint.resolve()),
        sha256=sha256,
        space=request.space,
        data=request.data,
        seed=request.seed,
        threads=len(usable_cores()),
    )
    supernet, data = load(file)
    source = SupernetAccuracy(
        supernet,
        data,
        cache=request.folder / "scores.jsonl",
        workers=None if isinstance(request.workers, LocalWorkers) else request.workers,
        file=file,
    )
    return source, sha256
