"""The SQLite schema of a latency table, by version, and how older files become newer ones.

A file says what it is in two header fields: ``application_id`` and ``user_version``, the version of
its schema. ``MIGRATIONS[n]`` takes a file from version n to n + 1.
"""

from __future__ import annotations

APPLICATION_ID = 0x45444E41  # "EDNA"

_FIRST = """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- One call of `profile`, `import` or `predict` that wrote here.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started_at TEXT NOT NULL,
    command TEXT NOT NULL,
    edgenas_version TEXT NOT NULL,
    checksum TEXT NOT NULL
) WITHOUT ROWID;

-- The device as it was at one moment of a run; `fingerprint` is what does not change by the minute.
CREATE TABLE environments (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    runtime TEXT NOT NULL,
    runtime_version TEXT NOT NULL,
    taken_at TEXT NOT NULL,
    record TEXT NOT NULL,
    checksum TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE kernels (
    id TEXT PRIMARY KEY,
    family TEXT NOT NULL,
    spec TEXT NOT NULL,
    checksum TEXT NOT NULL
) WITHOUT ROWID;

-- `role` is fit or held-out and never changes; `layers` is [[layer name, layer key], ...].
CREATE TABLE networks (
    model_sha256 TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    space TEXT NOT NULL,
    genome TEXT NOT NULL,
    precision TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('fit', 'held-out', 'structure')),
    layers TEXT NOT NULL,
    facts TEXT NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs(id),
    checksum TEXT NOT NULL
) WITHOUT ROWID;

-- `kernels` is [[kernel id, name, layer, latency_ms], ...] in execution order.
CREATE TABLE traces (
    id TEXT PRIMARY KEY,
    model_sha256 TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    threads INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    run_latency_ms REAL NOT NULL,
    kernels TEXT NOT NULL,
    environment_id TEXT NOT NULL REFERENCES environments(id),
    run_id TEXT NOT NULL REFERENCES runs(id),
    taken_at TEXT NOT NULL,
    checksum TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX traces_by_model ON traces (model_sha256, fingerprint, threads);

-- One network in one batch of interleaved rounds; `pass` counts how often the plan came round to it.
CREATE TABLE latencies (
    id TEXT PRIMARY KEY,
    model_sha256 TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    threads INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    batch_id TEXT NOT NULL,
    statistics TEXT,
    error TEXT,
    environment_id TEXT NOT NULL REFERENCES environments(id),
    run_id TEXT NOT NULL REFERENCES runs(id),
    taken_at TEXT NOT NULL,
    checksum TEXT NOT NULL,
    CHECK ((statistics IS NULL) <> (error IS NULL))
) WITHOUT ROWID;
CREATE INDEX latencies_by_model ON latencies (model_sha256, fingerprint, threads);
"""

# Latencies of whole blocks that another tool measured, under that tool's own keys; `collection` is the
# file that they came in, since one key may stand in several with different latencies.
_FOREIGN_BLOCKS = """
CREATE TABLE blocks (
    id TEXT PRIMARY KEY,
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    latency_ms REAL NOT NULL CHECK (latency_ms > 0),
    sd_ms REAL NOT NULL,
    samples INTEGER NOT NULL,
    run_id TEXT NOT NULL REFERENCES runs(id),
    checksum TEXT NOT NULL
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _FOREIGN_BLOCKS)
SCHEMA_VERSION = len(MIGRATIONS)

# Every table whose rows carry a checksum over their other columns, in the order of import.
CHECKED_TABLES = ("runs", "environments", "kernels", "networks", "traces", "latencies", "blocks")
