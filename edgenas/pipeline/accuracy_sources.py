"""Where ``search`` gets accuracies from, by name: built in, or from other packages.

A source is asked for as ``NAME`` or ``NAME:DETAIL``; what the detail means is the source's own affair
(which proxy, which file). An entry point of the group ``edgenas.accuracy_sources`` names a function
like those of the ``scoring_*`` files beside this one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

from edgenas.errors import UnknownNameError
from edgenas.pipeline.workers import LocalWorkers, Workers
from edgenas.records import DroppedOption
from edgenas.search.accuracy import AccuracySource
from edgenas.search.problem import Metric
from edgenas.search_spaces import SearchSpace
from edgenas.workspace import Workspace

ENTRY_POINTS = "edgenas.accuracy_sources"
AUTO = "auto"

_BUILT_IN = {
    "train": "edgenas.pipeline.scoring_train:train_scoring",
    "supernet": "edgenas.pipeline.scoring_supernet:supernet_scoring",
    "predictor": "edgenas.pipeline.scoring_predictor:predictor_scoring",
    "proxy": "edgenas.pipeline.scoring_proxy:proxy_scoring",
    "table": "edgenas.pipeline.scoring_table:table_scoring",
}


@dataclass(frozen=True, kw_only=True)
class ScoringRequest:
    """What a source may need; it refuses what it needs and is not given.

    Attributes:
        space: the search space's name as it was asked for; None leaves it to the source.
        data: labelled images, as ``--data`` takes them.
        checkpoint: a supernet that ``train`` left.
        detail: what stood after the source's name and a colon.
        seed: of everything random.
        folder: where the source may keep what is dear, such as scores.
        workspace: where runs and tables are.
        workers: where candidates are trained and scored.
    """

    space: str | None
    data: str | None
    checkpoint: Path | None
    detail: str | None
    seed: int
    folder: Path
    workspace: Workspace
    workers: Workers = LocalWorkers()  # noqa: RUF009 - it holds nothing


@dataclass(frozen=True)
class Scoring:
    """A source that is ready, and the space that it scores.

    Attributes:
        identity: everything that the scores depend on; a search goes on only while it is the same.
        evaluations: how many candidates are worth scoring where the user does not say.
        confirming: a dearer source that has the last word on the finalists; None: the source itself.
        missing: above 1 for candidates (N, genes) that the source cannot score, so that none is proposed.
        dropped: options of the space that a table ruled out, in a space that was shrunk.
        distributed: whether the source has the request's workers do its work.
        rmse: error of a source that predicts, in accuracy, on networks that it did not learn from.
    """

    space: SearchSpace
    source: AccuracySource
    identity: str
    evaluations: int
    confirming: AccuracySource | None = None
    distributed: bool = False
    rmse: float | None = None
    missing: Metric | None = None
    dropped: tuple[DroppedOption, ...] = ()


SourceFactory: TypeAlias = Callable[[ScoringRequest], Scoring]


def source_names() -> tuple[str, ...]:
    """All names that ``get_source`` knows, sorted; ``auto`` is none of them."""
    return tuple(sorted({*_BUILT_IN, *_installed()}))


def get_source(name: str) -> SourceFactory:
    """The source of that name (without detail); built-in ones cannot be replaced.

    Raises:
        UnknownNameError: no such accuracy source.
    """
    if name in _BUILT_IN:
        module, _, function = _BUILT_IN[name].partition(":")
        built_in: SourceFactory = getattr(importlib.import_module(module), function)
        return built_in
    installed = _installed()
    if name not in installed:
        raise UnknownNameError("accuracy source", name, (AUTO, *source_names()))
    factory: SourceFactory = installed[name].load()
    return factory


def resolved(asked: str, checkpoint: Path | None) -> tuple[SourceFactory, str | None]:
    """The source and the detail that ``NAME[:DETAIL]`` means; ``auto``: the supernet where one is given.

    Raises:
        UnknownNameError: no such accuracy source.
    """
    name, _, detail = source_asked_for(asked, checkpoint).partition(":")
    return get_source(name), detail or None


def source_asked_for(asked: str, checkpoint: Path | None) -> str:
    """``NAME[:DETAIL]`` that is meant where ``auto`` may stand."""
    if asked != AUTO:
        return asked
    return "supernet" if checkpoint is not None else "proxy"


def _installed() -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
