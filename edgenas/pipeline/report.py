"""``report``: one HTML file about a run or about a latency table."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgenas.errors import ArtifactError, TableError, UsageError
from edgenas.files import write_atomically
from edgenas.latency_tables.kernels import KernelSpec, family_of
from edgenas.latency_tables.observations import Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.bundle import MANIFEST, REPORT, read_manifest, refresh_manifest
from edgenas.pipeline.check_history import read_history
from edgenas.pipeline.table import table_show
from edgenas.records import (
    SEARCH_VERSION,
    NetworkPoint,
    Prediction,
    ProfileResult,
    QuantizeResult,
    SearchResult,
    TrainResult,
    ValidateResult,
)
from edgenas.reporting import (
    KernelRow,
    RunContents,
    TableContents,
    render_checks,
    render_run,
    render_table,
)
from edgenas.workspace import Workspace

Part = TypeVar("Part")


def report(
    run: str | Path | None = None,
    *,
    table: str | None = None,
    checks: Path | None = None,
    output: Path | None = None,
    workspace: Workspace | None = None,
) -> Path:
    """Writes one self-contained HTML page.

    Args:
        run: a run's folder, or its name under ``runs/``.
        table: a device whose latency table to show instead.
        checks: a history of the gate (``check --history``) to show instead; beside a run, its trend is
            a chapter of the run's page.
        output: where to write; ``report.html`` in the run's folder, or
            ``latency_tables/DEVICE.html``, or beside the history, when omitted.

    Returns:
        The file.

    Raises:
        UsageError: neither or both of ``run`` and ``table`` are given, or a package is missing.
        ArtifactError: there is no such run, or one of its files is damaged.
        TableError: there is no such table, or it is damaged.
    """
    workspace = workspace or Workspace()
    if (table is not None and (run or checks)) or (table, run, checks) == (None, None, None):
        raise UsageError("report needs a run, a table or a history, one of them", hint=_known_runs(workspace))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if table is not None:
        page = render_table(_read_table(workspace, table), created_at=now)
        return _written(output or workspace.tables / f"{table}.html", page)
    history = read_history(checks) if checks is not None else ()
    if run is None:
        assert checks is not None
        return _written(output or checks.with_suffix(".html"), render_checks(history, created_at=now))
    folder = _run_folder(workspace, str(run))
    target = output or folder / REPORT
    _written(target, render_run(replace(read_run(folder), checks=history), created_at=now))
    if target == folder / REPORT:
        refresh_manifest(folder, REPORT)
    return target


def _written(target: Path, page: str) -> Path:
    write_atomically(target, page.encode("utf-8"))
    return target


def read_run(folder: Path) -> RunContents:
    """What the stages of a run left; a file that is absent is a part that is None.

    Raises:
        ArtifactError: a file is damaged or of another version.
    """
    settings: dict[str, Any] = _read(folder / "run.json", dict[str, Any]) or {}
    return RunContents(
        name=str(settings.get("name") or folder.resolve().name),
        settings=settings,
        profile=_read(folder / "profile.json", ProfileResult),
        search=_read_search(folder / "search.json"),
        train=_read(folder / "train.json", TrainResult),
        final=_read(folder / "final.json", TrainResult),
        quantize=_read(folder / "quantize.json", QuantizeResult),
        validate=_read(folder / "validate.json", ValidateResult),
        prediction=_read(folder / "prediction.json", Prediction),
        networks=_read(folder / "networks.json", tuple[NetworkPoint, ...]) or (),
        versions=read_manifest(folder).versions if (folder / MANIFEST).is_file() else {},
    )


def _read(path: Path, kind: type[Part]) -> Part | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}", hint="run the stage that wrote it again"
        ) from error


def _read_search(path: Path) -> SearchResult | None:
    found = _read(path, SearchResult)
    if found is not None and found.schema_version > SEARCH_VERSION:
        raise ArtifactError(
            f"{path} is of version {found.schema_version}, this EdgeNAS reads {SEARCH_VERSION} and older",
            hint="update edgenas, or search again",
        )
    return found


def _run_folder(workspace: Workspace, run: str) -> Path:
    for folder in (Path(run), workspace.root / run, workspace.runs / run):
        if folder.is_dir() and any(folder.glob("*.json")):
            return folder
    raise ArtifactError(f"there is no run '{run}'", hint=_known_runs(workspace))


def _known_runs(workspace: Workspace) -> str:
    found = sorted(p.name for p in workspace.runs.iterdir() if p.is_dir()) if workspace.runs.is_dir() else []
    return f"runs here: {', '.join(found)}" if found else "there are no runs yet: edgenas demo makes one"


# --- tables ----------------------------------------------------------------------------------------


def _read_table(workspace: Workspace, device: str) -> TableContents:
    path = workspace.table_path(device)
    if not path.is_file():
        raise TableError(
            f"there is no latency table of '{device}'", hint=f"edgenas profile --device {device}"
        )
    with LatencyTable.open(path) as table:
        observations = observe(table)
        environment = table.latest_environment()
        return TableContents(
            summary=table.summary(),
            threads=observations.threads,
            environment=environment.to_dict() if environment else {},
            kernels=_kernel_rows(observations),
            networks=network_points(table, observations),
            cells=table_show(str(path)).cells,
        )


def _kernel_rows(observations: Observations) -> tuple[KernelRow, ...]:
    used = Counter(key for network in observations.networks for key in network.kernels)
    profiled = observations.profiled_ms
    rows = [
        KernelRow(
            label=spec.label(),
            family=family_of(spec),
            latency_ms=profiled.get(key),
            networks=used[key],
        )
        for key, spec in observations.specs.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.family, row.label)))


def network_points(table: LatencyTable, observations: Observations | None = None) -> tuple[NetworkPoint, ...]:
    """Every measured network of a table beside what the table predicts for it."""
    observations = observations or observe(table)
    predictor = LatencyPredictor.fit(
        table, threads=observations.threads, fingerprint=observations.fingerprint
    )
    points = []
    for measured in observations.networks:
        specs: list[KernelSpec] = [observations.specs[key] for key in measured.kernels.elements()]
        if not all(predictor.knows(spec) for spec in specs):
            continue
        estimate = predictor.estimate(specs)
        low, high = estimate.interval_ms
        points.append(
            NetworkPoint(
                name=measured.network.name,
                predicted_ms=float(estimate.latency_ms),
                low_ms=float(low),
                high_ms=float(high),
                measured_ms=measured.latency_ms,
                held_out=measured.network.role != "fit",
                precision=measured.network.precision,
            )
        )
    return tuple(points)
