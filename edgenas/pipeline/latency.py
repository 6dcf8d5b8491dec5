"""A device's table as a function from candidates to milliseconds."""

from __future__ import annotations

from edgenas.errors import TableError
from edgenas.latency_tables.compiled import CompiledSpace
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.search_spaces import SearchSpace
from edgenas.workspace import Workspace


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
) -> CompiledSpace:
    """Predicted latencies (N,) in ms of genomes (N, genes) of a space on a device.

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
        return CompiledSpace.compile(space, table, LatencyPredictor.fit(table, threads=threads))
