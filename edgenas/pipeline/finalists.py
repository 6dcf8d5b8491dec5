"""Measures candidates on a device, side by side, and keeps what it measured in the table."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgenas.device_profiles import DeviceProfile
from edgenas.latency_tables.rows import LatencyRow, NetworkRow, at_pace, decided, pace_ms_of, usual_pace_ms
from edgenas.latency_tables.table import LatencyTable
from edgenas.measuring import Agent, connect
from edgenas.progress import track
from edgenas.records import NetworkLatency
from edgenas.search_spaces import Genomes, SearchSpace, build_onnx
from edgenas.workspace import Workspace

_LEAST_ROUNDS, _MOST_ROUNDS = 10, 40
_PATIENCE_S = 10.0


def measure_candidates(
    space: SearchSpace,
    genomes: Sequence[Genomes],
    profile: DeviceProfile,
    *,
    threads: int | None,
    workspace: Workspace,
) -> list[float | None]:
    """Latencies in ms of candidates in the precision that their genes say; None where one does not run.

    What the table already holds for this very environment is not measured again.

    Args:
        space: what the genomes belong to.
        genomes: candidates (genes,) each.
        profile: the device.
        threads: threads to measure with; the device's when None.
        workspace: where the table is.
    """
    models = [_content(space, genome, profile) for genome in genomes]
    keys = [hashlib.sha256(model).hexdigest() for model in models]
    with connect(profile) as agent, LatencyTable.open(workspace.table_path(profile.id)) as table:
        used = threads or agent.threads
        rows = decided(table.latencies(fingerprint=agent.environment.fingerprint(), threads=used))
        known = {row.model_sha256: _latency_ms(row) for row in at_pace(rows)}
        new = {
            key: (model, genome)
            for key, model, genome in zip(keys, models, genomes, strict=True)
            if key not in known
        }
        if new:
            table.begin_run(f"search {space.name}")
            usual_ms = usual_pace_ms(map(pace_ms_of, rows))
            known |= _measured(space, new, agent, table, used, usual_ms=usual_ms)
    return [known.get(key) for key in keys]


def _content(space: SearchSpace, genome: Genomes, profile: DeviceProfile) -> bytes:
    model = build_onnx(space.network(genome), int8_scheme=profile.int8_scheme)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _latency_ms(found: LatencyRow | NetworkLatency) -> float | None:
    return found.statistics.latency_ms if found.statistics else None


def _measured(
    space: SearchSpace,
    new: dict[str, tuple[bytes, Genomes]],
    agent: Agent,
    table: LatencyTable,
    threads: int,
    *,
    usual_ms: float | None,
) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory(prefix="edgenas-") as folder:
        for key, (model, genome) in new.items():
            path = Path(folder) / f"{key}.onnx"
            path.write_bytes(model)
            agent.ship(path)
            table.add_network(_row(space, key, genome))
    found: dict[str, float | None] = {}
    environment = agent.refresh_environment()
    with track("Measuring finalists", total=len(new)) as task:
        for latency in agent.compare(
            list(new),
            threads=threads,
            min_rounds=_LEAST_ROUNDS,
            max_rounds=_MOST_ROUNDS,
            patience_s=_PATIENCE_S,
            known_pace_ms=usual_ms,
        ):
            table.add_latency(
                latency, environment, pass_number=0, batch_id=f"finalists-{latency.model_sha256[:8]}"
            )
            found[latency.model_sha256] = _latency_ms(latency)
            task.advance()
    return found


def _row(space: SearchSpace, key: str, genome: Genomes) -> NetworkRow:
    """Held out: a table that is fitted to what it proposed would flatter itself."""
    return NetworkRow(
        model_sha256=key,
        name=f"{space.name} finalist",
        space=space.name,
        precision="mixed",
        role="held-out",
        genome=tuple(int(gene) for gene in genome),
    )
