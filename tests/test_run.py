"""``run`` as a process on real digits: the bundle, what a kill costs, what a missed limit leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="run trains: pip install edgenas[train]")

from bench.kill_resume import (
    STAGES,
    Killed,
    Place,
    begin_alike,
    differences,
    files,
    finish,
    kill_in,
    killed_run,
    outcome_differences,
    run_command,
)
from edgenas.cli import invoke
from edgenas.errors import BudgetNotMetError
from edgenas.pipeline import search_reach, search_request
from edgenas.pipeline import train as train_stage
from edgenas.pipeline.bundle import verify_bundle
from edgenas.pipeline.run import run
from edgenas.search_spaces import get_space
from edgenas.training import SupernetAccuracy
from edgenas.workspace import Workspace

SPACE = """
resolution = [12, 16]

[stem]
width = 8

[[stage]]
operator = "fused"
width = [8, 16]
depth = 1
expansion = [1, 2]
precision = ["int8", "fp32"]

[[stage]]
operator = "depthwise"
stride = 2
width = [16, 24]
depth = [1, 2]
kernel = [3, 5]
expansion = [1, 2]
precision = ["int8", "fp32"]

[head]
features = 32
"""
NAME = "digits"
TINY_OPTIONS = (
    *("--space", "tiny.toml", "--train-seconds", "1", "--final-seconds", "0.6", "--evaluations", "20"),
    *("--profile-time-limit", "10s", "--threads", "1"),  # on a busy machine two seconds measure nothing
)
BUNDLE = {"model.onnx", "model-fp32.onnx", "manifest.json", "infer.py", "report.html"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny space and scikit-learn's digits at twice their size."""
    from sklearn.datasets import load_digits

    folder = tmp_path_factory.mktemp("template")
    digits = load_digits()
    pixels = np.kron(digits.images * 15, np.ones((1, 2, 2))).astype(np.uint8)
    np.savez(
        folder / "digits.npz",
        x_train=pixels[:300], y_train=digits.target[:300],
        x_test=pixels[300:360], y_test=digits.target[300:360],
    )  # fmt: skip
    (folder / "tiny.toml").write_text(SPACE)
    return folder


def _place(root: Path, template: Path) -> Place:
    root.mkdir()
    for path in template.iterdir():
        (root / path.name).write_bytes(path.read_bytes())
    return Place(root, NAME)


def _command(latency_ms: float = 5.0) -> list[str]:
    return run_command("digits.npz", "local", latency_ms, NAME, *TINY_OPTIONS)


@pytest.fixture(scope="module")
def interrupted(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Killed]:
    """A run that was killed in two stages and then ended."""
    place = _place(tmp_path_factory.mktemp("killed") / "workspace", template)
    return place, killed_run(_command(), place, ("search", "quantize"))


def test_a_killed_run_ends_with_a_whole_bundle_and_does_nothing_twice(
    interrupted: tuple[Place, Killed],
) -> None:
    place, found = interrupted
    assert [kill.hit for kill in found.kills] == [True, True]
    assert found.exit_code == 0
    assert (found.repeated, found.lost) == ([], [])
    assert {path.name for path in place.run.iterdir()} >= BUNDLE
    assert verify_bundle(place.run).verdict == "pass"
    assert not [path for path in files(place) if path.endswith(".unfinished")]


def test_a_killed_run_ends_like_one_that_was_left_alone(
    interrupted: tuple[Place, Killed], template: Path, tmp_path: Path
) -> None:
    """The same proposals, scores and weights; from quantization on the clock decides, so it ends there."""
    whole = _place(tmp_path / "whole", template)
    begin_alike(interrupted[0], whole)
    assert kill_in("quantize", _command(), whole)
    assert outcome_differences(interrupted[0], whole) == []


def test_the_model_of_the_bundle_classifies_without_the_package(interrupted: tuple[Place, Killed]) -> None:
    folder = interrupted[0].run
    np.save(folder.parent / "image.npy", np.zeros((16, 16, 3), np.uint8))
    done = subprocess.run(
        [sys.executable, "infer.py", "../image.npy"],
        cwd=folder, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["search", "run"])
