"""The accuracy source ``table``: accuracies that somebody measured before, from a file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.errors import DataError, UsageError
from edgenas.files import file_sha256
from edgenas.pipeline.accuracy_sources import Scoring, ScoringRequest
from edgenas.search.problem import Floats, Genomes
from edgenas.search_spaces import SearchSpace, get_space

_MOST_EVALUATIONS = 1000
_NASBENCH201 = {
    "none": "none",
    "skip_connect": "skip",
    "avg_pool_3x3": "avgpool3x3",
    "nor_conv_1x1": "conv1x1",
    "nor_conv_3x3": "conv3x3",
}
"""The benchmark's names of operations, and ours."""


class TableAccuracy:
    """Accuracies by genome; a candidate that the table lacks is outside of what may be proposed.

    Args:
        name: what results are labelled with.
        accuracies: by canonical genome.
    """

    def __init__(self, name: str, accuracies: Mapping[bytes, float]) -> None:
        self.name = f"table:{name}"
        self._accuracies = accuracies

    def score(self, genomes: Genomes) -> Floats:
        """Accuracies (N,) of genomes (N, genes).

        Raises:
            DataError: the table lacks one of them.
        """
        missing = int(self.missing(genomes).sum() / 2)
        if missing:
            raise DataError(f"{self.name} holds no accuracy of {missing} of {len(genomes)} candidates")
        return np.array([self._accuracies[genome.tobytes()] for genome in genomes])

    def missing(self, genomes: Genomes) -> Floats:
        """(N,) 2 where the table lacks a candidate, 0 where it does not: a metric to limit at 1."""
        return np.array([0.0 if genome.tobytes() in self._accuracies else 2.0 for genome in genomes])


def table_scoring(request: ScoringRequest) -> Scoring:
    """Scores from the file that the detail names: NAS-Bench-201, NAS-Bench-Macro, or your own CSV.

    Raises:
        UsageError: no file or no space is named.
        DataError: the file cannot be read, or is not of the space.
    """
    if request.detail is None or request.space is None:
        raise UsageError(
            "the accuracy source 'table' needs a file and a space",
            hint="--accuracy table:FILE --space NAME",
        )
    path, space = Path(request.detail), get_space(request.space)
    accuracies = read_accuracies(path, space)
    source = TableAccuracy(path.name, accuracies)
    evaluations = min(len(accuracies), _MOST_EVALUATIONS)
    return Scoring(space, source, file_sha256(path), evaluations, missing=source.missing)


def read_accuracies(path: Path, space: SearchSpace) -> dict[bytes, float]:
    """Accuracies 0..1 by canonical genome; a table in percent is recognised by a value above 1.

    JSON: ``{"02012100": {"mean_acc": 89.2}}`` or ``{"02012100": 0.892}``, digits are option numbers.
    CSV: a column ``accuracy`` and either one column a gene (its options as ``describe`` shows them),
    or ``genome`` (option numbers with spaces between), or ``architecture`` (NAS-Bench-201's).

    Raises:
        DataError: the file cannot be read, holds nothing, or is not of the space.
    """
    try:
        rows = list(_json_rows(path) if path.suffix == ".json" else _csv_rows(path))
        pairs = [(_genome(space, row), float(row["accuracy"])) for row in rows]
    except (OSError, ValueError, KeyError, UsageError) as error:
        raise DataError(
            f"{path} is no table of accuracies of '{space.name}': {type(error).__name__}: {error}",
            hint="see docs/search.md",
        ) from error
    if not pairs:
        raise DataError(f"{path} holds no accuracies")
    scale = 100.0 if max(accuracy for _, accuracy in pairs) > 1.0 else 1.0
    return {genome.tobytes(): accuracy / scale for genome, accuracy in pairs}


def _json_rows(path: Path) -> Iterable[dict[str, Any]]:
    for digits, value in json.loads(path.read_text(encoding="utf-8")).items():
        accuracy = value.get("mean_acc", value.get("accuracy")) if isinstance(value, dict) else value
        yield {"genome": " ".join(digits), "accuracy": accuracy}


def _csv_rows(path: Path) -> Iterable[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _genome(space: SearchSpace, row: Mapping[str, Any]) -> Genomes:
    if "genome" in row:
        numbers = np.array([int(part) for part in str(row["genome"]).replace(",", " ").split()], np.int64)
        if numbers.shape != space.option_counts.shape or (numbers >= space.option_counts).any():
            raise ValueError(f"genome {row['genome']!r} does not fit {len(space.choices)} genes")
        return space.canonical(numbers)
    if "architecture" in row:
        return space.genome_of(_edges(str(row["architecture"])))
    named = {
        choice.name: _option(choice.options, row[choice.name])
        for choice in space.choices
        if row.get(choice.name)
    }
    if not named:
        raise ValueError(f"no column names a gene of '{space.name}', and there is no 'genome'")
    return space.genome_of(named)


def _edges(architecture: str) -> dict[str, str]:
    """``|op~0|+|op~0|op~1|+...`` as operation by edge."""
    nodes = architecture.split("+")
    return {
        f"{source}-{target}": _NASBENCH201[operation]
        for target, node in enumerate(nodes, start=1)
        for operation, _, source in (part.partition("~") for part in node.strip("|").split("|"))
    }


def _option(options: Iterable[Any], text: str) -> Any:
    """The option that a cell of a CSV writes."""
    return next((option for option in options if str(option) == text), text)
