"""profile, search, quantize and validate on a virtual ARM board over ssh, through the command line.

While it profiles the connection is cut, and while it quantizes the board is killed: nothing that was
measured is measured again, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_fixture import DEVICE, board_here

from edgenas.measuring.virtual_board import VirtualBoard

pytestmark = pytest.mark.slow

IMAGES = 64
COMMAND_S = 1200.0  # minutes on a busy machine; a command that hangs must not hold CI up
SPACE = """
resolution = 16
[stem]
width = 8
precision = "fp32"
stride = 2
[[stage]]
operator = "fused"
width = [8, 16]
depth = [1, 2]
expansion = 1
precision = "fp32"
[[stage]]
operator = "depthwise"
stride = 2
width = [16, 24]
depth = 1
expansion = 2
precision = "fp32"
[head]
precision = "fp32"
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualBoard]:
    with board_here(tmp_path_factory.mktemp("boards")) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a tiny space and images of two classes that differ in colour."""
    workspace = tmp_path_factory.mktemp("chain")
    (workspace / "tiny.toml").write_text(SPACE)
    generator = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 2
    images = generator.integers(0, 128, (IMAGES, 16, 16, 3)) + 127 * labels[:, None, None, None]
    np.savez(workspace / "images.npz", x_train=images.astype(np.uint8), y_train=labels)
    return workspace


@dataclass
class Accident:
    """Happens once, while a command runs, as soon as ``due`` is true."""

    due: Callable[[], bool]
    act: Callable[[], None]
    happened: bool = False

    def look(self) -> None:
        if not self.happened and self.due():
            self.happened = True
            self.act()


def edgenas(folder: Path, *arguments: str, accident: Accident | None = None) -> dict[str, Any]:
    """What a command answers, and what it said meanwhile as ``messages``."""
    command = [sys.executable, "-m", "edgenas", *arguments, "--json"]
    source = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{source}:{os.environ.get('PYTHONPATH', '')}"}
    output, messages = folder / "stdout", folder / "stderr"
    with output.open("w") as out, messages.open("w") as err:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=environment)
        deadline = time.monotonic() + COMMAND_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            if accident is not None:
                accident.look()
            time.sleep(0.05)
    assert process.returncode == 0, messages.read_text()[-3000:] + output.read_text()[-2000:]
    assert accident is None or accident.happened
    return {**json.loads(output.read_text()), "messages": messages.read_text()}


def cut_connection(board: VirtualBoard) -> None:
    """Kills the ssh clients that talk to the board; the board itself notices nothing else."""
    config = str(board.ssh_config).encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if arguments[0] == b"ssh" and config in arguments:
            os.kill(int(entry.parent.name), signal.SIGKILL)


def kill_board(board: VirtualBoard) -> None:
    """The power fails; the board comes up again with nothing of what was on its disk."""
    assert board.process is not None
    os.kill(board.process, signal.SIGKILL)
    while board.process is not None:
        time.sleep(0.05)
    board.start()


def rows(folder: Path, query: str) -> list[Any]:
    path = folder / "latency_tables" / f"{DEVICE}.sqlite"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []  # the table is being made


def keys_of(trials: Path) -> list[str]:
    """The keys of the lines that are there in full."""
    text = trials.read_text() if trials.exists() else ""
    return [json.loads(line)["key"] for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_chain_goes_on_after_a_cut_connection_and_a_killed_board(board: VirtualBoard, folder: Path) -> None:
    device = ("--device", DEVICE)
    measured = "SELECT model_sha256, pass FROM latencies"

    profile = ("profile", *device, "--space", "tiny.toml", "--precision", "fp32")
    accident = Accident(lambda: bool(rows(folder, measured)), lambda: cut_connection(board))
    first = edgenas(folder, *profile, accident=accident)
    assert "was lost" in first["messages"]
    assert first["failed_networks"] == 0
    latencies = rows(folder, measured)
    assert len(latencies) == first["measured_networks"] == len(set(latencies))
    again = edgenas(folder, *profile)
    assert (again["measured_networks"], again["reused_networks"]) == (0, first["measured_networks"])
    assert rows(folder, measured) == latencies

    search = ("search", *device, "--space", "tiny.toml", "--latency-ms", "50", "--evaluations", "40")
    found = edgenas(folder, *search)
    assert found["best"]["latency_source"] == "measured"
    assert found["virtual_devices"] == [DEVICE]
    # The tiny space gives the table six networks to learn from.
    assert found["best"]["latency_ms"][DEVICE] == pytest.approx(
        found["best"]["predicted_ms"][DEVICE], rel=0.2
    )
    model = build(folder, found["best"]["candidate"])

    trials = folder / "best-int8.trials" / "trials.jsonl"
    quantize = ("quantize", model, *device, "--calibration", "images.npz", "--output", "best-int8.onnx")
    accident = Accident(lambda: len(keys_of(trials)) >= 4, lambda: kill_board(board))
    chosen = edgenas(folder, *quantize, accident=accident)
    assert "connecting again" in chosen["messages"]
    keys = keys_of(trials)
    assert len(keys) == len(set(keys))
    assert not [trial for trial in chosen["tried"] if trial["verdict"] == "failed"]
    assert edgenas(folder, *quantize)["scheme"] == chosen["scheme"]
    assert keys_of(trials) == keys

    validate = ("validate", "best-int8.onnx", *device, "--reference", model, "--data", "images.npz")
    verdict = edgenas(folder, *validate, "--max-drop", "0.5", "--latency-ms", "50")
    assert verdict["verdict"] == "pass"
    assert verdict["virtual_clock"] and chosen["virtual_clock"]
    assert verdict["accuracy"] is not None
    assert verdict["latency_ms"] == pytest.approx(chosen["latency_ms"], rel=0.03)


def build(folder: Path, genes: dict[str, Any]) -> str:
    """The model of a candidate, with weights that were never trained."""
    import onnx

    from edgenas.search_spaces import build_onnx, get_space

    space = get_space(str(folder / "tiny.toml"), classes=2)
    onnx.save(build_onnx(space.network(space.genome_of(genes))), str(folder / "best.onnx"))
    return "best.onnx"
