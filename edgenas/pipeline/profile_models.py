"""The models of a plan as files, built before the device asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from edgenas.latency_tables.rows import NetworkRow
from edgenas.pipeline.profile_plan import PlannedNetwork


class BuiltModel(NamedTuple):
    """A model's file and what the table keeps about its network."""

    path: Path
    row: NetworkRow


class ModelBuilder:
    """Builds planned networks into a folder.

    Where another machine measures, this one builds the next batch meanwhile (``elsewhere``), if it has
    a core for that; where the device is this machine, building would disturb what it measures.
    """

    def __init__(self, folder: Path, *, elsewhere: bool) -> None:
        self._folder = folder
        self._worker = ThreadPoolExecutor(1) if elsewhere and _cores() > 1 else None
        self._begun: dict[str, Future[BuiltModel]] = {}

    def __enter__(self) -> ModelBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.shutdown(cancel_futures=True)

    def begin(self, networks: Iterable[PlannedNetwork]) -> None:
        """Starts to build what will be asked for next."""
        if self._worker is not None:
            for network in networks:
                self._begun[network.recipe()] = self._worker.submit(self._build, network)

    def built(self, network: PlannedNetwork) -> BuiltModel:
        """The network's model, whatever its building raises."""
        begun = self._begun.pop(network.recipe(), None)
        return self._build(network) if begun is None else begun.result()

    def _build(self, network: PlannedNetwork) -> BuiltModel:
        content = network.model().SerializeToString(deterministic=True)
        sha = hashlib.sha256(content).hexdigest()
        path = self._folder / f"{sha}.onnx"
        path.write_bytes(content)
        return BuiltModel(path, network.row(sha))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
