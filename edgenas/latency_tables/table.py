"""The latency table of one device: written row by row as measurements arrive, read by the predictor."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

import edgenas
from edgenas.errors import TableError
from edgenas.latency_tables.database import Database
from edgenas.latency_tables.kernels import KernelSpec, canonical_spec, family_of, spec_of
from edgenas.latency_tables.rows import (
    CRASHED,
    BlockRow,
    EnvironmentRow,
    KernelSample,
    LatencyRow,
    NetworkRow,
    TraceRow,
)
from edgenas.latency_tables.schema import SCHEMA_VERSION
from edgenas.records import (
    Environment,
    KernelTrace,
    LatencyStatistics,
    NetworkLatency,
    TableSummary,
    TracedKernel,
)

ENOUGH = 40
"""Measured networks from which on a table stands on its own, and may be a donor."""


class LatencyTable:
    """What was measured on one device. Use ``open``; several processes may write at once.

    Every row is written in a transaction of its own and carries its run, its environment and a
    checksum: killing the writer at any moment loses at most the row in flight.
    """

    def __init__(self, database: Database, device: str) -> None:
        self._database = database
        self._run: str | None = None
        self._known_kernels: set[str] = set()
        self._renamed: dict[str, str] | None = None
        self._last_environment: tuple[Environment | None, str] = (None, "")
        self.device = device
        self.path = database.path

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False, device: str | None = None) -> Self:
        """Opens the table at ``path``; ``create`` makes it for ``device`` where there is none.

        Raises:
            TableError: the file is missing, damaged, not a latency table, or from a newer version.
        """
        database = Database(Path(path), create=create)
        table = cls(database, device or database.path.stem)
        table._settle_device()
        return table

    def _settle_device(self) -> None:
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('device', ?)", (self.device,))
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('created_at', ?)", (_now(),))
        self.device = self._database.connection.execute(
            "SELECT value FROM meta WHERE name = 'device'"
        ).fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    @property
    def database(self) -> Database:
        """The SQLite file behind the table, for export, import and verification."""
        return self._database

    # --- writing ---------------------------------------------------------------------------------

    def begin_run(self, command: str) -> str:
        """Starts a run; all rows written from now on carry its id, which is returned."""
        self._run = uuid.uuid4().hex
        row = {
            "id": self._run,
            "started_at": _now(),
            "command": command,
            "edgenas_version": edgenas.__version__,
        }
        with self._database.writing():
            self._database.insert("runs", row)
        return self._run

    def _run_id(self) -> str:
        return self._run or self.begin_run("unnamed")

    def add_environment(self, environment: Environment) -> str:
        """Stores what the device was like at this moment and gives the id of that row."""
        if environment is self._last_environment[0]:
            return self._last_environment[1]
        record = environment.to_json()
        row_id = hashlib.sha256(record.encode()).hexdigest()[:32]
        row = {
            "id": row_id, "fingerprint": environment.fingerprint(), "runtime": environment.runtime,
            "runtime_version": environment.runtime_version, "taken_at": _now(), "record": record,
        }  # fmt: skip
        with self._database.writing():
            self._database.insert("environments", row)
        self._last_environment = environment, row_id
        return row_id

    def add_network(self, network: NetworkRow) -> None:
        """Stores what a network is; one that is known keeps its row, but for a mere structure."""
        run = self._run_id()
        row = {
            "model_sha256": network.model_sha256, "name": network.name, "space": network.space,
            "genome": _json(network.genome), "precision": network.precision, "role": network.role,
            "layers": _json(network.layers), "facts": _json(network.facts), "run_id": run,
        }  # fmt: skip
        with self._database.writing() as connection:
            found = connection.execute(
                "SELECT role FROM networks WHERE model_sha256 = ?", (network.model_sha256,)
            )
            upgrade = found.fetchone() == ("structure",) and network.role != "structure"
            self._database.insert("networks", row, replace=upgrade)

    def add_trace(self, trace: KernelTrace, environment: Environment) -> None:
        """Stores the kernels of one model with their times in place."""
        run, environment_id = self._run_id(), self.add_environment(environment)
        specs = [spec_of(kernel) for kernel in trace.kernels]
        keys = [spec.key() for spec in specs]
        samples = [
            (key, kernel.name, kernel.layer, kernel.latency_ms)
            for key, kernel in zip(keys, trace.kernels, strict=True)
        ]
        row = {
            "id": uuid.uuid4().hex,
            "model_sha256": trace.model_sha256,
            "fingerprint": environment.fingerprint(),
            "threads": trace.threads,
            "runs": trace.runs,
            "run_latency_ms": trace.run_latency_ms,
            "kernels": _json(samples),
            "environment_id": environment_id,
            "run_id": run,
            "taken_at": _now(),
        }
        with self._database.writing():
            for key, spec in zip(keys, specs, strict=True):
                self._add_kernel(key, spec)
            self._database.insert("traces", row)

    def _add_kernel(self, key: str, spec: KernelSpec) -> None:
        if key not in self._known_kernels:
            self._database.insert("kernels", {"id": key, "family": family_of(spec), "spec": spec.canonical()})
            self._known_kernels.add(key)

    def add_latency(
        self, latency: NetworkLatency, environment: Environment, *, pass_number: int = 0, batch_id: str = ""
    ) -> None:
        """Stores one network's end-to-end latency with its rounds, or why there is none."""
        run, environment_id = self._run_id(), self.add_environment(environment)
        statistics = latency.statistics.to_json() if latency.statistics is not None else None
        row = {
            "id": uuid.uuid4().hex, "model_sha256": latency.model_sha256,
            "fingerprint": environment.fingerprint(), "threads": latency.threads, "pass": pass_number,
            "batch_id": batch_id, "statistics": statistics,
            "error": None if statistics is not None else _error(latency),
            "environment_id": environment_id, "run_id": run, "taken_at": _now(),
        }  # fmt: skip
        with self._database.writing():
            self._database.insert("latencies", row)

    def refuse_foreign(self) -> None:
        """Raises ``TableError`` where the table holds nothing but blocks that another tool measured."""
        summary = self.summary()
        if summary.blocks and not summary.networks:
            raise TableError(
                f"the table of '{self.device}' is foreign: it holds {summary.blocks} block latencies that"
                " another tool measured, and no kernels, so it prices neither ONNX models nor EdgeNAS's"
                " search spaces",
                hint=f"edgenas table show {self.device} says what it holds; measure a device of your own:"
                " edgenas profile --device ID",
            )

    def add_blocks(self, blocks: Iterable[BlockRow]) -> int:
        """Stores blocks that another tool measured, all or none, and counts those that are new.

        A block that is known keeps its latency.
        """
        run = self._run_id()
        with self._database.writing() as connection:
            before = connection.total_changes
            for block in blocks:
                row_id = hashlib.sha256(_json([block.collection, block.key]).encode()).hexdigest()[:32]
                self._database.insert("blocks", {"id": row_id, **block.to_dict(), "run_id": run})
            return connection.total_changes - before

    # --- reading ---------------------------------------------------------------------------------

    def raw_rows(self, query: str, arguments: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Rows as they are stored, unchecked."""
        return self._database.raw_rows(query, arguments)

    def environments(self) -> list[EnvironmentRow]:
        """Every state the device was measured in, the latest last."""
        rows = [_environment(row) for row in self._database.rows("environments")]
        return sorted(rows, key=lambda row: row.taken_at)

    def latest_environment(self, fingerprint: str | None = None) -> Environment | None:
        """The device as it was last seen, in full, or seen with that fingerprint; None where it never was."""
        seen = (
            row for row in self._database.rows("environments") if fingerprint in (None, row["fingerprint"])
        )
        rows = sorted(seen, key=lambda row: str(row["taken_at"]))
        return msgspec.json.decode(rows[-1]["record"], type=Environment) if rows else None

    def networks(self, *, space: str | None = None) -> dict[str, NetworkRow]:
        """Networks by the hash of their model."""
        where, arguments = ("space = ?", (space,)) if space is not None else ("1", ())
        return {
            row["model_sha256"]: _network(row) for row in self._database.rows("networks", where, arguments)
        }

    def traces(
        self, *, fingerprint: str, threads: int, model_sha256: str | None = None
    ) -> Iterator[TraceRow]:
        """Traces made in one environment at one thread count."""
        for row in self._database.rows("traces", *_where(fingerprint, threads, model_sha256)):
            samples = tuple(
                KernelSample(kernel=self._key_of(key), name=name, layer=layer, latency_ms=latency)
                for key, name, layer, latency in json.loads(row["kernels"])
            )
            yield TraceRow(
                model_sha256=row["model_sha256"], fingerprint=row["fingerprint"], threads=row["threads"],
                runs=row["runs"], run_latency_ms=row["run_latency_ms"], kernels=samples,
            )  # fmt: skip

    def trace_of(self, model_sha256: str, *, fingerprint: str, threads: int) -> KernelTrace | None:
        """The kernels of one model as the device once told them; None where it was never asked."""
        specs = self.kernels()
        rows = list(self.traces(fingerprint=fingerprint, threads=threads, model_sha256=model_sha256))
        if not rows:
            return None
        row = rows[-1]
        runtimes = {one.fingerprint: (one.runtime, one.runtime_version) for one in self.environments()}
        runtime, version = runtimes[fingerprint]
        return KernelTrace(
            model_sha256=model_sha256,
            runtime=runtime,
            runtime_version=version,
            threads=threads,
            runs=row.runs,
            run_latency_ms=row.run_latency_ms,
            kernels=tuple(_traced_kernel(sample, specs[sample.kernel]) for sample in row.kernels),
        )

    def latencies(
        self, *, fingerprint: str, threads: int, model_sha256: str | None = None
    ) -> Iterator[LatencyRow]:
        """End-to-end measurements made in one environment at one thread count, failures too."""
        for row in self._database.rows("latencies", *_where(fingerprint, threads, model_sha256)):
            yield LatencyRow(
                model_sha256=row["model_sha256"], fingerprint=row["fingerprint"], threads=row["threads"],
                pass_number=row["pass"], batch_id=row["batch_id"], error=row["error"],
                statistics=_statistics(row["statistics"]),
            )  # fmt: skip

    def kernels(self) -> dict[str, KernelSpec]:
        """Every kernel that was ever seen here, by its key."""
        found, renamed = {}, {}
        for row in self._database.rows("kernels"):
            stored = msgspec.json.decode(row["spec"], type=KernelSpec)
            spec = canonical_spec(stored)
            if spec is not stored:
                renamed[row["id"]] = spec.key()
            found[renamed.get(row["id"], row["id"])] = spec
        self._renamed = renamed
        return found

    def _key_of(self, stored: str) -> str:
        """A kernel's key today: equal kernels had several once, by how their models said the same."""
        if self._renamed is None:
            self.kernels()
        assert self._renamed is not None
        return self._renamed.get(stored, stored)

    def blocks(self) -> Iterator[BlockRow]:
        """What another tool measured; only foreign tables have any."""
        for row in self._database.rows("blocks"):
            yield BlockRow(**{name: row[name] for name in BlockRow.__struct_fields__})

    def configurations(self) -> list[tuple[str, int]]:
        """Pairs of fingerprint and threads that have latencies: those measured in today's way first, where
        they are enough, then the most measured ones, of equals the latest."""
        found = self._database.connection.execute(
            "SELECT fingerprint, threads, count(*) AS n, max(taken_at) FROM latencies"
            " WHERE statistics IS NOT NULL GROUP BY fingerprint, threads"
        ).fetchall()
        versions = {row.fingerprint: row.measuring_version for row in self.environments()}
        order = {}
        for fingerprint, threads, count, latest in found:
            version = versions.get(fingerprint, 1)
            order[fingerprint, threads] = (version if count >= ENOUGH else 0, count, latest, version)
        return sorted(order, key=lambda one: order[one], reverse=True)

    def summary(self) -> TableSummary:
        """What the table holds, counted."""
        environments = self.environments()
        return TableSummary(
            device=self.device,
            path=str(self.path),
            schema_version=SCHEMA_VERSION,
            runtime=" ".join(_latest_runtime(environments)).strip(),
            kernels=self._count("kernels"),
            networks=self._count("networks"),
            environments=self._count("environments"),
            runs=self._count("runs"),
            blocks=self._count("blocks"),
            size_bytes=self.path.stat().st_size,
            updated_at=environments[-1].taken_at if environments else "",
            virtual_clock=any(row.virtual_clock for row in environments),
        )

    def _count(self, table: str) -> int:
        return int(self._database.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def _error(latency: NetworkLatency) -> str:
    return (CRASHED if latency.crashed else "") + (latency.error or "unknown")


def _traced_kernel(sample: KernelSample, spec: KernelSpec) -> TracedKernel:
    return TracedKernel(
        name=sample.name, layer=sample.layer, kind=spec.kind, domain=spec.layout, attributes=spec.attributes,
        inputs=spec.inputs, outputs=spec.outputs, latency_ms=sample.latency_ms,
    )  # fmt: skip


def _latest_runtime(environments: list[EnvironmentRow]) -> tuple[str, str]:
    return (environments[-1].runtime, environments[-1].runtime_version) if environments else ("", "")


def _environment(row: dict[str, Any]) -> EnvironmentRow:
    record = json.loads(row["record"])
    return EnvironmentRow(
        id=row["id"], fingerprint=row["fingerprint"], runtime=row["runtime"],
        runtime_version=row["runtime_version"], taken_at=row["taken_at"],
        virtual_clock=bool(record.get("virtual_clock")), measuring_version=record.get("measuring_version", 1),
    )  # fmt: skip


def _network(row: dict[str, Any]) -> NetworkRow:
    return NetworkRow(
        model_sha256=row["model_sha256"], name=row["name"], space=row["space"], precision=row["precision"],
        role=row["role"], genome=tuple(json.loads(row["genome"])), facts=json.loads(row["facts"]),
        layers=tuple((name, key) for name, key in json.loads(row["layers"])),
    )  # fmt: skip


def _statistics(text: str | None) -> LatencyStatistics | None:
    return None if text is None else msgspec.json.decode(text, type=LatencyStatistics)


def _where(fingerprint: str, threads: int, model_sha256: str | None) -> tuple[str, tuple[Any, ...]]:
    clause, arguments = "fingerprint = ? AND threads = ?", (fingerprint, threads)
    return (
        (clause, arguments)
        if model_sha256 is None
        else (clause + " AND model_sha256 = ?", (*arguments, model_sha256))
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