def test_a_limit_out_of_reach_says_what_the_fastest_candidate_takes(
    command: str,
    interrupted: tuple[Place, Killed],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(interrupted[0].root)
    options = ["--device", "local", "--space", "tiny.toml", "--latency-ms", "1e-6", "--threads", "1"]
    options += ["--data", "digits.npz", "--name", "unreachable"] if command == "run" else []
    options += ["--profile-time-limit", "1s"] if command == "run" else []
    assert invoke([command, *options, "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "BudgetNotMetError"
    assert "asked for 1e-06 ms on 'local'; the fastest network of 'tiny' takes" in error["message"]
    assert "--latency-ms" in error["hint"]
    assert not (interrupted[0].root / "runs" / "unreachable" / "train.json").exists()


def test_a_limit_that_measurements_miss_is_bundled_as_a_failure(
    interrupted: tuple[Place, Killed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table promises half of what the device takes, so no finalist keeps what was predicted."""
    place = Place(tmp_path / "workspace", NAME)
    shutil.copytree(interrupted[0].root, place.root)
    monkeypatch.chdir(place.root)
    honest = search_request.compiled_latency

    def optimistic(*arguments: Any, **options: Any) -> Callable[[Any], Any]:
        latency = honest(*arguments, **options)

        def halved(genomes: Any) -> Any:
            return latency(genomes) / 2

        halved.transfer = None  # type: ignore[attr-defined]
        return halved

    for stage in (train_stage, search_reach, search_request):
        monkeypatch.setattr(stage, "compiled_latency", optimistic)
    space = get_space("tiny.toml")
    promised = optimistic(space, "local", threads=1, workspace=Workspace())
    fastest_ms = float(promised(space.sample(np.random.default_rng(0), 4096)).min())
    options = {"device": "local", "data": "digits.npz", "space": "tiny.toml", "name": NAME, "threads": 1}
    training = {"train_seconds": 1.0, "final_seconds": 0.2, "evaluations": 8, "profile_time_limit_s": 2.0}
    with pytest.raises(BudgetNotMetError, match="the fastest network of 'tiny' takes"):
        run(latency_ms=fastest_ms / 3, **options, **training)
    found = run(latency_ms=fastest_ms * 1.05, **options, **training)
    assert found.verdict == "fail"
    assert found.latency_ms > found.latency_limit_ms
    assert verify_bundle(place.run).verdict == "fail"
    assert {path.name for path in place.run.iterdir()} >= BUNDLE


def test_a_search_that_the_user_stops_stops_the_run_and_goes_on_later(
    interrupted: tuple[Place, Killed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "workspace", NAME)
    shutil.copytree(interrupted[0].root, place.root)
    monkeypatch.chdir(place.root)
    score, scored = SupernetAccuracy.score, list[int]()

    def stopped(self: SupernetAccuracy, genomes: Any) -> Any:
        if scored:
            raise KeyboardInterrupt
        scored.append(len(genomes))
        return score(self, genomes)

    monkeypatch.setattr(SupernetAccuracy, "score", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(
            latency_ms=5.0, device="local", data="digits.npz", space="tiny.toml", name=NAME, threads=1,
            train_seconds=1.0, evaluations=200,
        )  # fmt: skip
    found = json.loads((place.work / "search" / "search.json").read_text())
    assert found["interrupted"]
    assert found["evaluations"] == sum(scored)
    assert json.loads((place.run / "search.json").read_text())["evaluations"] == 20, "the stage is not done"


@pytest.mark.slow
@pytest.mark.skipif(
    "EDGENAS_TEST_KILLS" not in os.environ,
    reason="killing every stage takes a minute: set EDGENAS_TEST_KILLS=1",
)
def test_a_run_may_be_killed_in_every_stage(template: Path, tmp_path: Path) -> None:
    killed, whole = _place(tmp_path / "killed", template), _place(tmp_path / "whole", template)
    found = killed_run(_command(), killed, STAGES)
    assert [kill.stage for kill in found.kills if kill.hit] == list(STAGES)
    assert (found.exit_code, found.repeated, found.lost) == (0, [], [])
    begin_alike(killed, whole)
    assert finish(_command(), whole) == 0
    assert differences(killed, whole) == []
