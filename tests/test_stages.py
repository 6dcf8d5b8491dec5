"""A finished stage is read, a stage with other inputs or a damaged file is done again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgenas.errors import ArtifactError, UsageError
from edgenas.files import file_sha256, replaced, write_atomically
from edgenas.pipeline.stages import RunFolder
from edgenas.records import TrainResult


def result(space: str = "tiny") -> TrainResult:
    return TrainResult(
        space=space, data="d", checkpoint="c", epochs=(), validation_accuracy=0.5, elapsed_s=1.0
    )


def weights(found: TrainResult) -> tuple[str, ...]:
    assert found.data == "d", "the record of the stage"
    return ("weights.bin",)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder(tmp_path / "run") as opened:
        yield opened


def counted(calls: list[str], folder: RunFolder, name: str = "tiny") -> Callable[[], TrainResult]:
    def work() -> TrainResult:
        calls.append(name)
        write_atomically(folder.path / "weights.bin", b"weights")
        return result(name)

    return work


def test_a_finished_stage_is_not_done_again(folder: RunFolder) -> None:
    calls: list[str] = []
    for _ in range(3):
        found = folder.stage("train", TrainResult, counted(calls, folder), inputs={"seed": 0}, files=weights)
    assert calls == ["tiny"]
    assert found == result()


def test_other_inputs_do_it_again(folder: RunFolder) -> None:
    calls: list[str] = []
    for seed in (0, 1, 1):
        folder.stage("train", TrainResult, counted(calls, folder), inputs={"seed": seed})
    assert len(calls) == 2


@pytest.mark.parametrize("damaged", ["weights.bin", "train.json", ".stages/train.json"])
def test_a_damaged_file_does_it_again(folder: RunFolder, damaged: str) -> None:
    calls: list[str] = []
    for _ in range(2):
        folder.stage("train", TrainResult, counted(calls, folder), inputs={}, files=weights)
        (folder.path / damaged).write_bytes(b"{}")
    assert len(calls) == 2


def test_a_stage_that_fails_leaves_no_mark(folder: RunFolder) -> None:
    def fails() -> TrainResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.stage("train", TrainResult, fails, inputs={})
    calls: list[str] = []
    folder.stage("train", TrainResult, counted(calls, folder), inputs={})
    assert calls == ["tiny"]


def test_forgetting_a_stage_does_it_again(folder: RunFolder) -> None:
    calls: list[str] = []
    folder.stage("train", TrainResult, counted(calls, folder), inputs={})
    folder.forget("train")
    folder.forget("never-was")
    folder.stage("train", TrainResult, counted(calls, folder), inputs={})
    assert len(calls) == 2


def test_a_stage_that_does_not_leave_its_file_is_not_finished(folder: RunFolder) -> None:
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"weights\.bin was not written"):
            folder.stage("train", TrainResult, result, inputs={}, files=weights)


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    left = tmp_path / "work" / ".model.onnx.4711.unfinished"
    left.parent.mkdir()
    left.write_bytes(b"half")
    with RunFolder(tmp_path):
        assert not left.exists()


def test_one_process_at_a_time_works_in_a_folder(folder: RunFolder) -> None:
    program = "import sys; from pathlib import Path; from edgenas.files import locked; "
    program += "sys.exit(locked(Path(sys.argv[1])) is None)"
    asked = [sys.executable, "-c", program, str(folder.path / ".lock")]
    assert subprocess.run(asked, check=False).returncode == 1
    with pytest.raises(UsageError, match="another process works in"), RunFolder(folder.path):
        pass
    folder.__exit__()
    assert subprocess.run(asked, check=False).returncode == 0


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert len(file_sha256(path)) == 64
