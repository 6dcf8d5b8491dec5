"""``clean`` shows first, removes only what is old or cached, and asks nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from edgenas.cli import invoke
from edgenas.workspace import cache_folder

DAY_S = 86400.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with an old run, an old one that was touched, a table, and a cache with a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path / "cache"))
    for name in (
        "runs/old/work",
        "runs/touched/work",
        "latency_tables",
        "cache/agent/content",
        "cache/datasets",
    ):
        (tmp_path / name).mkdir(parents=True)
    for name in ("runs/old/work/a.pt", "runs/touched/work/a.pt", "latency_tables/local.sqlite"):
        (tmp_path / name).write_bytes(b"12345")
    for name in ("agent/content/model", "agent/measuring.lock", "datasets/cifar10.npz"):
        (cache_folder() / name).write_bytes(b"1234567")
    past = time.time() - 40 * DAY_S
    for path in (tmp_path / "runs").rglob("*"):
        os.utime(path, (past, past))
    os.utime(tmp_path / "runs" / "touched" / "work" / "a.pt")
    return tmp_path


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_shows_and_leaves_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(folder)
    assert invoke(["clean", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["kind"], Path(one["path"]).name) for one in shown["items"]] == [
        ("cache", "content"),
        ("run", "old"),
    ]
    assert shown["removed"] is False
    assert shown["size_bytes"] == 12
    assert _files(folder) == before


def test_yes_removes_what_was_shown_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(folder)
    assert invoke(["clean", "--yes"]) == 0
    assert "removed" in capsys.readouterr().out
    assert before - _files(folder) == {"runs/old/work/a.pt", "cache/agent/content/model"}
    assert invoke(["clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == []


def test_a_shorter_age_takes_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(folder / "runs" / "touched" / "work" / "a.pt", (time.time() - 2 * DAY_S,) * 2)
    assert invoke(["clean", "--older-than", "1d", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["items"]
    assert [Path(one["path"]).name for one in shown] == ["content", "old", "touched"]


def test_an_empty_workspace_has_nothing_to_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGENAS_CACHE", str(tmp_path / "none"))
    assert invoke(["clean", "--yes"]) == 0
    assert "0.0 MB" in capsys.readouterr().out
