"""Trains the winner of a search to its end and writes it as fp32 ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgenas.datasets import Dataset, Preprocessing, default_preprocessing, preprocessing_metadata
from edgenas.datasets.parts import TrainedOn
from edgenas.datasets.texts import TextDataset
from edgenas.datasets.tokenizer import text_metadata
from edgenas.files import write_atomically
from edgenas.records import TrainResult
from edgenas.search_spaces import Genomes, SearchSpace, build_onnx

if TYPE_CHECKING:
    from edgenas.training.examples import Examples
    from edgenas.training.networks import Teacher
    from edgenas.training.supernet import Supernet


def train_winner(
    candidate: Mapping[str, Any],
    space: SearchSpace,
    dataset: Dataset | TextDataset,
    *,
    teacher: Mapping[str, Any],
    checkpoint: Path,
    output: Path,
    cpu_seconds: float,
    seed: int,
    torch_device: str = "auto",
) -> TrainResult:
    """Trains a candidate from the supernet's weights, taught by the best network that it scored, or afresh.

    Args:
        candidate: genes by name, as the search gave them.
        teacher: genes of the network that the supernet scored highest, perhaps the candidate itself.
        space: the space of the supernet.
        dataset: what to learn; its test part is not touched.
        checkpoint: the supernet.
        output: where the fp32 ONNX model goes; the training's checkpoint stands beside it.
        cpu_seconds: training budget.
        seed: of the order of the images and their augmentation.
        torch_device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The epochs and the validation accuracy.
    """
    from edgenas.training.budget import Budget
    from edgenas.training.compute import prepare
    from edgenas.training.compute import torch_device as chosen_device
    from edgenas.training.loading import source_of
    from edgenas.training.starts import train_from_better_start
    from edgenas.training.supernets import load_supernet

    device = chosen_device(torch_device)
    prepare(device)
    genome = space.genome_of(candidate)
    network = space.network(genome)
    _, height, width = network.input_shape
    source = source_of(dataset)
    data = source.examples(space, seed=seed, device=device)
    supernet = load_supernet(checkpoint, device=device, space=space)
    taught_by = _teacher(supernet, space.genome_of(teacher), data)
    supernet.set_active(genome)
    supernet.calibrate(data.calibration_batches(height, width))
    trained = train_from_better_start(
        network,
        data,
        folder=output.parent,
        budget=Budget(cpu_seconds=cpu_seconds),
        seed=seed,
        inherited=supernet.subnet_state(),
        teacher=taught_by,
        recipe=source.recipe,
    )
    seen = TrainedOn(data_sha256=dataset.sha256, seed=seed)
    metadata = {**_metadata(dataset, space, candidate), **seen.metadata()}
    model = build_onnx(network, weights=trained.weights, precision=False, metadata=metadata)
    write_atomically(output, model.SerializeToString())
    return trained.result


def _metadata(
    dataset: Dataset | TextDataset, space: SearchSpace, candidate: Mapping[str, Any]
) -> dict[str, str]:
    """What a model's metadata say about its inputs and classes."""
    preprocessing = input_preprocessing(dataset, space, candidate)
    if isinstance(dataset, TextDataset):
        return text_metadata(dataset.tokenizer, dataset.class_names)
    assert preprocessing is not None, "images have one"
    return preprocessing_metadata(preprocessing, dataset.class_names)


def input_preprocessing(
    dataset: Dataset | TextDataset, space: SearchSpace, candidate: Mapping[str, Any]
) -> Preprocessing | None:
    """How images become the candidate's input: as in training, at its own resolution; None for texts."""
    if isinstance(dataset, TextDataset):
        return None
    _, height, _ = space.network(space.genome_of(candidate)).input_shape
    return default_preprocessing(dataset, height)


def _teacher(supernet: Supernet, genome: Genomes, data: Examples) -> Teacher:
    """A network with the supernet's weights and its own statistics, apart from the supernet."""
    from edgenas.training.networks import Teacher
    from edgenas.training.scoring import subnet_accuracy

    reached = subnet_accuracy(supernet, genome, data)
    _, height, width = supernet.network.input_shape
    return Teacher(
        network=supernet.extract(),
        height=height,
        width=width,
        accuracy=reached,
        fingerprint=supernet.network.fingerprint(),
    )
