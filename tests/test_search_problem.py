"""Objectives, limits and weights by name; counts; shrinking by a table; pressure; hypervolume."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from strategy_contract import accuracy, grid_problem

from edgenas.errors import DataError, UnknownNameError, UsageError
from edgenas.pipeline.accuracy_sources import ScoringRequest
from edgenas.pipeline.scoring_proxy import PROXY_NAMES, proxy_scoring
from edgenas.pipeline.scoring_table import read_accuracies, table_scoring
from edgenas.pipeline.search_problem import build_problem
from edgenas.search.choice_distribution import ChoiceDistribution
from edgenas.search.expectation import FittedExpectation
from edgenas.search.hypervolume_curve import hypervolume_over_evaluations
from edgenas.search.loop import SearchLoop
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.schedule import PressureSchedule
from edgenas.search.shrinking import shrink
from edgenas.search.strategies import get_strategy
from edgenas.search_spaces import RestrictedSpace, get_space, macs, parameters, weight_bytes
from edgenas.search_spaces.counted import CountedSpace
from edgenas.workspace import Workspace

SPACE = get_space("mobilenetv3-demo")


def latency(genomes: Genomes) -> Floats:
    """A made-up latency in ms: every option adds."""
    return 1.0 + 0.1 * genomes.sum(axis=1)


def problem(**options: object) -> Problem:
    return build_problem(
        SPACE, {"a": latency, "b": lambda g: 2 * latency(g)}, limits_ms=(2.0, 4.5), **options
    )  # type: ignore[arg-type]


def test_counts_are_those_of_the_networks() -> None:
    genomes = SPACE.sample(np.random.default_rng(0), 30)
    networks = [SPACE.network(genome) for genome in genomes]
    counted = CountedSpace(SPACE)
    assert counted.macs(genomes).tolist() == [macs(one) for one in networks]
    assert counted.parameters(genomes).tolist() == [parameters(one) for one in networks]
    assert np.allclose(counted.size_mb(genomes) * 1e6, [weight_bytes(one) for one in networks])
    assert (counted.memory_mb(genomes) > counted.size_mb(genomes)).all()


def test_every_device_has_its_own_limit_and_latency_stands_for_all_of_them() -> None:
    found = problem(objectives=("latency_ms", "size_mb"), limits={"macs": 1e6})
    assert found.objectives == ("accuracy", "latency_ms:a", "latency_ms:b", "size_mb")
    assert {limit.metric: limit.maximum for limit in found.limits} == {
        "latency_ms:a": 2.0, "latency_ms:b": 4.5, "macs": 1e6
    }  # fmt: skip


def test_strategies_see_the_traits_of_the_spaces_networks() -> None:
    genomes = SPACE.sample(np.random.default_rng(0), 5)
    assert (problem().traits(genomes) == CountedSpace(SPACE).traits(genomes)).all()


def test_one_device_can_be_named_as_an_objective() -> None:
    assert problem(objectives=("latency_ms:b",)).objectives == ("accuracy", "latency_ms:b")


def test_energy_without_a_meter_is_refused_and_unknown_names_are_listed() -> None:
    with pytest.raises(UsageError, match="never estimated"):
        problem(objectives=("energy",))
    with pytest.raises(UnknownNameError, match="size_mb"):
        problem(objectives=("sise_mb",))
    with pytest.raises(UnknownNameError, match="memory_mb"):
        problem(weights={"memory": 1.0})


def test_the_weighted_form_trades_accuracy_for_a_metric() -> None:
    found = problem(weights={"latency_ms:a": 0.5})
    genomes = SPACE.sample(np.random.default_rng(0), 5)
    scores = np.linspace(0.1, 0.9, 5)
    values = found.objective_values(genomes, {"accuracy": scores})
    assert np.allclose(values[:, 0], -scores + 0.5 * latency(genomes))


@pytest.mark.parametrize("strategy", ["evolution", "reinforce", "gradient", "bayesian"])
def test_strategies_that_learn_beat_chance_at_equal_budget(strategy: str) -> None:
    def best(name: str, seed: int) -> float:
        made = get_strategy(name)(grid_problem(("accuracy",), 11.0), seed=seed, evaluations=64)
        while len(made.history) < 64:
            genomes = made.ask(min(made.generation_size, 64 - len(made.history)))
            made.tell(genomes, made.problem.objective_values(genomes, {"accuracy": accuracy(genomes)}))
        return float(made.history.objectives[:, 0].min())

    assert np.mean([best(strategy, seed) - best("random", seed) for seed in range(3)]) < 0


def test_a_fitted_expectation_is_that_of_a_linear_metric() -> None:
    distribution = ChoiceDistribution(SPACE.option_counts)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, SPACE.option_counts, (4000, len(SPACE.option_counts)))
    expected = FittedExpectation(latency, distribution, drawn)
    distribution.logits = rng.normal(size=len(distribution.logits))
    probabilities = distribution.probabilities()
    sampled = latency(distribution.sample(rng, 20_000, probabilities)).mean()
    assert expected.expected(probabilities)[0] == pytest.approx(sampled, abs=0.02)


def test_a_slower_option_that_is_less_capable_is_dropped_with_the_reason() -> None:
    gene = next(index for index, choice in enumerate(SPACE.choices) if len(choice.options) > 1)

    def odd(genomes: Genomes) -> Floats:
        return 5.0 + genomes.sum(axis=1) - 3.0 * genomes[:, gene] + np.where(genomes[:, gene] == 0, 1.0, 0.0)

    found = shrink(SPACE, {"a": odd})
    assert isinstance(found.space, RestrictedSpace)
    name, options = SPACE.choices[gene].name, SPACE.choices[gene].options
    assert (found.dropped[0].gene, found.dropped[0].option) == (name, str(options[0]))
    assert name in found.dropped[0].reason
    assert options[0] not in found.space.choices[gene].options
    assert options[-1] in found.space.choices[gene].options


def test_nothing_is_dropped_that_is_faster_on_one_device() -> None:
    found = shrink(SPACE, {"a": latency, "b": lambda genomes: -latency(genomes)})
    assert found.space is SPACE
    assert not found.dropped


def test_pressure_is_strict_early_and_gone_late() -> None:
    found = problem()
    relaxing = PressureSchedule("relaxing", found)
    early, late = relaxing.at(0.0), relaxing.at(0.9)
    assert all(a.maximum < b.maximum for a, b in zip(early, late, strict=True))
    assert late == found.limits
    assert PressureSchedule("constant", found).at(0.0) == found.limits
    with pytest.raises(UnknownNameError, match="relaxing"):
        PressureSchedule("rising", found)


def test_a_small_space_is_searched_to_its_end_under_relaxing_pressure(tmp_path: Path) -> None:
    class Made:
        name = "made"

        def score(self, genomes: Genomes) -> Floats:
            return accuracy(genomes)

    found = {}
    for name in ("constant", "relaxing"):
        asked = grid_problem(("accuracy",), maximum=3.0)
        loop = SearchLoop(
            get_strategy("random")(asked, evaluations=1000), Made(), evaluations=1000,
            path=tmp_path / f"{name}.json", identity={}, pressure=PressureSchedule(name, asked),
        )  # fmt: skip
        loop.run(lambda: None)
        found[name] = {genome.tobytes() for genome in loop.history.genomes}
    assert found["relaxing"] == found["constant"]


def test_hypervolume_never_falls_and_ignores_what_misses_a_limit() -> None:
    values = np.random.default_rng(0).random((60, 2))
    violations = np.zeros(60)
    violations[np.argmin(values.sum(axis=1))] = 1.0
    curve = [one.hypervolume for one in hypervolume_over_evaluations(values, violations)]
    assert curve == sorted(curve)
    assert 0.0 < curve[-1] <= 1.0
    assert hypervolume_over_evaluations(values, np.ones(60)) == ()


def request(folder: Path, space: str, detail: str) -> ScoringRequest:
    return ScoringRequest(
        space=space, data=None, checkpoint=None, detail=detail, seed=0, folder=folder,
        workspace=Workspace(folder),
    )  # fmt: skip


@pytest.mark.parametrize("name", PROXY_NAMES)
def test_proxies_rank_the_most_capable_network_above_the_least(name: str, tmp_path: Path) -> None:
    scoring = proxy_scoring(request(tmp_path, SPACE.name, name))
    assert scoring.source.name == f"proxy:{name}"
    ends = np.stack([SPACE.smallest(), SPACE.largest()])
    assert scoring.source.score(ends).tolist() == pytest.approx([0.1, 0.9])
    again = proxy_scoring(request(tmp_path, SPACE.name, name)).source
    middle = SPACE.sample(np.random.default_rng(0), 2)
    assert np.array_equal(scoring.source.score(middle), again.score(middle))


def test_an_unknown_proxy_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="synflow"):
        proxy_scoring(request(tmp_path, SPACE.name, "sinflow"))


def test_a_table_of_digits_is_read_in_percent(tmp_path: Path) -> None:
    path = tmp_path / "macro.json"
    path.write_text(json.dumps({"02012100": {"mean_acc": 89.0}, "00000000": {"mean_acc": 60.0}}))
    space = get_space("nasbench-macro")
    found = read_accuracies(path, space)
    assert found[np.array([0, 2, 0, 1, 2, 1, 0, 0], np.int64).tobytes()] == pytest.approx(0.89)


def test_a_table_of_architectures_is_read(tmp_path: Path) -> None:
    path = tmp_path / "nb201.csv"
    cell = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    path.write_text(f"architecture,accuracy\n{cell},90.5\n")
    space = get_space("nasbench201")
    genome = np.frombuffer(next(iter(read_accuracies(path, space))), np.int64)
    assert space.describe(genome) == {
        "0-1": "conv3x3", "0-2": "none", "1-2": "skip", "0-3": "avgpool3x3", "1-3": "conv1x1", "2-3": "none"
    }  # fmt: skip


def test_a_table_with_a_column_a_gene_limits_the_search_to_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    genomes = SPACE.sample(np.random.default_rng(0), 12)
    names = [choice.name for choice in SPACE.choices]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*names, "accuracy"])
        writer.writeheader()
        for index, genome in enumerate(genomes):
            writer.writerow({**SPACE.describe(genome), "accuracy": 0.5 + index / 100})
    scoring = table_scoring(request(tmp_path, SPACE.name, str(path)))
    assert scoring.source.score(genomes[3:4]).tolist() == [0.53]
    assert scoring.missing is not None
    assert scoring.missing(genomes).tolist() == [0.0] * 12
    other = SPACE.sample(np.random.default_rng(9), 4)
    assert (scoring.missing(other) > 1).all()
    with pytest.raises(DataError, match="no accuracy of 4"):
        scoring.source.score(other)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("network,accuracy\nx,1\n")
    with pytest.raises(DataError, match="is no table of accuracies"):
        read_accuracies(path, SPACE)
