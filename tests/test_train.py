from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")

from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.pipeline.train import train
from edgenas.training.checkpoint import load_checkpoint
from edgenas.workspace import Workspace

SPACE = """
resolution = [12, 16]

[stem]
width = 8

[[stage]]
operator = ["fused", "depthwise"]
width = [8, 16]
depth = [1, 2]
stride = 2
expansion = [1, 2]
kernel = [3, 5]
precision = ["int8", "fp32"]

[head]
features = 16
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, bright and dark, in the layout that ``--data`` takes."""
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = generator.integers(0, 100, (80, 16, 16, 3)) + 120 * labels[:, None, None, None]
    path = tmp_path / "shades.npz"
    np.savez(
        path, x_train=images.astype(np.uint8), y_train=labels,
        x_test=images[:4].astype(np.uint8), y_test=labels[:4],
    )  # fmt: skip
    return path


@pytest.fixture
def space(tmp_path: Path) -> str:
    """A space of one's own that trains in a moment."""
    path = tmp_path / "small.toml"
    path.write_text(SPACE)
    return str(path)


def test_train_leaves_a_checkpoint_in_the_workspace_and_does_not_train_twice(
    data: Path, space: str, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path)
    result = train(space=space, data=str(data), epochs=2, workspace=workspace)
    assert Path(result.checkpoint) == tmp_path / "runs" / "train-small-shades" / "supernet.pt"
    assert (result.space, result.data, len(result.epochs)) == ("small", "shades", 2)
    assert 0.0 <= result.validation_accuracy <= 1.0
    written = Path(result.checkpoint).stat().st_mtime_ns
    assert train(space=space, data=str(data), epochs=2, workspace=workspace) == result
    assert Path(result.checkpoint).stat().st_mtime_ns == written


def test_a_training_killed_with_sigkill_ends_with_the_same_weights(
    data: Path, space: str, tmp_path: Path
) -> None:
    killed, whole, epochs = tmp_path / "killed", tmp_path / "whole", 6
    code = (
        "from edgenas.pipeline.train import train;"
        f"train(space={space!r}, data={str(data)!r}, folder={str(killed)!r}, epochs={epochs})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not (killed / "supernet.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline, "no epoch was finished in two minutes"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(load_checkpoint(killed / "supernet.pt")["epochs"]) < epochs
    for folder in (killed, whole):
        train(space=space, data=str(data), folder=folder, epochs=epochs)
    first, second = (load_checkpoint(folder / "supernet.pt") for folder in (killed, whole))
    assert all((first["module"][name] == tensor).all() for name, tensor in second["module"].items())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"space": "nonsense"}, UnknownNameError),
        ({"data": "nowhere.npz"}, DataError),
        ({"epochs": 0}, UsageError),
        ({"epochs": 1, "cpu_seconds": 5.0}, UsageError),
        ({"torch_device": "tpu"}, UsageError),
    ],
)
def test_wrong_options_are_one_clear_error(
    data: Path, space: str, tmp_path: Path, wrong: dict[str, object], error: type[Exception]
) -> None:
    options: dict[str, object] = {"space": space, "data": str(data), "workspace": Workspace(tmp_path)}
    with pytest.raises(error):
        train(**(options | wrong))  # type: ignore[arg-type]
    assert not (tmp_path / "runs").exists()
