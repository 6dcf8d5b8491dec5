"""A device's table as a function from candidates to milliseconds."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import TableError
from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.observations import observe
from edgenas.latency_tables.saved_predictor import fitted
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.neighbours import Neighbours
from edgenas.pipeline.transferred_space import transferred_space
from edgenas.records import TransferSummary
from edgenas.search_spaces import Genomes, SearchSpace
from edgenas.workspace import Workspace


class SpaceLatency(Protocol):
    """What a table says of a space's candidates, alone or with the help of other tables."""

    @property
    def device(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def transfer(self) -> TransferSummary | None: ...

    def __call__(self, genomes: Genomes) -> NDArray[np.float64]:
        """Predicted latencies (N,) in ms of genomes (N, genes)."""

    def interval_ms(self, genomes: Genomes) -> NDArray[np.float64]:
        """The interval (N, 2) in ms that holds nine in ten candidates."""


def refuse_foreign_table(device: str, workspace: Workspace) -> None:
    """Says that a table is foreign before its device is looked for, which need not be known here.

    Raises:
        TableError: the table holds nothing but blocks that another tool measured, or is damaged.
    """
    path = workspace.table_path(device)
    if path.exists():
        with LatencyTable.open(path) as table:
            table.refuse_foreign()


def compiled_latency(
    space: SearchSpace, device: str, *, threads: int | None, workspace: Workspace
) -> SpaceLatency:
    """Predicted latencies (N,) in ms of genomes (N, genes) of a space on a device.

    Where few networks of the space were measured there, the workspace's other tables help if leaving
    one out says that this is better; ``transfer`` of the result says so.

    Args:
        space: the space to price.
        device: whose table.
        threads: threads to predict for; those that the table has most of when None.
        workspace: where the table is.

    Raises:
        TableError: there is no table of the device, or it knows nothing of the space.
    """
    path = workspace.table_path(device)
    if not path.exists():
        raise TableError(
            f"there is no latency table of '{device}' in {workspace.tables}",
            hint=f"measure it: edgenas profile --device {device} --space {space.name}",
        )
    with LatencyTable.open(path) as table:
        observations = observe(table, threads=threads)
        transferred = transferred_space(space, observations, Neighbours.of(table, observations, workspace))
        if transferred is not None and transferred.transfer.used:
            return transferred
        compiled = CompiledSpace.compile(space, table, fitted(table, threads=threads))
        compiled.transfer = transferred.transfer if transferred is not None else None
        return compiled
