"""The other tables of a workspace, which may help a device with few measurements."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgenas.errors import TableError
from edgenas.latency_tables.donors import Donor
from edgenas.latency_tables.observations import Observations, observe
from edgenas.latency_tables.table import ENOUGH, LatencyTable
from edgenas.progress import warn
from edgenas.workspace import Workspace

MOST_DONORS = 4


class Neighbours:
    """The other configurations of a workspace's tables, which may help one device.

    The table's own other configurations count too: other threads, and the device before its runtime was
    updated. A table that cannot be read is left out with a warning.

    Args:
        workspace: where the tables are.
        path: the table of the device that is to be helped.
        fingerprint: its environment.
        threads: the threads that are asked about.
        runtime: what runs its models.
    """

    def __init__(
        self, workspace: Workspace, path: Path, *, fingerprint: str, threads: int, runtime: str
    ) -> None:
        self._workspace = workspace
        self._asked = (path.resolve(), fingerprint, threads)
        self._runtime, self._threads = runtime, threads

    @classmethod
    def of(cls, table: LatencyTable, observations: Observations, workspace: Workspace) -> Neighbours:
        """The neighbours of one configuration of a table."""
        return cls(
            workspace,
            table.path,
            fingerprint=observations.fingerprint,
            threads=observations.threads,
            runtime=observations.runtime,
        )

    @functools.cached_property
    def donors(self) -> list[Donor]:
        """Those that were measured enough, the most alike first; read when they are first asked for."""
        found = [one for one in _configurations(self._workspace) if one.identity != self._asked]
        return [one.donor() for one in sorted(found, key=self._distance)[:MOST_DONORS]]

    def _distance(self, other: _Configuration) -> tuple[bool, bool, int]:
        """Sorts by runtime, then threads, then how much was measured."""
        seen = other.observations
        return seen.runtime != self._runtime, seen.threads != self._threads, -len(seen.networks)


@dataclass(frozen=True)
class _Configuration:
    """One environment and thread count of a table that has enough networks."""

    path: Path
    observations: Observations

    @property
    def identity(self) -> tuple[Path, str, int]:
        return self.path.resolve(), self.observations.fingerprint, self.observations.threads

    def donor(self) -> Donor:
        with LatencyTable.open(self.path) as table:
            return Donor.read(
                table, fingerprint=self.observations.fingerprint, threads=self.observations.threads
            )


def _configurations(workspace: Workspace) -> Iterator[_Configuration]:
    for path in sorted(workspace.tables.glob("*.sqlite")):
        try:
            with LatencyTable.open(path) as table:
                for fingerprint, threads in table.configurations():
                    observations = observe(table, threads=threads, fingerprint=fingerprint)
                    if len(observations.with_role("fit")) >= ENOUGH:
                        yield _Configuration(path, observations)
        except TableError as error:
            warn(f"{error.message}; it cannot help other devices")
