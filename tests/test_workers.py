"""Candidates on Ray workers score as in this process, also where workers are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from accuracy_source_contract import SMALL_SPACE, make_request, write_shades

from edgenas.errors import UsageError
from edgenas.pipeline.accuracy_sources import get_source
from edgenas.pipeline.workers import RETRIES, LocalWorkers, Workers, connected_workers

needs_ray = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("ray") is None, reason="needs Ray: pip install edgenas[ray]"
)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two Ray workers, which find the functions of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with connected_workers("2") as connected:
            try:
                assert dict(connected.run(square, [2])) == {0: 4}
            except Exception as error:
                if "timed out during startup" not in str(error):  # Ray gives itself 30 seconds
                    raise
                pytest.skip("this machine is too busy for Ray to start")
            yield connected


def square(number: int) -> int:
    return number * number


def deadly(marks: Path, deaths: int, number: int) -> int:
    """Kills its own process for number 3, the first ``deaths`` times."""
    if number == 3:
        died = len(list(marks.iterdir()))
        if died < deaths:
            (marks / str(died)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def failing(number: int) -> int:
    raise ValueError(f"no {number}")


def test_this_process_does_it_where_nothing_else_is_asked() -> None:
    with connected_workers(None) as local:
        assert isinstance(local, LocalWorkers)
        assert dict(local.run(square, [3, 4])) == {0: 9, 1: 16}


@pytest.mark.parametrize("asked", ["0", "many", "-1"])
def test_workers_are_a_number_or_a_cluster(asked: str) -> None:
    with pytest.raises(UsageError, match="neither a number"), connected_workers(asked):
        pass


@needs_ray
def test_results_come_with_their_index(workers: Workers) -> None:
    assert dict(workers.run(square, range(6))) == {index: index**2 for index in range(6)}


@needs_ray
def test_a_killed_worker_costs_nothing_but_its_candidate(workers: Workers, tmp_path: Path) -> None:
    assert dict(workers.run(partial(deadly, tmp_path, 1), range(6))) == {i: i**2 for i in range(6)}
    assert len(list(tmp_path.iterdir())) == 1


@needs_ray
def test_a_candidate_that_keeps_killing_workers_is_given_up(workers: Workers, tmp_path: Path) -> None:
    expected = {index: index**2 for index in range(6)} | {3: None}
    assert dict(workers.run(partial(deadly, tmp_path, 99), range(6))) == expected
    assert len(list(tmp_path.iterdir())) == RETRIES + 1


@needs_ray
def test_an_error_of_the_work_is_raised_here(workers: Workers) -> None:
    with pytest.raises(ValueError, match="no 1"):
        list(workers.run(failing, [1]))


@needs_ray
@pytest.mark.parametrize("source", ["train:3", "supernet"])
def test_scores_are_those_of_this_process(source: str, workers: Workers, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
    from edgenas.pipeline.train import train

    (tmp_path / "small.toml").write_text(SMALL_SPACE)
    data = write_shades(tmp_path / "shades.npz")
    name, _, detail = source.partition(":")
    checkpoint = None
    if name == "supernet":
        space = str(tmp_path / "small.toml")
        checkpoint = Path(train(space=space, data=str(data), folder=tmp_path / "net", epochs=2).checkpoint)
    requests = [
        replace(make_request(tmp_path, name=where, checkpoint=checkpoint), detail=detail or None, workers=who)
        for where, who in (("here", LocalWorkers()), ("there", workers))
    ]
    scorings = [get_source(name)(request) for request in requests]
    genomes = np.unique(scorings[0].space.sample(np.random.default_rng(1), 6), axis=0)
    here, there = (scoring.source.score(genomes) for scoring in scorings)
    assert np.array_equal(here, there)
    assert scorings[0].identity == scorings[1].identity
