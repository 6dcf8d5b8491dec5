"""The accuracy source ``supernet``: validation accuracy with the weights of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgenas.errors import UsageError
from edgenas.files import file_sha256
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest

if TYPE_CHECKING:
    from edgenas.training.accuracy import SupernetAccuracy

_EVALUATIONS = 120


def supernet_scoring(request: ScoringRequest) -> Scoring:
    """Scores with a supernet; what it scored is kept in ``scores.jsonl`` of the folder."""
    source, identity = supernet_accuracy(request)
    return Scoring(source.space, source, identity, _EVALUATIONS)


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
    from edgenas.datasets import load_dataset
    from edgenas.search_spaces import get_space
    from edgenas.training.accuracy import SupernetAccuracy
    from edgenas.training.compute import prepare, torch_device
    from edgenas.training.data import TrainingData
    from edgenas.training.supernets import load_supernet

    device = torch_device("auto")
    prepare(device)
    dataset = load_dataset(request.data)
    classes = len(dataset.class_names)
    asked = get_space(request.space, classes=classes) if request.space is not None else None
    supernet = load_supernet(request.checkpoint, device=device, space=asked)
    size = supernet.space.network(supernet.space.largest()).input_shape[1:]
    training = TrainingData(dataset, seed=request.seed, size=size, device=device)
    source = SupernetAccuracy(supernet, training, cache=request.folder / "scores.jsonl")
    return source, file_sha256(request.checkpoint)
