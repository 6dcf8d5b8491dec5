"""Strategies keep their contract, a killed search goes on the same, and finalists are measured."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgenas.cli import cli
from edgenas.errors import ArtifactError, BudgetNotMetError, TableError, UsageError
from edgenas.pipeline.limits import networks_near
from edgenas.pipeline.profile import profile
from edgenas.pipeline.report import read_run, report
from edgenas.pipeline.search import search
from edgenas.pipeline.search_folder import default_folder_name, next_steps
from edgenas.pipeline.search_request import SearchRequest
from edgenas.records import SEARCH_VERSION
from edgenas.search.evolution import Evolution
from edgenas.search.loop import SearchLoop
from edgenas.search.pareto import best_first, front
from edgenas.search.problem import Floats, Genomes, Limit, Problem
from edgenas.search.random_search import RandomSearch
from edgenas.search.strategy import Strategy
from edgenas.search_spaces import get_space
from edgenas.workspace import Workspace

SPACE = get_space("nasbench-macro")
STRATEGIES = [Evolution, RandomSearch]


def cost(genomes: Genomes) -> Floats:
    """A made-up latency: every gene's option adds its number, the later genes more."""
    return 1.0 + (genomes * np.arange(1, genomes.shape[1] + 1)).sum(axis=1)


class Weighted:
    """A made-up accuracy that rewards what costs."""

    name = "weighted"

    def score(self, genomes: Genomes) -> Floats:
        return np.asarray((genomes**0.5).sum(axis=1) / 20.0)


def problem(limit: float = 30.0) -> Problem:
    limits = [Limit(metric="latency_ms:toy", maximum=limit)]
    return Problem(SPACE, metrics={"latency_ms:toy": cost}, limits=limits)


@pytest.fixture(params=STRATEGIES, ids=lambda strategy: strategy.name)
def kind(request: pytest.FixtureRequest) -> type[Strategy]:
    found: type[Strategy] = request.param
    return found


def asked(strategy: Strategy, rounds: int) -> list[Genomes]:
    generations = []
    for _ in range(rounds):
        genomes = strategy.ask()
        scores = Weighted().score(genomes)
        strategy.tell(genomes, strategy.problem.objective_values(genomes, {"accuracy": scores}))
        generations.append(genomes)
    return generations


