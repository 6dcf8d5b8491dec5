"""How far a candidate's outputs are from the float model's, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from edgenas.errors import MeasurementError
from edgenas.records import Record

Outputs = Mapping[str, npt.NDArray[Any]]
Doubles = npt.NDArray[np.float64]
MEMORY_BYTES = 2**25


class OutputScore(Record):
    """A candidate's outputs over the samples.

    Attributes:
        errors: squared L2 distance to the reference of each sample, relative to the mean squared
            norm of the reference over all samples, averaged over the outputs. Of an output of
            integers it is the share that differs; of one whose shape differs, 1.
        predictions: the class of each sample; empty where the model is no classifier.
        flip_probabilities: chance that the error changed the class of each sample, from the margin
            between the reference's two best classes and the size of the error.
        ratings: of each sample by the user's metric, where there is one.
    """

    errors: tuple[float, ...]
    predictions: tuple[int, ...] = ()
    flip_probabilities: tuple[float, ...] = ()
    ratings: tuple[float, ...] = ()

    @property
    def distance(self) -> float:
        """Relative L2 distance over all samples."""
        return float(np.sqrt(self.squared_error))

    @property
    def squared_error(self) -> float:
        """Energy of the error over that of the outputs: 0.01 is a signal-to-noise ratio of 20 dB."""
        return float(np.mean(self.errors)) if self.errors else 0.0

    @property
    def flips(self) -> float:
        """Expected share of samples whose class changes; 0 where there are no classes."""
        return float(np.mean(self.flip_probabilities)) if self.flip_probabilities else 0.0


class ReferenceOutputs:
    """The float model's outputs, those beyond ``MEMORY_BYTES`` on disk: detectors' do not fit into memory.

    Args:
        folder: where the batches are written.
    """

    def __init__(self, folder: Path, batches: Iterable[Outputs]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held: list[Outputs] = []
        self._held_bytes = 0
        self._written = 0
        self.samples = 0
        self.predictions: list[int] = []
        self._norms: dict[str, float] = {}
        for outputs in batches:
            self._keep(outputs)

    @property
    def classifies(self) -> bool:
        """Whether the model has one output with a score per class."""
        return len(self.predictions) == self.samples > 0

    def score(self, batches: Iterable[Outputs]) -> OutputScore:
        """A candidate's outputs for the same samples, compared batch by batch.

        Raises:
            MeasurementError: they are not the outputs of the same model for the same samples.
        """
        errors: list[float] = []
        flips: list[float] = []
        predictions: list[int] = []
        for reference, outputs in self._beside(batches):
            errors.extend(self._relative_errors(reference, outputs))
            if self.classifies:
                theirs, mine = _scores(reference), _scores(outputs)
                if theirs is None or mine is None or theirs.shape != mine.shape:
                    raise MeasurementError("its scores of the classes are not those of the float model")
                predictions.extend(mine.argmax(axis=1).tolist())
                flips.extend(flip_probabilities(theirs, mine).tolist())
        return OutputScore(
            errors=tuple(errors), predictions=tuple(predictions), flip_probabilities=tuple(flips)
        )

    def _keep(self, outputs: Outputs) -> None:
        self._hold({name: np.asarray(array) for name, array in outputs.items()})
        self.samples += _length(outputs)
        for name, array in _floats(outputs):
            self._norms[name] = self._norms.get(name, 0.0) + float(np.sum(array**2))
        scores = _scores(outputs)
        if scores is not None:
            self.predictions.extend(scores.argmax(axis=1).tolist())

    def _hold(self, arrays: dict[str, Any]) -> None:
        size = sum(array.nbytes for array in arrays.values())
        if not self._written and self._held_bytes + size <= MEMORY_BYTES:
            self._held.append(arrays)
            self._held_bytes += size
            return
        np.savez(self._folder / f"{self._written:05d}.npz", **arrays)
        self._written += 1

    def _beside(self, batches: Iterable[Outputs]) -> Iterator[tuple[Outputs, Outputs]]:
        nothing: Outputs = {}
        for reference, outputs in zip_longest(self._batches(), batches, fillvalue=nothing):
            if set(reference) != set(outputs):
                known, found = (", ".join(sorted(names)) or "none" for names in (reference, outputs))
                raise MeasurementError(f"it gave the outputs {found}, where the float model gives {known}")
            yield reference, outputs

    def _batches(self) -> Iterator[Outputs]:
        yield from self._held
        for number in range(self._written):
            with np.load(self._folder / f"{number:05d}.npz", allow_pickle=False) as opened:
                yield {name: opened[name] for name in opened.files}

    def _relative_errors(self, reference: Outputs, outputs: Outputs) -> list[float]:
        total = np.zeros(_length(reference))
        for name, array in reference.items():
            total += self._relative_error(name, np.asarray(array), np.asarray(outputs[name]), len(total))
        listed: list[float] = (total / max(len(reference), 1)).tolist()
        return listed

    def _relative_error(
        self, name: str, reference: npt.NDArray[Any], output: npt.NDArray[Any], samples: int
    ) -> Doubles:
        """Of each sample; an output without an axis of samples gives all of them the same."""
        if reference.shape != output.shape:
            return np.ones(samples)
        rows = samples if reference.ndim and len(reference) == samples else 1
        if reference.dtype.kind != "f":
            differs = (reference != output).reshape(rows, -1)
            return np.broadcast_to(differs.mean(axis=1) if differs.size else np.zeros(rows), (samples,))
        difference = reference.astype(np.float64) - output.astype(np.float64)
        squared = np.nan_to_num(difference**2, nan=np.inf, posinf=np.inf).reshape(rows, -1).sum(axis=1)
        whole = max(self._norms[name] / self.samples, 1e-30) * (samples / rows)
        return np.broadcast_to(np.minimum(squared, 1e30) / whole, (samples,))


def flip_probabilities(reference: Doubles, candidate: Doubles) -> Doubles:
    """Chance of each sample's class to change under an error of the observed size.

    The error of a difference of two scores has ``sqrt(2)`` times the deviation of one; a shift that
    all classes share changes nothing and is taken out.
    """
    top = np.sort(reference, axis=1)[:, -2:]
    margin = top[:, 1] - top[:, 0]
    error = candidate - reference
    deviation = np.sqrt(np.mean((error - error.mean(axis=1, keepdims=True)) ** 2, axis=1))
    ratio = margin / np.maximum(np.sqrt(2.0) * deviation, 1e-30)
    probabilities: Doubles = ndtr(-ratio)
    return probabilities


def _scores(outputs: Outputs) -> Doubles | None:
    """The class scores ``(N, classes)`` where the only output holds some."""
    if len(outputs) != 1:
        return None
    array = np.asarray(next(iter(outputs.values())))
    flat = array.reshape(len(array), -1) if array.ndim >= 2 else array
    is_vector = flat.ndim == 2 and flat.shape[1] == array.shape[1] >= 2 and array.dtype.kind == "f"
    return flat.astype(np.float64) if is_vector else None


def _floats(outputs: Outputs) -> Iterator[tuple[str, Doubles]]:
    for name, array in outputs.items():
        if np.asarray(array).dtype.kind == "f":
            yield name, np.asarray(array, np.float64)


def _length(outputs: Outputs) -> int:
    first = np.asarray(next(iter(outputs.values())))
    return len(first) if first.ndim else 1
