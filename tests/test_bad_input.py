"""What people get wrong, through the command line: one clear error, its exit code, nothing lost."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgenas.cli import invoke
from edgenas.latency_tables.table import LatencyTable
from tests.small_models import write_model

TRAIN = ["train", "--space", "mobilenetv3-demo", "--data"]
RUN = ["run", "--device", "local", "--latency-ms", "2", "--data"]
QUANTIZE = ["quantize", "good.onnx", "--device", "local", "--calibration"]
WITH_MODEL = {
    "predict": ["predict", "MODEL", "--device", "local"],
    "profile": ["profile", "--device", "local", "--model", "MODEL"],
    "quantize": ["quantize", "MODEL", "--device", "local", "--calibration", "images"],
    "validate": ["validate", "MODEL", "--device", "local"],
}
WITH_TABLE = {
    "predict": ["predict", "good.onnx", "--device", "local"],
    "profile": ["profile", "--device", "local", "--model", "good.onnx"],
    "search": ["search", "--device", "local", "--latency-ms", "2"],
    "table show": ["table", "show", "local"],
    "table export": ["table", "export", "local", "--output", "local.json"],
    "table import": ["table", "import", "latency_tables/local.sqlite", "--device", "local-openvino"],
    "report": ["report", "--table", "local"],
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be wrong about models, data and tables."""
    folder = tmp_path_factory.mktemp("bad")
    write_model(folder / "good.onnx")
    write_model(folder / "dynamic.onnx", side="height")
    (folder / "cut.onnx").write_bytes((folder / "good.onnx").read_bytes()[:200])
    (folder / "noise.onnx").write_bytes(b"\x99" * 500)
    (folder / "nothing.onnx").write_bytes(b"")
    (folder / "cut.npz").write_bytes(b"PK\x03\x04")
    for name in ("empty", "images", "listed", "broken/cat", "broken/dog", "hollow/cat", "hollow/dog"):
        (folder / name).mkdir(parents=True)
    for name in ("broken/cat/1.png", "broken/dog/1.png"):
        (folder / name).write_bytes(b"not an image")
    (folder / "listed" / "labels.csv").write_text("file,class\n1.png,cat\n2.png,dog\n")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "images" / "1.png")
    np.savez(folder / "pickled.npz", x_train=np.array([{}], dtype=object), y_train=np.zeros(1, np.int64))
    for name in ("alone/cat", "short"):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / name / "1.png")
    (folder / "short" / "labels.csv").write_text("file,class\n1.png,cat\n2.png\n")
    table = folder / "latency_tables" / "local.sqlite"
    LatencyTable.open(table, create=True, device="local").close()
    with sqlite3.connect(table) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA user_version = 99")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path / "workspace")
    monkeypatch.chdir(tmp_path / "workspace")
    return tmp_path / "workspace"


