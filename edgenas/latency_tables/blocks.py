"""Foreign tables: latencies of whole blocks under the keys of the tool that measured them.

Such a table answers one question: what a network costs that is made of exactly these blocks. It has
no kernels, so it prices no ONNX model and no search space of EdgeNAS, and nothing between its keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import TableError, UnknownKernelsError
from edgenas.latency_tables.dense import DenseLatencies
from edgenas.latency_tables.rows import BlockRow
from edgenas.latency_tables.table import LatencyTable

Ints = NDArray[np.int64]
Blocks = Sequence[tuple[str, str]]
"""What stands in a slot: pairs of collection and key; empty where nothing does."""


class BlockTable:
    """Prices networks by the keys of their blocks.

    Args:
        rows: the blocks.
        device: whose they are, for messages.
    """

    def __init__(self, rows: Iterable[BlockRow], *, device: str) -> None:
        self.device = device
        self._latency_ms = {(row.collection, row.key): row.latency_ms for row in rows}

    @classmethod
    def read(cls, table: LatencyTable) -> BlockTable:
        """The blocks of a foreign table.

        Raises:
            TableError: the table is damaged, or has no blocks.
        """
        rows = list(table.blocks())
        if not rows:
            raise TableError(
                f"the table of '{table.device}' holds no blocks of another tool",
                hint=f"edgenas table import FILE.yaml --device {table.device}",
            )
        return cls(rows, device=table.device)

    def latency_ms(self, blocks: Blocks) -> float:
        """The sum over ``blocks`` in ms.

        Raises:
            UnknownKernelsError: names every block that the table does not have; none counts as 0 ms.
        """
        missing = [f"{key} of {collection}" for collection, key in blocks if not self.knows(collection, key)]
        if missing:
            raise UnknownKernelsError(
                tuple(dict.fromkeys(missing)),
                device=self.device,
                hint="a foreign table has exactly the blocks that were imported: edgenas table show"
                f" {self.device}",
            )
        return sum(self._latency_ms[block] for block in blocks)

    def knows(self, collection: str, key: str) -> bool:
        """Whether the block has a latency."""
        return (collection, key) in self._latency_ms

    def compile(
        self,
        slots: Sequence[tuple[int, ...]],
        option_counts: Ints,
        blocks_at: Callable[[int, tuple[int, ...]], Blocks],
    ) -> DenseLatencies:
        """Dense latencies of a space whose layers are the table's blocks.

        Args:
            slots: for each slot the genes that decide what stands there.
            option_counts: how many values each gene has, (genes,).
            blocks_at: the blocks in a slot (by its position) for values of its genes.

        Raises:
            UnknownKernelsError: a block of the space is not in the table.
        """
        entries = [
            self.latency_ms(blocks_at(position, values))
            for position, genes in enumerate(slots)
            for values in itertools.product(*(range(int(option_counts[gene])) for gene in genes))
        ]
        return DenseLatencies(slots, option_counts, np.array(entries, np.float64))
