"""table: list, show, export, import, diff, verify."""

from __future__ import annotations

import csv
import importlib.util
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from test_latency_tables import ENVIRONMENT, fill, statistics, trace_of, traced

from edgenas.cli import invoke
from edgenas.errors import TableError, UnknownKernelsError, UsageError
from edgenas.latency_tables import exchange, provenance
from edgenas.latency_tables.blocks import BlockTable
from edgenas.latency_tables.database import Database
from edgenas.latency_tables.rows import NetworkRow
from edgenas.latency_tables.schema import CHECKED_TABLES, SCHEMA_VERSION
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.predict import predict
from edgenas.pipeline.search import search
from edgenas.pipeline.table import (
    table_diff,
    table_export,
    table_import,
    table_list,
    table_show,
    table_verify,
)
from edgenas.records import NetworkLatency
from edgenas.search_spaces import build_onnx, get_space
from edgenas.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]
BLOCKS = Path(__file__).parent / "data" / "block_table.yaml"
"""A table in once-for-all's format, with latencies of our own invention."""


def rows(workspace: Workspace, device: str) -> dict[str, list[dict[str, object]]]:
    """Everything that is stored in a table."""
    database = Database(workspace.table_path(device))
    try:
        return {name: list(database.rows(name)) for name in CHECKED_TABLES}
    finally:
        database.close()


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
    assert 0 < cell.coverage <= 1 and cell.timed_kernels <= cell.kernels
    assert sum(one.kernels for one in shown.families) == summary.kernels
    assert shown.rows == shown.collections == ()
    assert table_list(workspace=Workspace(workspace.root / "empty")) == ()


@pytest.mark.parametrize(
    ("source", "form"),
    [("one.json", None), ("csv", None), ("parquet", "parquet"), ("latency_tables/one.sqlite", "json")],
)
def test_what_was_exported_is_imported_unchanged(
    workspace: Workspace, source: str, form: exchange.Format | None
) -> None:
    output = workspace.root / (source if not source.endswith("sqlite") else "other.json")
    exported = table_export("one", output=output, format=form, workspace=workspace)
    assert exported.rows["latencies"] == 10
    added = table_import(workspace.root / source, device="two", workspace=workspace).added
    assert added == exported.rows
    assert sum(table_import(workspace.root / source, device="two", workspace=workspace).added.values()) == 0
    assert table_verify("two", workspace=workspace).intact
    assert rows(workspace, "one") == rows(workspace, "two")
    difference = table_diff("one", "two", workspace=workspace)
    assert (difference.common, difference.only_left, difference.only_right) == (10, 0, 0)
    assert difference.median_ratio == 1.0


def test_csv_has_every_row(workspace: Workspace) -> None:
    table_export("one", output=workspace.root / "csv", workspace=workspace)
    with (workspace.root / "csv" / "networks.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 10
    with pytest.raises(UsageError, match="no format 'xml'"):
        table_export("one", output=workspace.root / "x", format="xml", workspace=workspace)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a folder"):
        table_export("one", output=workspace.root / "csv", format="json", workspace=workspace)
    (workspace.root / "csv" / "meta.csv").unlink()
    with pytest.raises(TableError, match="not an exported"):
        table_import(workspace.root / "csv", device="two", workspace=workspace)


def test_parquet_is_typed_for_other_tools(workspace: Workspace) -> None:
    import pyarrow.parquet

    table_export("one", output=workspace.root / "p", format="parquet", workspace=workspace)
    found = pyarrow.parquet.read_table(workspace.root / "p" / "latencies.parquet")
    types = {field.name: str(field.type) for field in found.schema}
    assert (types["threads"], types["statistics"], len(found)) == ("int64", "string", 10)


@pytest.mark.parametrize(
    ("package", "action"),
    [
        ("pyarrow", lambda w: table_export("one", output=w.root / "p", format="parquet", workspace=w)),
        ("yaml", lambda w: table_import(BLOCKS, device="note10", workspace=w)),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, package: str, action: Callable[[Workspace], object]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match="which is not installed") as caught:
        action(workspace)
    assert "edgenas[tables]" in caught.value.hint


def test_a_damaged_export_adds_nothing(workspace: Workspace) -> None:
    path = workspace.root / "one.json"
    table_export("one", output=path, workspace=workspace)
    content = json.loads(path.read_text())
    content["tables"]["latencies"][3]["threads"] = 64
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match="damaged"):
        table_import(path, device="two", workspace=workspace)
    assert [one.device for one in table_list(workspace=workspace)] == ["one"]
    content["tables"]["latencies"], content["tables"]["runs"] = [], []
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match="lacks 1 rows of 'runs'"):
        table_import(path, device="two", workspace=workspace)
    content["version"] = SCHEMA_VERSION + 1
    path.write_text(json.dumps(content))
    with pytest.raises(TableError, match=f"version {SCHEMA_VERSION + 1}"):
        table_import(path, device="two", workspace=workspace)
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