def _refused(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str], code: int = 1
) -> dict[str, str]:
    """The error of a command line, shown once to people and once to scripts; all files as they were."""
    before = _contents(folder)
    assert invoke(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("error: ") == 1
    assert "Traceback" not in shown.err
    assert invoke([*arguments, "--json"]) == code
    error: dict[str, str] = json.loads(capsys.readouterr().out)["error"]
    assert error["message"]
    assert error["hint"], "an error says what to type next"
    after = _contents(folder)
    assert {path: after.get(path) for path in before} == before
    return error


def _contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    "arguments",
    [["predict", "good.onnx"], ["profile"], ["search", "--latency-ms", "2"], ["validate", "good.onnx"]],
    ids=lambda words: words[0],
)
def test_a_device_that_does_not_exist(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _refused([*arguments, "--device", "rpi99"], folder, capsys, code=2)
    assert error["type"] == "UnknownNameError"
    assert "rpi99" in error["message"] and "rpi5" in error["message"]


@pytest.mark.parametrize("model", ["cut.onnx", "noise.onnx", "nothing.onnx", "absent.onnx"])
@pytest.mark.parametrize("command", sorted(WITH_MODEL))
def test_a_corrupt_model(command: str, model: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [model if word == "MODEL" else word for word in WITH_MODEL[command]]
    error = _refused(arguments, folder, capsys)
    assert error["type"] == "ModelError"
    assert model in error["message"]


@pytest.mark.parametrize("command", sorted(WITH_MODEL))
def test_a_dynamic_dimension_other_than_the_batch(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dynamic.onnx" if word == "MODEL" else word for word in WITH_MODEL[command]]
    error = _refused(arguments, folder, capsys)
    assert error["type"] == "ModelError"
    assert "height" in error["message"]
    assert "make_dynamic_shape_fixed --dim_param height" in error["hint"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("empty", "the folder empty is empty"),
        ("hollow", "without any image: cat, dog"),
        ("broken", "2 of 2 images in broken cannot be decoded"),
        ("listed", "lists 2 of 2 files that are not in listed"),
        ("images", "images but no labels"),
        ("cut.npz", "cut.npz is damaged"),
        ("pickled.npz", "holds Python objects"),
        ("alone", "of one class: cat"),
        ("short", "line 3 of short/labels.csv has not as many columns as its header"),
        ("absent", "there is no data at 'absent'"),
    ],
)
@pytest.mark.parametrize("command", [TRAIN, RUN], ids=["train", "run"])
def test_data_that_nobody_can_learn_from(
    command: list[str], data: str, found: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _refused([*command, data], folder, capsys)
    assert error["type"] == "DataError"
    assert found in error["message"]
    assert "0x" not in error["message"], "the address of an object is no information"


@pytest.mark.parametrize("option", ["--train-seconds", "--final-seconds", "--profile-time-limit"])
@pytest.mark.parametrize("value", ["0", "-1", "nan"])
def test_a_budget_that_is_none(
    option: str, value: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke([*RUN, "digits", option, value]) == 2
    assert "must be above 0" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_a_configuration_gives_options_and_the_line_wins(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "mine.toml"
    path.write_text('device = "rpi99"\n[run]\ndata = "absent"\nlatency_ms = 2.0\n')
    assert "no data at 'absent'" in _refused(["run", "--config", "mine.toml"], folder, capsys)["message"]
    error = _refused(["run", "--config", "mine.toml", "--data", "digits"], folder, capsys, code=2)
    assert "rpi99" in error["message"]
    path.rename(folder / "edgenas.toml")
    assert "no data at 'absent'" in _refused(["run"], folder, capsys)["message"]
    error = _refused(["run", "--latency-ms", "1", "--data", "empty"], folder, capsys)
    assert "empty is empty" in error["message"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[run]\nlatency = 2", "has latency"),
        ("run = 3", "has 3"),
        ("[run", "not valid TOML"),
        (None, "cannot be read"),
    ],
)
def test_a_configuration_that_is_wrong(
    content: str | None, found: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "mine.toml").write_text(content)
    assert invoke([*RUN, "digits", "--config", "mine.toml"]) == 2
    assert found in capsys.readouterr().err


def test_output_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(folder / "latency_tables")
    LatencyTable.open(folder / "latency_tables" / "local.sqlite", create=True, device="local").close()
    error = _refused(["table", "export", "local", "--output", "good.onnx/table.json"], folder, capsys)
    assert error["type"] == "EdgeNASError"
    assert "good.onnx" in error["message"]


@pytest.mark.parametrize("data", ["empty", "broken", "cut.npz", "absent", "listed"])
def test_samples_that_nobody_can_calibrate_with(
    data: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _refused([*QUANTIZE, data], folder, capsys)["type"] == "DataError"


@pytest.mark.parametrize("command", sorted(WITH_TABLE))
def test_a_table_from_a_newer_version(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = _refused(WITH_TABLE[command], folder, capsys)
    assert error["type"] == "TableError"
    assert "schema version 99" in error["message"]
