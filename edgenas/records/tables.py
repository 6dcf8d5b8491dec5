"""What a table holds, and what filled it."""

from __future__ import annotations

from edgenas.records.base import Record
from edgenas.records.devices import Environment
from edgenas.records.predictions import PredictionError, TransferSummary


class ProfileCell(Record):
    """What was measured for one space or set of models at one precision and thread count."""

    space: str
    precision: str
    threads: int
    networks: int
    kernels: int
    coverage: float
    error: PredictionError | None
    transfer: TransferSummary | None = None


class ProfileResult(Record):
    """What ``profile`` measured, how well the table predicts and how well the device repeats."""

    device: str
    table: str
    environment: Environment
    threads: int
    measured_networks: int
    reused_networks: int
    failed_networks: int
    device_seconds: float
    elapsed_s: float
    noise_floor: float
    cells: tuple[ProfileCell, ...]


class TableSummary(Record):
    """What a latency table holds.

    ``blocks`` were measured by another tool and imported; a table that has some is foreign.
    ``problem`` says why nothing can be read from a damaged or newer table, "" where all is well.
    """

    device: str
    path: str
    schema_version: int
    runtime: str
    kernels: int
    networks: int
    environments: int
    runs: int
    size_bytes: int
    updated_at: str
    blocks: int = 0
    problem: str = ""
    virtual_clock: bool = False


class TableCell(Record):
    """What a table holds for one space, precision, thread count and runtime.

    ``coverage`` is the share of its networks' kernel calls (of the held-out ones where there are any)
    whose kernel was timed in place itself; the others are predicted by regression.
    """

    space: str
    precision: str
    threads: int
    runtime: str
    fitted_networks: int
    held_out_networks: int
    failed_networks: int
    kernels: int
    rounds: int
    timed_kernels: int = 0
    coverage: float = 0.0


class TableFamily(Record):
    """One family of kernels: how many a table has seen, and how many it timed in place."""

    family: str
    kernels: int
    timed_kernels: int


class TableCollection(Record):
    """Blocks of a foreign table that came in one file, with the range of their latencies."""

    collection: str
    blocks: int
    least_ms: float
    largest_ms: float


class TableRow(Record):
    """One measurement with its provenance: what wrote it when, and the device at that moment.

    ``measured`` says what the latency stands on; values that the device does not tell are None.
    """

    kind: str
    id: str
    name: str
    latency_ms: float | None
    measured: str
    threads: int | None
    taken_at: str
    command: str
    edgenas_version: str
    runtime: str
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load_1m: float | None = None


class TableShown(Record):
    """A table by the spaces, precisions and thread counts that were measured, and by kernel family.

    ``rows`` are single measurements where they were asked for.
    """

    summary: TableSummary
    environment: Environment | None
    cells: tuple[TableCell, ...]
    families: tuple[TableFamily, ...] = ()
    collections: tuple[TableCollection, ...] = ()
    rows: tuple[TableRow, ...] = ()


class TableExport(Record):
    """Where a table was exported to, and how many rows of each kind."""

    device: str
    output: str
    format: str
    rows: dict[str, int]


class TableImport(Record):
    """What an import added to a table; rows that were there already are not counted."""

    device: str
    source: str
    added: dict[str, int]


class TableDifference(Record):
    """One network or kernel that two tables both measured; ``ratio`` is right over left."""

    what: str
    name: str
    left_ms: float
    right_ms: float
    ratio: float


class TableDiff(Record):
    """Two tables side by side: what only one has, and how far the common measurements differ.

    ``median_ratio`` is right over left; None where nothing is common.
    """

    left: str
    right: str
    only_left: int
    only_right: int
    common: int
    median_ratio: float | None
    largest: tuple[TableDifference, ...]
    virtual_left: bool = False
    virtual_right: bool = False


class TableVerification(Record):
    """Whether every row of a table is what was written; ``problems`` names those that are not."""

    device: str
    path: str
    rows: dict[str, int]
    problems: tuple[str, ...]
    intact: bool