def measured(table: LatencyTable, sha: str, latency_ms: float | None, **what: Any) -> None:
    """One network with its only kernel; one that failed where there is no latency."""
    table.add_network(NetworkRow(**{"model_sha256": sha, "precision": "fp32", "role": "fit", **what}))
    kernel = replace(traced("conv", "stem", (1, 3, 8, 8), (1, 4, 8, 8)), latency_ms=0.1)
    table.add_trace(trace_of(sha, (kernel,)), ENVIRONMENT)
    latency = NetworkLatency(
        model_sha256=sha, threads=1, error=None if latency_ms else "refused",
        statistics=statistics((latency_ms,) * 4) if latency_ms else None,
    )  # fmt: skip
    table.add_latency(latency, ENVIRONMENT)


def test_tables_share_what_is_the_same_network_whatever_it_is_called(tmp_path: Path) -> None:
    """Names repeat: plans of two seeds number other networks alike, files of two folders are called alike."""
    workspace = Workspace(tmp_path)
    for device, slower, name in (("one", 1.0, "first"), ("two", 2.0, "second")):
        with LatencyTable.open(workspace.table_path(device), create=True, device=device) as table:
            measured(table, "a", slower, space="s", name=f"s-{name}", genome=(1, 2))
            measured(table, f"b-{device}", slower, space="s", name="s-0", genome=(2, int(slower)))
            measured(table, f"c-{device}", slower, space="models", name="mine", facts={"recipe": device})
            measured(table, f"d-{device}", 3 * slower, space="models", name=f"{name}", facts={"recipe": "d"})
    found = table_diff("one", "two", workspace=workspace)
    assert (found.common, found.only_left, found.only_right) == (2, 2, 2)
    assert {one.name for one in found.largest} == {"s-first, 1 threads", "first, 1 threads"}
    assert found.median_ratio == 2.0


