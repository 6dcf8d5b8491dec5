"""Every built-in strategy holds the one contract, and those of other packages are found by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from strategy_contract import StrategyContract, grid_problem

from edgenas.cli import cli
from edgenas.errors import UnknownNameError
from edgenas.search import evolution
from edgenas.search.problem import Problem
from edgenas.search.random_search import RandomSearch
from edgenas.search.strategies import get_strategy, strategy_names
from edgenas.search.strategy import Strategy


class TestEvolution(StrategyContract):
    strategy = "evolution"


class TestEvolutionByExchanges(StrategyContract):
    """The end of a large budget, which exchanges belong to, from the second generation on."""

    strategy = "evolution"

    @pytest.fixture(autouse=True)
    def _from_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(evolution, "EXCHANGING_FROM", 0.01)

    def make(self, problem: Problem, seed: int = 0, evaluations: int = 2001) -> Strategy:
        return super().make(problem, seed, max(evaluations, 2001))


class TestRandomSearch(StrategyContract):
    strategy = "random"


class TestRegularizedEvolution(StrategyContract):
    strategy = "regularized-evolution"


class TestLocalSearch(StrategyContract):
    strategy = "local-search"


class TestSimulatedAnnealing(StrategyContract):
    strategy = "simulated-annealing"


class TestBayesian(StrategyContract):
    strategy = "bayesian"
    most_generations = 4
    walked_cost = 3.0


class TestBayesianGP(StrategyContract):
    strategy = "bayesian-gp"
    most_generations = 5
    walked_cost = 2.0

    @pytest.fixture
    def problem(self) -> Problem:
        return grid_problem(("accuracy",))  # a second kind of problem would double half a minute


class TestReinforce(StrategyContract):
    strategy = "reinforce"


class TestGradient(StrategyContract):
    strategy = "gradient"


def test_every_built_in_strategy_has_a_class_here() -> None:
    held = {kind.strategy for kind in StrategyContract.__subclasses__()}
    assert held == set(strategy_names())


def test_help_has_a_line_for_every_built_in_strategy() -> None:
    listed, *_ = (cli.commands["search"].help or "").partition("Strategies:\n")[2].split("\n\n")
    assert {line.split()[0] for line in listed.splitlines()} == set(strategy_names())


def test_a_strategy_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "foreign_strategy-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-strategy\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[edgenas.strategies]\nforeign = foreign_strategy:Foreign\n")
    (tmp_path / "foreign_strategy.py").write_text(
        "from edgenas.search.random_search import RandomSearch\n\n\n"
        "class Foreign(RandomSearch):\n    name = 'foreign'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "foreign" in strategy_names()
    assert issubclass(get_strategy("foreign"), RandomSearch)


def test_an_unknown_strategy_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownNameError, match="simulated-annealing"):
        get_strategy("annealing")
