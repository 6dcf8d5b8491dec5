"""Hyper-parameters with the architecture: one study within the limits, pruned, and the same after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accuracy_source_contract import SMALL_SPACE, make_request, write_shades

pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
optuna = pytest.importorskip("optuna", reason="the study is Optuna's: pip install edgenas[optuna]")

from edgenas.errors import UsageError  # noqa: E402
from edgenas.pipeline import tuning  # noqa: E402
from edgenas.pipeline.accuracy_sources import get_source  # noqa: E402
from edgenas.pipeline.profile import profile  # noqa: E402
from edgenas.pipeline.search import search  # noqa: E402
from edgenas.pipeline.tuning import TuningLoop  # noqa: E402
from edgenas.search.problem import Floats, Genomes, Limit, Problem  # noqa: E402
from edgenas.training import from_scratch  # noqa: E402
from edgenas.training.from_scratch import Training  # noqa: E402
from edgenas.workspace import Workspace  # noqa: E402

TRIALS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tuning")
    (where / "small.toml").write_text(SMALL_SPACE)
    write_shades(where / "shades.npz")
    return where


def cost(genomes: Genomes) -> Floats:
    return np.asarray(1.0 + genomes.sum(axis=1), np.float64)


def loop(folder: Path, where: Path) -> TuningLoop:
    scoring = get_source("train")(replace(make_request(folder, name="source"), detail="3"))
    problem = Problem(scoring.space, metrics={"cost": cost}, limits=[Limit(metric="cost", maximum=5.0)])
    return TuningLoop(problem, scoring.source, evaluations=TRIALS, folder=where, seed=3, identity="test")


def made_up(training: Training) -> float:
    """Better with every epoch and with a learning rate near 0.1; in place of a real training."""
    distance = abs(np.log10(training.recipe.learning_rate) + 1.0)
    return float(0.9 - 0.3 * distance - 0.2 / training.until_epoch + 1e-3 * training.recipe.label_smoothing)


def test_one_study_trains_within_the_limits_and_prunes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_scratch, "trained_accuracy", made_up)
    whole = loop(folder, tmp_path)
    whole.run(lambda: None)
    assert len(whole.history) == TRIALS
    assert (cost(whole.history.genomes) <= 5.0).all()
    assert (whole.history.violations == 0).all()
    trials = whole._study.trials
    assert {trial.state.name for trial in trials} >= {"COMPLETE", "PRUNED"}
    rates = [whole.hyperparameters(row)["learning_rate"] for row in range(TRIALS)]
    assert len(set(rates)) == TRIALS
    best = whole.hyperparameters(int(np.argmax(whole.scores)))["learning_rate"]
    assert abs(np.log10(best) + 1) == min(abs(np.log10(rate) + 1) for rate in rates)


def test_a_killed_study_goes_on_in_the_epoch_where_it_was_killed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, int]] = []

    def counted(training: Training) -> float:
        if len(calls) == 11:
            raise KeyboardInterrupt
        calls.append((Path(training.folder).name, training.until_epoch))
        return made_up(training)

    monkeypatch.setattr(from_scratch, "trained_accuracy", made_up)
    whole = loop(folder, tmp_path / "whole")
    whole.run(lambda: None)
    monkeypatch.setattr(from_scratch, "trained_accuracy", counted)
    with pytest.raises(KeyboardInterrupt):
        loop(folder, tmp_path / "parts").run(lambda: None)
    calls.append(("killed", 0))
    parts = loop(folder, tmp_path / "parts")
    parts.run(lambda: None)
    assert len(set(calls)) == len(calls), "no epoch was trained twice"
    assert np.array_equal(parts.history.genomes, whole.history.genomes)
    assert np.array_equal(parts.scores, whole.scores)
    assert [parts.hyperparameters(row) for row in range(TRIALS)] == [
        whole.hyperparameters(row) for row in range(TRIALS)
    ]


def test_search_trains_for_real_and_says_with_what(folder: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    space, data = str(folder / "small.toml"), str(folder / "shades.npz")
    profile(device="local", space=(space,), precision=("fp32", "int8"), time_limit_s=8, workspace=workspace)
    found = search(
        latency_ms=(5.0,), device=("local",), space=space, data=data, accuracy="train:2", evaluations=3,
        hyperparameters=True, workspace=workspace,
    )  # fmt: skip
    assert (found.strategy, found.accuracy_source, found.evaluations) == ("tpe", "train", 3)
    assert found.best is not None
    assert 0.01 <= found.best.hyperparameters["learning_rate"] <= 0.4
    assert Path(found.path).with_name(tuning.STUDY).is_file()
    with pytest.raises(UsageError, match="searched by training"):
        search(
            latency_ms=(5.0,), device=("local",), space=space, accuracy="proxy", hyperparameters=True,
            workspace=workspace,
        )  # fmt: skip