def test_tables_with_nothing_in_common_have_no_ratio(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    with LatencyTable.open(workspace.table_path("two"), create=True, device="two") as table:
        measured(table, "a", 1.0, space="models", name="mine")
    assert table_diff("one", "two", workspace=workspace).median_ratio is None
    tables = [str(workspace.table_path(name)) for name in ("one", "two")]
    assert invoke(["--json", "table", "diff", *tables]) == 0
    assert json.loads(capsys.readouterr().out)["median_ratio"] is None
    assert invoke(["table", "diff", *tables]) == 0


def test_failures_stand_beside_the_networks_of_their_precision(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with LatencyTable.open(workspace.table_path("one"), create=True, device="one") as table:
        measured(table, "a", 1.0, space="models", name="float")
        measured(table, "b", None, space="models", name="integers", precision="int8")
    cells = table_show("one", workspace=workspace).cells
    assert [(one.precision, one.fitted_networks, one.failed_networks) for one in cells] == [
        ("fp32", 1, 0),
        ("int8", 0, 1),
    ]


def test_verify_names_the_damage(workspace: Workspace) -> None:
    path = workspace.table_path("one")
    assert table_verify("one", workspace=workspace).intact
    path.write_bytes(path.read_bytes()[:-4096])
    found = table_verify("one", workspace=workspace)
    assert not found.intact and found.problems
    with pytest.raises(TableError, match="no latency table"):
        table_verify("none", workspace=workspace)


def test_a_damaged_table_does_not_hide_the_others(workspace: Workspace) -> None:
    workspace.table_path("bad").write_text("not a table " * 1000)
    bad, one = table_list(workspace=workspace)
    assert "damaged" in bad.problem and bad.networks == 0
    assert (one.device, one.networks, one.problem) == ("one", 10, "")


# --- versions --------------------------------------------------------------------------------------


def test_a_table_of_the_first_version_is_migrated_with_all_its_rows(workspace: Workspace) -> None:
    before = rows(workspace, "one")
    connection = sqlite3.connect(workspace.table_path("one"))  # exactly what the first version wrote
    connection.executescript("DROP TABLE blocks; PRAGMA user_version = 1;")
    connection.close()
    assert table_show("one", workspace=workspace).summary.schema_version == SCHEMA_VERSION
    assert rows(workspace, "one") == before
    assert table_verify("one", workspace=workspace).intact


def test_an_export_of_the_first_version_is_read(workspace: Workspace) -> None:
    content = json.loads((REPOSITORY / "ci" / "local.json").read_text())
    content["version"] = 1  # which knew no blocks of other tools, and is otherwise the same
    del content["tables"]["blocks"]
    exported = workspace.root / "first.json"
    exported.write_text(json.dumps(content))
    added = table_import(exported, device="two", workspace=workspace).added
    assert added["networks"] > 0 and added["blocks"] == 0


# --- provenance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["latencies", "traces"])
def test_every_measurement_says_where_it_comes_from(workspace: Workspace, kind: provenance.Kind) -> None:
    found = table_show("one", rows=kind, limit=4, workspace=workspace).rows
    assert len(found) == 4
    assert {(one.command, one.runtime, one.threads) for one in found} == {("synthetic", "onnxruntime 1.0", 1)}
    assert all(one.latency_ms and one.measured for one in found)
    assert [one.taken_at for one in found] == sorted((one.taken_at for one in found), reverse=True)
    with pytest.raises(UsageError, match="no kind of rows 'all'"):
        table_show("one", rows="all", workspace=workspace)  # type: ignore[arg-type]


# --- tables of other tools -------------------------------------------------------------------------


def test_a_foreign_table_prices_its_blocks_and_nothing_else(workspace: Workspace, tmp_path: Path) -> None:
    assert table_import(BLOCKS, device="phone", workspace=workspace).added == {"blocks": 4}
    assert table_import(BLOCKS, device="phone", workspace=workspace).added == {"blocks": 0}
    shown = table_show("phone", rows="blocks", workspace=workspace)
    (collection,) = shown.collections
    assert (collection.collection, collection.blocks, collection.least_ms) == ("block_table", 4, 0.25)
    assert all("block_table.yaml sha256" in one.command for one in shown.rows)
    with LatencyTable.open(workspace.table_path("phone")) as table:
        blocks = BlockTable.read(table)
    stem, logits = (
        ("block_table", "Conv-input:32x32x3-output:16x16x8"),
        ("block_table", "Logits-input:8-output:10"),
    )
    assert blocks.latency_ms([stem, logits, logits]) == pytest.approx(1.0)
    with pytest.raises(UnknownKernelsError, match="Conv-input:64x64x3"):
        blocks.latency_ms([stem, ("block_table", "Conv-input:64x64x3-output:32x32x8")])
    model = tmp_path / "model.onnx"
    space = get_space("mobilenetv3-demo")
    onnx.save(build_onnx(space.network(space.smallest())), model)
    for asked in (
        lambda: predict(model, device="phone", workspace=workspace),
        lambda: search(latency_ms=(3,), device=("phone",), workspace=workspace),
    ):
        with pytest.raises(TableError, match="is foreign: it holds 4 block latencies"):
            asked()
    assert table_verify("phone", workspace=workspace).intact


def test_compiled_blocks_are_the_sums_of_their_keys(workspace: Workspace) -> None:
    table_import(BLOCKS, device="phone", workspace=workspace)
    with LatencyTable.open(workspace.table_path("phone")) as table:
        blocks = BlockTable.read(table)
    body = [f"expanded_conv-input:16x16x8-output:16x16x8-expand:16-kernel:{k}-stride:1" for k in (3, 5)]

    def blocks_at(slot: int, values: tuple[int, ...]) -> list[tuple[str, str]]:
        keys = ["Conv-input:32x32x3-output:16x16x8"] if slot == 0 else [body[values[1]]] * values[0]
        return [("block_table", key) for key in keys]

    counts = np.array([3, 2])
    dense = blocks.compile([(), (0, 1)], counts, blocks_at)
    genomes = np.array([[depth, kernel] for depth in range(3) for kernel in range(2)])
    slow = [
        blocks.latency_ms([*blocks_at(0, ()), *blocks_at(1, tuple(genome.tolist()))]) for genome in genomes
    ]
    np.testing.assert_allclose(dense.latency_ms(genomes), slow, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a table of blocks"),
        ("- 1\n- 2\n", "not a table of blocks"),
        ("a: {mean: 0.0, count: 3}", "mean above 0"),
        ("a: {mean: .nan}", "mean above 0"),
        ("a: 3", "mean above 0"),
        ("a: {mean: 1" + "0" * 400 + "}", "mean above 0"),
        ("a: !!python/object/apply:os.system ['false']", "no readable YAML"),
        ("[" * 5000, "no readable YAML"),
        ("a: {mean: 1.0", "no readable YAML"),
    ],
)
def test_bad_yaml_is_one_error_and_no_table(workspace: Workspace, text: str, expected: str) -> None:
    path = workspace.root / "bad.yaml"
    path.write_text(text)
    with pytest.raises(TableError, match=expected):
        table_import(path, device="phone", workspace=workspace)
    assert not workspace.table_path("phone").exists()


def test_blocks_are_not_mixed_with_measurements(workspace: Workspace) -> None:
    with pytest.raises(TableError, match="10 networks of its own"):
        table_import(BLOCKS, device="one", workspace=workspace)
    assert table_show("one", workspace=workspace).collections == ()