def test_a_seed_gives_the_same_proposals(kind: type[Strategy]) -> None:
    one, other = (asked(kind(problem(), seed=3, evaluations=100), 4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_nothing_is_proposed_twice_or_beyond_the_limit(kind: type[Strategy]) -> None:
    proposed = np.concatenate(asked(kind(problem(), seed=1, evaluations=100), 6))
    assert len(np.unique(proposed, axis=0)) == len(proposed)
    assert (cost(proposed) <= 30.0).all()
    assert np.array_equal(SPACE.canonical(proposed), proposed)


def test_evolution_finds_better_than_random_at_equal_budget() -> None:
    def best(kind: type[Strategy], seed: int) -> float:
        strategy = kind(problem(), seed=seed, evaluations=120)
        while len(strategy.history) < 120:
            asked(strategy, 1)
        return float(-strategy.history.objectives[:120, 0].min())

    gains = [best(Evolution, seed) - best(RandomSearch, seed) for seed in range(4)]
    assert np.mean(gains) > 0
    assert min(gains) >= 0


def loop(folder: Path, kind: type[Strategy], evaluations: int = 72) -> SearchLoop:
    strategy = kind(problem(), seed=5, evaluations=evaluations)
    path = folder / "state.json"
    return SearchLoop(strategy, Weighted(), evaluations=evaluations, path=path, identity={"scores": "w"})


def test_a_killed_search_goes_on_with_the_same_proposals(kind: type[Strategy], tmp_path: Path) -> None:
    whole = loop(tmp_path / "whole", kind)
    whole.run(lambda: None)

    class KilledError(Exception):
        pass

    def kill() -> None:
        raise KilledError

    parts = tmp_path / "parts"
    while len((part := loop(parts, kind)).history) < 72:
        with pytest.raises(KilledError):
            part.run(kill)
    assert np.array_equal(part.history.genomes, whole.history.genomes)
    assert np.array_equal(part.history.objectives, whole.history.objectives)


def test_scores_of_another_search_do_not_count(tmp_path: Path) -> None:
    loop(tmp_path, RandomSearch).run(lambda: None)
    assert len(loop(tmp_path, Evolution).history) == 0


def test_a_search_of_another_version_begins_anew(tmp_path: Path) -> None:
    loop(tmp_path, Evolution).run(lambda: None)
    state = tmp_path / "state.json"
    content = json.loads(state.read_text())
    content["identity"]["version"] -= 1
    content["state"] = {}  # nobody knows what it held
    state.write_text(json.dumps(content))
    assert len(loop(tmp_path, Evolution).history) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_nothing_dominates_the_front_and_it_dominates_the_rest(points: list[tuple[int, int]]) -> None:
    values = np.array(points, np.float64)
    on_front = values[front(values)]
    for point in values:
        better = (on_front <= point).all(axis=1)
        assert better.any()
    for point in on_front:
        assert not ((values <= point).all(axis=1) & (values < point).any(axis=1)).any()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_what_keeps_the_limits_comes_before_what_does_not(rows: list[tuple[int, int]]) -> None:
    objectives = np.array([[row[0]] for row in rows], np.float64)
    violations = np.array([row[1] for row in rows], np.float64)
    ordered = violations[best_first(objectives, violations)]
    assert (np.diff(ordered) >= 0).all()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a small table of the demo's space, on this machine."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    profile(
        device="local",
        space=("mobilenetv3-demo",),
        precision=("fp32", "int8"),
        time_limit_s=12,
        workspace=workspace,
    )
    return workspace


def test_the_best_keeps_the_limit_by_measurement_and_is_on_disk(measured: Workspace) -> None:
    found = search(
        latency_ms=(5.0,), device=("local",), space="mobilenetv3-demo", evaluations=24, strategy="random",
        workspace=measured,
    )  # fmt: skip
    assert found.best is not None
    assert found.best.latency_source == "measured"
    assert found.best.latency_ms["local"] <= 5.0
    assert found.accuracy_source.startswith("proxy")
    assert Path(found.path).is_file()
    folder = Path(found.path).parent.name
    assert re.fullmatch("search-mobilenetv3-demo-proxy-local-5ms-random-[0-9a-f]{8}", folder)
    page, whole = found.next_steps
    assert report(page.split()[-1], workspace=measured).is_file()
    assert whole.split()[:2] == ["edgenas", "run"]
    assert {"--latency-ms 5", "--space mobilenetv3-demo", "--data DATA"} <= set(pairs(whole))


def pairs(command: str) -> list[str]:
    """The options of a command, each with its value."""
    words = command.split()[2:]
    return [" ".join(pair) for pair in zip(words[::2], words[1::2], strict=True)]


def test_the_next_command_is_one_that_the_command_line_takes() -> None:
    options: dict[str, Any] = {
        "space": "my space.toml", "data": "a b.npz", "devices": ("rpi4",), "limits_ms": (5.0,),
        "threads": 2, "seed": 7, "further_limits": {},
    }  # fmt: skip
    page, whole = next_steps(Path("runs/search-x"), found=True, **options)
    assert page == "edgenas report search-x"
    name, *arguments = shlex.split(whole)[1:]
    told = cli.commands[name].make_context(name, arguments).params
    assert (told["space"], told["data"], told["latency_ms"]) == ("my space.toml", "a b.npz", 5.0)
    assert (told["threads"], told["seed"]) == (2, 7)
    plain = next_steps(Path("runs/search-x"), found=True, **{**options, "threads": None, "seed": 0})
    assert not {"--threads", "--seed"} & set(plain[1].split())
    assert next_steps(Path("runs/search-x"), found=False, **options) == (page,)
    limited = {**options, "further_limits": {"size_mb": 1.0}}
    assert next_steps(Path("runs/search-x"), found=True, **limited) == (page,)  # run would not keep it


def asked_for(root: Path, **other: Any) -> SearchRequest:
    usual: dict[str, Any] = {
        "latency_ms": (20.0,), "device": ("rpi4",), "space": None, "strategy": "evolution",
        "accuracy": "auto",
        "checkpoint": None, "data": None, "proxy": None, "objective": (), "counted": {}, "weights": {},
        "shrink": False, "pressure": "constant", "evaluations": None, "threads": None, "seed": 0,
        "asked_folder": None, "workers": None, "hyperparameters": False, "workspace": Workspace(root),
    }  # fmt: skip
    return SearchRequest(**{**usual, **other})


def test_whatever_makes_another_search_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in ("space.toml", "acc.csv", "supernet.pt", "data.npz"):
            (tmp_path / name / file).touch()
    a, b = tmp_path / "a", tmp_path / "b"
    others: list[dict[str, Any]] = [
        *({"space": "dense-32px", "checkpoint": one / "supernet.pt"} for one in (a, b)),
        *({"checkpoint": a / "supernet.pt", "data": str(one / "data.npz")} for one in (a, b)),
        {"checkpoint": a / "supernet.pt", "data": "digits"},
        *({"accuracy": f"table:{one / 'acc.csv'}"} for one in (a, b)),
        *({"space": str(one / "space.toml")} for one in (a, b)),
        *({"counted": {name: most}} for name in ("size_mb", "macs") for most in (1.0, 2.0)),
        *({"weights": {"latency_ms": value}} for value in (0.1, 0.2)),
        {"shrink": True}, {"pressure": "relaxing"}, {"threads": 2}, {"evaluations": 900},
        {"latency_ms": (20.0000001,)},
    ]  # fmt: skip
    names = [asked_for(tmp_path, **other).folder.name for other in [{}, *others]]
    assert names[0] == "search-default-proxy-rpi4-20ms"
    assert len(set(names)) == len(names)
    assert all(len(name) < 80 for name in names)


def test_a_search_keeps_its_folder_where_nothing_else_is_searched(tmp_path: Path) -> None:
    checkpoint = tmp_path / "runs" / "train-x" / "supernet.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    usual = {"checkpoint": checkpoint, "counted": {"size_mb": 1.0, "macs": None}}
    first = asked_for(tmp_path, **usual).folder.name
    assert asked_for(tmp_path, **usual, workers="4").folder.name == first
    weights = {"latency_ms": 0.1, "macs": 0.2}
    one, other = (asked_for(tmp_path, weights=dict(order)) for order in (weights, reversed(weights.items())))
    assert one.folder == other.folder
    moved = tmp_path.rename(tmp_path.with_name("elsewhere"))
    there = {**usual, "checkpoint": moved / "runs" / "train-x" / "supernet.pt"}
    assert asked_for(moved, **there).folder.name == first


def test_a_search_of_a_newer_version_is_refused_and_an_older_one_read(
    measured: Workspace, tmp_path: Path
) -> None:
    found = search(
        latency_ms=(5.0,), device=("local",), space="mobilenetv3-demo", evaluations=4, strategy="random",
        folder=tmp_path, workspace=measured,
    )  # fmt: skip
    assert found.schema_version == SEARCH_VERSION
    content = json.loads(Path(found.path).read_text())
    del content["schema_version"]
    Path(found.path).write_text(json.dumps(content))
    assert read_run(tmp_path).search is not None
    Path(found.path).write_text(json.dumps({**content, "schema_version": SEARCH_VERSION + 1}))
    with pytest.raises(ArtifactError, match=f"reads {SEARCH_VERSION}"):
        read_run(tmp_path)


def test_searches_that_differ_do_not_share_a_folder() -> None:
    usual: dict[str, Any] = {
        "space": None, "source": "proxy", "checkpoint": None, "devices": ("rpi4",), "latency_ms": (20.0,),
        "strategy": "evolution", "objectives": (), "hyperparameters": False, "seed": 0, "further": {},
    }  # fmt: skip
    others: list[dict[str, Any]] = [
        {"source": "proxy:zen"},
        {"source": "supernet", "checkpoint": Path("runs/train-demo-digits/supernet.pt")},
        {"source": "supernet", "checkpoint": Path("runs/train-demo-cifar10/supernet.pt")},
        {"source": "table:scores/mine.csv"},
        {"space": "spaces/mine.toml"},
        {"devices": ("rpi4", "local")},
        {"latency_ms": (10.0,)},
        {"strategy": "random"},
        {"objectives": ("latency_ms:rpi4",)},
        {"source": "train"},
        {"source": "train", "hyperparameters": True},
        {"seed": 3},
    ]
    names = [default_folder_name(**{**usual, **other}) for other in [{}, *others]]
    assert names[0] == "search-default-proxy-rpi4-20ms"
    assert names[2] == "search-train-demo-digits-supernet-rpi4-20ms"
    assert len(set(names)) == len(names)
    assert all(Path(name).name == name and name.count(":") == 0 for name in names)


def test_a_predictor_proposes_and_the_supernet_has_the_last_word(measured: Workspace, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="a supernet needs torch: pip install edgenas[train]")
    from accuracy_source_contract import write_shades

    from edgenas.pipeline.train import train

    data = str(write_shades(tmp_path / "shades.npz"))
    trained = train(space="mobilenetv3-demo", data=data, folder=tmp_path, epochs=2, seed=1)
    found = search(
        latency_ms=(5.0,), device=("local",), accuracy="predictor:20", checkpoint=Path(trained.checkpoint),
        data=data, evaluations=2400, workspace=measured, folder=tmp_path / "search",
    )  # fmt: skip
    assert found.evaluations == 2400
    assert found.accuracy_source == "predictor"
    assert found.accuracy_rmse is not None
    assert found.best is not None
    assert found.best.accuracy_source == "supernet"
    scored = len((tmp_path / "search" / "scores.jsonl").read_text().splitlines())
    assert 20 <= scored <= 20 + 24  # the sample and the finalists, not the 2,400


def test_further_objectives_limits_and_a_smaller_space_end_in_the_record(measured: Workspace) -> None:
    found = search(
        latency_ms=(5.0,), device=("local",), space="mobilenetv3-demo", evaluations=40, workspace=measured,
        objective=("latency_ms", "size_mb"), size_mb=0.05, shrink=True, pressure="relaxing",
    )  # fmt: skip
    assert found.objectives == ("accuracy", "latency_ms:local", "size_mb")
    assert found.best is not None
    assert found.best.size_mb is not None
    assert found.best.size_mb <= 0.05
    assert all(one.size_mb is not None and one.size_mb <= 0.05 for one in found.front)
    assert len(found.front) > 1
    assert found.hypervolume[-1].evaluations == 40


def test_a_count_out_of_reach_names_the_least(measured: Workspace) -> None:
    with pytest.raises(BudgetNotMetError, match="the least that a network of 'mobilenetv3-demo' has"):
        search(latency_ms=(5.0,), device=("local",), space="mobilenetv3-demo", macs=10.0, workspace=measured)


def test_an_unreachable_limit_names_the_fastest(measured: Workspace) -> None:
    with pytest.raises(BudgetNotMetError, match=r"the fastest network of 'mobilenetv3-demo' takes"):
        search(latency_ms=(1e-6,), device=("local",), space="mobilenetv3-demo", workspace=measured)


def test_options_that_would_do_nothing_are_refused(measured: Workspace) -> None:
    options = {"latency_ms": (5.0,), "device": ("local",), "space": "mobilenetv3-demo", "workspace": measured}
    with pytest.raises(UsageError, match="scores in this process"):
        search(**options, accuracy="proxy", workers="1")
    with pytest.raises(UsageError, match="searched by training"):
        search(**options, accuracy="proxy", hyperparameters=True)


def test_limits_and_devices_must_fit(measured: Workspace) -> None:
    with pytest.raises(UsageError, match="2 latency limits"):
        search(latency_ms=(1.0, 2.0), device=("local",), space="mobilenetv3-demo", workspace=measured)


def test_a_device_without_a_table_is_told_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no latency table") as error:
        search(latency_ms=(1.0,), device=("local",), space="mobilenetv3-demo", workspace=Workspace(tmp_path))
    assert "edgenas profile" in error.value.hint


@pytest.mark.parametrize("share", [0.02, 0.3, 5.0], ids=["tight", "between", "loose"])
def test_what_is_near_a_limit_keeps_it_and_uses_most_of_it(share: float) -> None:
    fastest, slowest = (cost(genome[None])[0] for genome in (SPACE.smallest(), SPACE.largest()))
    limit = fastest + share * (slowest - fastest)
    pool = networks_near(SPACE, cost, limit, seed=3)  # type: ignore[arg-type]
    assert len(np.unique(pool, axis=0)) == len(pool) <= 4096
    reached = cost(pool)
    assert reached.max() <= limit
    assert reached.min() >= 0.6 * reached.max()
    assert reached.max() > min(limit, slowest) - 1.0, "costs are whole numbers"
    assert np.array_equal(pool, networks_near(SPACE, cost, limit, seed=3))  # type: ignore[arg-type]
