"""Every built-in accuracy source holds the one contract, and those of other packages are found by name."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accuracy_source_contract import SMALL_SPACE, AccuracySourceContract, make_request, write_shades

from edgenas.errors import UnknownNameError, UsageError
from edgenas.pipeline.accuracy_sources import ScoringRequest, get_source, resolved, source_names
from edgenas.pipeline.workers import LocalWorkers
from edgenas.search.predictor import AccuracyPredictor
from edgenas.search_spaces import get_space
from edgenas.search_spaces.counted import CountedSpace
from edgenas.search_spaces.wiring import ways_through


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("sources")
    (where / "small.toml").write_text(SMALL_SPACE)
    write_shades(where / "shades.npz")
    return where


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Path:
    pytest.importorskip("torch", reason="a supernet needs torch: pip install edgenas[train]")
    from edgenas.pipeline.train import train

    result = train(
        space=str(folder / "small.toml"), data=str(folder / "shades.npz"), folder=folder / "net", epochs=3
    )
    return Path(result.checkpoint)


class TestProxy(AccuracySourceContract):
    source = "proxy"

    @pytest.fixture
    def request_(self, folder: Path) -> ScoringRequest:
        return make_request(folder, name="proxy")


class TestTable(AccuracySourceContract):
    source = "table"

    @pytest.fixture
    def request_(self, folder: Path) -> ScoringRequest:
        request = make_request(folder, name="table")
        space = get_space(str(folder / "small.toml"))
        grid = np.indices(space.option_counts).reshape(len(space.choices), -1).T
        rows = [f"{' '.join(map(str, genome))},{sum(genome) / 20}" for genome in grid.tolist()]
        path = folder / "table.csv"
        path.write_text("\n".join(["genome,accuracy", *rows]) + "\n")
        return replace(request, detail=str(path))


class TestSupernet(AccuracySourceContract):
    source = "supernet"

    @pytest.fixture
    def request_(self, folder: Path, checkpoint: Path) -> ScoringRequest:
        return make_request(folder, name="supernet", checkpoint=checkpoint)


class TestPredictor(AccuracySourceContract):
    source = "predictor"

    @pytest.fixture
    def request_(self, folder: Path, checkpoint: Path) -> ScoringRequest:
        return replace(make_request(folder, name="predictor", checkpoint=checkpoint), detail="24")


class TestTrain(AccuracySourceContract):
    source = "train"

    @pytest.fixture
    def request_(self, folder: Path) -> ScoringRequest:
        pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
        return replace(make_request(folder, name="train"), detail="3")


def test_only_the_best_of_a_generation_are_trained_to_the_end(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")
    scoring = get_source("train")(replace(make_request(folder, name="-"), detail="9", folder=tmp_path))
    genomes = np.unique(scoring.space.sample(np.random.default_rng(3), 10), axis=0)[:7]
    scores = scoring.source.score(genomes)
    lines = [json.loads(line) for line in (tmp_path / "trainings.jsonl").read_text().splitlines()]
    reached = {line["network"]: line["accuracy"] for line in lines}
    assert [sum(key.endswith(f"@{epochs}") for key in reached) for epochs in (1, 3, 9)] == [7, 3, 1]
    for genome, score in zip(genomes, scores, strict=True):
        key = scoring.space.network(genome).fingerprint()
        assert score == reached[key] == [v for k, v in reached.items() if k.startswith(f"{key}@")][-1]
    assert [path.name for path in tmp_path.iterdir()] == ["trainings.jsonl"]  # no checkpoint is left


def test_a_killed_generation_goes_on_with_the_same_scores(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs torch: pip install edgenas[train]")

    class Dying(LocalWorkers):
        """Dies after four trainings."""

        def run(self, task, items):
            for index, result in super().run(task, items):
                yield index, result
                if len((tmp_path / "parts" / "trainings.jsonl").read_text().splitlines()) == 4:
                    raise KeyboardInterrupt

    whole, parts = (
        replace(make_request(folder, name="-"), detail="3", folder=tmp_path / name)
        for name in ("whole", "parts")
    )
    scoring = get_source("train")(whole)
    genomes = np.unique(scoring.space.sample(np.random.default_rng(4), 8), axis=0)[:6]
    expected = scoring.source.score(genomes)
    with pytest.raises(KeyboardInterrupt):
        get_source("train")(replace(parts, workers=Dying())).source.score(genomes)
    assert np.array_equal(get_source("train")(parts).source.score(genomes), expected)
    assert (tmp_path / "parts" / "trainings.jsonl").read_text() == (
        tmp_path / "whole" / "trainings.jsonl"
    ).read_text()


@pytest.mark.parametrize("detail", ["many", "0"])
def test_training_needs_a_number_of_epochs(folder: Path, detail: str) -> None:
    with pytest.raises(UsageError, match="number of epochs"):
        get_source("train")(replace(make_request(folder, name="-"), detail=detail))


def test_a_predictor_learns_and_knows_its_error() -> None:
    """Accuracies of a made-up space: most of them follow from the genes, the rest is noise."""
    space = get_space("mobilenetv3-32px")
    genomes = space.sample(np.random.default_rng(0), 900)
    gains = np.random.default_rng(1).normal(size=genomes.shape[1])
    accuracies = 0.5 + 0.1 * np.tanh(genomes @ gains / 8) + np.random.default_rng(2).normal(0, 0.004, 900)
    predictor = AccuracyPredictor(
        space.option_counts, genomes[:300], accuracies[:300], CountedSpace(space).traits
    )
    error = np.sqrt(np.mean((predictor.score(genomes[300:]) - accuracies[300:]) ** 2))
    assert error < 0.35 * accuracies.std()
    assert predictor.error.rmse == pytest.approx(error, rel=0.35)
    assert predictor.error.rank_correlation > 0.9
    assert predictor.error.networks == 300


def test_a_predictor_of_noise_says_that_it_learnt_nothing() -> None:
    space = get_space("mobilenetv3-32px")
    genomes = space.sample(np.random.default_rng(0), 200)
    noise = np.random.default_rng(1).normal(0.5, 0.05, 200)
    error = AccuracyPredictor(space.option_counts, genomes, noise, CountedSpace(space).traits).error
    assert error.rmse > 0.9 * error.spread
    assert abs(error.rank_correlation) < 0.3


def test_a_predictor_learns_from_traits_what_genes_say_only_together() -> None:
    """Accuracies that hang on the shortcuts through a cell."""
    space = get_space("nasbench201")
    genomes = np.unique(space.sample(np.random.default_rng(0), 120), axis=0)
    ways = [ways_through(space.network(genome).layers[1]) for genome in genomes]
    accuracies = np.array([0.9 - 0.2 / (1 + way.unchanged) - 0.3 / (1 + way.longest) for way in ways])
    ways_of = {
        genome.tobytes(): [way.unchanged, way.longest] for genome, way in zip(genomes, ways, strict=True)
    }
    errors = [
        AccuracyPredictor(space.option_counts, genomes, accuracies, traits).error.rmse
        for traits in (
            lambda told: np.array([ways_of[genome.tobytes()] for genome in told], np.float64),
            lambda told: np.zeros((len(told), 0)),
        )
    ]
    assert errors[0] < 0.3 * errors[1]


@pytest.mark.parametrize("detail", ["many", "3"])
def test_a_predictor_needs_a_number_of_networks(folder: Path, checkpoint: Path, detail: str) -> None:
    with pytest.raises(UsageError, match="at least 20"):
        get_source("predictor")(replace(make_request(folder, name="p", checkpoint=checkpoint), detail=detail))


def test_auto_is_the_supernet_where_there_is_one() -> None:
    assert resolved("auto", Path("supernet.pt")) == (get_source("supernet"), None)
    assert resolved("auto", None) == (get_source("proxy"), None)


def test_a_detail_stands_after_a_colon() -> None:
    assert resolved("proxy:macs", None) == (get_source("proxy"), "macs")


def test_an_unknown_source_is_told_what_there_is() -> None:
    with pytest.raises(UnknownNameError, match=r"known: auto, .*proxy"):
        get_source("nonsense")


def test_a_supernet_needs_a_checkpoint(folder: Path) -> None:
    with pytest.raises(UsageError) as error:
        get_source("supernet")(make_request(folder, name="none"))
    assert "--checkpoint" in str(error.value.hint)


FOREIGN = """
import numpy as np
from edgenas.pipeline.accuracy_sources import Scoring
from edgenas.search_spaces import get_space

class Halves:
    name = "halves"
    def score(self, genomes):
        return np.full(len(genomes), 0.5)

def factory(request):
    return Scoring(get_space(request.space), Halves(), "halves", 10)
"""


def test_a_source_of_another_package_is_found(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halves_source.py").write_text(FOREIGN)
    information = tmp_path / "halves_source-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: halves-source\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[edgenas.accuracy_sources]\nhalves = halves_source:factory\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "halves" in source_names()
    scoring = get_source("halves")(make_request(folder, name="halves"))
    genomes = get_space(str(folder / "small.toml")).sample(np.random.default_rng(0), 4)
    assert scoring.source.score(genomes).tolist() == [0.5] * 4
    sys.modules.pop("halves_source")
