"""table: list, show, export, import, diff, verify."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_latency_tables import fill

from edgenas.errors import TableError, UsageError
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.table import (
    table_diff,
    table_export,
    table_import,
    table_list,
    table_show,
    table_verify,
)
from edgenas.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    with LatencyTable.open(found.table_path("one"), create=True, device="one") as table:
        fill(table, "mobilenetv3-demo", 10)
    return found


def test_list_and_show_count_what_is_there(workspace: Workspace) -> None:
    (summary,) = table_list(workspace=workspace)
    assert (summary.device, summary.networks, summary.runs) == ("one", 10, 1)
    shown = table_show("one", workspace=workspace)
    (cell,) = shown.cells
    assert (cell.space, cell.fitted_networks, cell.held_out_networks) == ("mobilenetv3-demo", 8, 2)
    assert cell.rounds == 100
    assert table_list(workspace=Workspace(workspace.root / "empty")) == ()


@pytest.mark.parametrize("source", ["one.json", "latency_tables/one.sqlite"])
def test_what_was_exported_is_imported_unchanged(workspace: Workspace, source: str) -> None:
    exported = table_export("one", output=workspace.root / "one.json", workspace=workspace)
    assert exported.rows["latencies"] == 10
    added = table_import(workspace.root / source, device="two", workspace=workspace).added
    assert added == exported.rows
    assert sum(table_import(workspace.root / source, device="two", workspace=workspace).added.values()) == 0
    assert table_verify("two", workspace=workspace).intact
    difference = table_diff("one", "two", workspace=workspace)
    assert (difference.common, difference.only_left, difference.only_right) == (10, 0, 0)
    assert difference.median_ratio == 1.0


def test_csv_has_every_row(workspace: Workspace) -> None:
    table_export("one", output=workspace.root / "csv", workspace=workspace)
    with (workspace.root / "csv" / "networks.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 10
    with pytest.raises(UsageError, match="no format 'xml'"):
        table_export("one", output=workspace.root / "x", format="xml", workspace=workspace)  # type: ignore[arg-type]


def test_a_damaged_export_adds_nothing(workspace: Workspace) -> None:
    path = workspace.root / "one.json"
    table_export("one", output=path, workspace=workspace)
    content = json.loads(path.read_text())
    content["tables"]["latencies"][3]["threads"] = 64
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match="damaged"):
        table_import(path, device="two", workspace=workspace)
    assert table_list(workspace=workspace)[1].networks == 0
    path.write_text("{}")
    with pytest.raises(TableError, match="not an exported"):
        table_import(path, device="two", workspace=workspace)
    with pytest.raises(TableError, match="no table at"):
        table_import(workspace.root / "none.json", device="two", workspace=workspace)


def test_two_devices_are_compared_by_what_both_measured(workspace: Workspace) -> None:
    with LatencyTable.open(workspace.table_path("two"), create=True, device="two") as table:
        fill(table, "mobilenetv3-demo", 12, noise=0.01)
    found = table_diff("one", "two", workspace=workspace)
    assert (found.common, found.only_left, found.only_right) == (10, 0, 2)
    assert len(found.largest) == 10 and 0.5 < found.median_ratio < 2


def test_verify_names_the_damage(workspace: Workspace) -> None:
    path = workspace.table_path("one")
    assert table_verify("one", workspace=workspace).intact
    path.write_bytes(path.read_bytes()[:-4096])
    found = table_verify("one", workspace=workspace)
    assert not found.intact and found.problems
    with pytest.raises(TableError, match="no latency table"):
        table_verify("none", workspace=workspace)
