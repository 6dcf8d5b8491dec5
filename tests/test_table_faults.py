"""Tables on disks that are full, beside tables that are damaged: one clear error, nothing else touched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_latency_tables import fill, small_table

from edgenas.errors import TableError
from edgenas.latency_tables.integrity import verify
from edgenas.latency_tables.schema import SCHEMA_VERSION
from edgenas.latency_tables.table import LatencyTable
from edgenas.pipeline.table import table_list, table_show, table_verify
from edgenas.workspace import Workspace

SPACE = "mobilenetv3-demo"
LIMIT_BYTES = 300_000
UNDER_A_LIMIT = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_latency_tables import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does by itself: writes fail instead
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
with LatencyTable.open(sys.argv[1]) as table:
    try:
        for seed in range(1, 50):
            fill(table, "mobilenetv3-demo", 5, seed=seed)
    except TableError as error:
        print(error.message, error.hint)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def networks(path: Path) -> int:
    with LatencyTable.open(path) as table:
        return len(table.networks())


def test_a_full_disk_keeps_what_was_measured_and_profiling_goes_on(small_disk: Path) -> None:
    path = small_disk / "full.sqlite"
    small_table(path)
    with LatencyTable.open(path) as table, pytest.raises(TableError, match="is full") as caught:
        for seed in range(1, 50):
            fill(table, SPACE, 5, seed=seed)
    assert "run the same command again" in caught.value.hint
    assert verify(path, device="full").intact
    before = networks(path)
    assert before >= 3
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    with LatencyTable.open(path) as table:
        fill(table, SPACE, 5, seed=99)
    assert networks(path) == before + 5
    assert verify(path, device="full").intact


def test_a_file_that_may_not_grow_keeps_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "limited.sqlite"
    small_table(path)
    arguments = [str(path), str(Path(__file__).parent), str(LIMIT_BYTES)]
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, *arguments],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "what was measured before is safe" in done.stdout and "check the disk" in done.stdout
    assert verify(path, device="limited").intact
    assert networks(path) >= 3
    with LatencyTable.open(path) as table:
        fill(table, SPACE, 5, seed=99)
    assert verify(path, device="limited").intact


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_newer(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[60:64] = (SCHEMA_VERSION + 1).to_bytes(4, "big")  # user_version of the file's header
    path.write_bytes(content)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    position = content.index(b'"rounds_ms":[') + len('"rounds_ms":[') + 3
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [(truncate, "damaged"), (make_newer, f"version {SCHEMA_VERSION + 1}"), (flip_a_byte, "damaged")],
)
def test_a_bad_table_is_one_clear_error_and_the_others_stay(
    tmp_path: Path, damage: object, expected: str
) -> None:
    workspace = Workspace(tmp_path)
    for device in ("bad", "good"):
        small_table(workspace.table_path(device))
    good = workspace.table_path("good").read_bytes()
    damage(workspace.table_path("bad"))  # type: ignore[operator]
    bad = workspace.table_path("bad").read_bytes()
    with pytest.raises(TableError, match=expected) as caught:
        table_show("bad", workspace=workspace)
    assert caught.value.hint
    if expected == "damaged":
        assert not table_verify("bad", workspace=workspace).intact
    else:
        with pytest.raises(TableError, match=expected):
            table_verify("bad", workspace=workspace)
    assert [one.networks for one in table_list(workspace=workspace) if one.device == "good"] == [3]
    assert table_verify("good", workspace=workspace).intact
    assert workspace.table_path("good").read_bytes() == good
    if expected != "damaged":
        assert workspace.table_path("bad").read_bytes() == bad
