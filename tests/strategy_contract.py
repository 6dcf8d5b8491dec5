"""What every search strategy must hold to; a subclass names one in ``strategy``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edgenas.errors import ArtifactError
from edgenas.search.history import History
from edgenas.search.problem import Limit, Problem
from edgenas.search.strategies import get_strategy
from edgenas.search.strategy import Strategy


class GridSpace:
    """Genes of 2 to 5 options; the last gene means nothing while the first is 0."""

    name = "grid"
    option_counts = np.array([2, 3, 4, 5, 3, 4, 2, 3])

    def canonical(self, genomes: np.ndarray) -> np.ndarray:
        result = np.array(genomes, np.int64)
        result[result[:, 0] == 0, -1] = 0
        return result

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.canonical(rng.integers(0, self.option_counts, (n, len(self.option_counts))))


def cost(genomes: np.ndarray) -> np.ndarray:
    return 1.0 + genomes @ np.array([3.0, 2.0, 1.0, 1.5, 0.5, 1.0, 2.0, 0.7])


def accuracy(genomes: np.ndarray) -> np.ndarray:
    return np.tanh(0.1 * genomes @ np.array([1.0, 2.0, 1.0, 1.0, 0.6, 1.2, 1.0, 0.3])) - 0.02 * (
        genomes[:, 2] == genomes[:, 3]
    )


def grid_problem(objectives: tuple[str, ...], maximum: float = 14.0) -> Problem:
    return Problem(
        GridSpace(),
        objectives=objectives,
        metrics={"cost": cost},
        limits=[Limit(metric="cost", maximum=maximum)],
    )


def advance(strategy: Strategy, generations: int) -> list[np.ndarray]:
    asked = []
    for _ in range(generations):
        genomes = strategy.ask()
        asked.append(genomes)
        strategy.tell(genomes, strategy.problem.objective_values(genomes, {"accuracy": accuracy(genomes)}))
    return asked


class StrategyContract:
    """One contract for all strategies."""

    strategy: str
    most_generations: int = 12
    """Fewer for strategies that think long."""
    walked_cost: float = 5.0
    """Which part of the space is walked to its end."""

    @pytest.fixture(params=[("accuracy",), ("accuracy", "cost")], ids=["one", "two"])
    def problem(self, request: pytest.FixtureRequest) -> Problem:
        return grid_problem(request.param)

    def advance(self, strategy: Strategy, generations: int) -> list[np.ndarray]:
        return advance(strategy, min(generations, self.most_generations))

    def make(self, problem: Problem, seed: int = 0, evaluations: int = 200) -> Strategy:
        return get_strategy(self.strategy)(problem, seed=seed, evaluations=evaluations)

    def test_proposals_are_canonical_within_bounds_and_limits_and_never_repeated(
        self, problem: Problem
    ) -> None:
        genomes = np.concatenate(self.advance(self.make(problem), 12))
        assert (genomes >= 0).all()
        assert (genomes < GridSpace.option_counts).all()
        assert (GridSpace().canonical(genomes) == genomes).all()
        assert (problem.violations(genomes) == 0).all()
        assert len(np.unique(genomes, axis=0)) == len(genomes)

    def test_a_seed_decides_every_proposal(self, problem: Problem) -> None:
        first, second = (np.concatenate(self.advance(self.make(problem, seed=3), 8)) for _ in range(2))
        other = np.concatenate(self.advance(self.make(problem, seed=4), 8))
        assert np.array_equal(first, second)
        assert not np.array_equal(first[: len(other)], other[: len(first)])

    def test_a_restored_strategy_goes_on_as_the_saved_one(self, problem: Problem) -> None:
        saved = self.make(problem)
        self.advance(saved, 5)
        text = json.dumps(saved.state())
        history = History(saved.history.genomes.shape[1], saved.history.objectives.shape[1])
        history.add(saved.history.genomes, saved.history.objectives, saved.history.violations)
        restored = self.make(problem, seed=99)
        restored.restore(json.loads(text), history)
        for one, other in zip(self.advance(saved, 6), self.advance(restored, 6), strict=True):
            assert np.array_equal(one, other)

    def test_what_was_asked_but_not_told_is_not_asked_again_after_a_restore(self, problem: Problem) -> None:
        saved = self.make(problem)
        self.advance(saved, 2)
        waiting = {row.tobytes() for row in saved.ask()}
        history = History(saved.history.genomes.shape[1], saved.history.objectives.shape[1])
        history.add(saved.history.genomes, saved.history.objectives, saved.history.violations)
        restored = self.make(problem)
        restored.restore(json.loads(json.dumps(saved.state())), history)
        assert not waiting & {row.tobytes() for row in np.concatenate(self.advance(restored, 4))}

    def test_the_state_of_another_search_is_refused(self, problem: Problem) -> None:
        saved = self.make(problem)
        self.advance(saved, 2)
        with pytest.raises(ArtifactError):
            self.make(problem).restore(saved.state(), History(8, len(problem.objectives)))

    @pytest.mark.parametrize(("maximum", "evaluations"), [(5.0, 10_000), (2.6, 40)])
    def test_a_small_space_is_walked_to_its_end_and_no_further(
        self, maximum: float, evaluations: int
    ) -> None:
        maximum = min(maximum, self.walked_cost)
        problem = grid_problem(("accuracy",), maximum=maximum)
        grid = np.indices(GridSpace.option_counts).reshape(8, -1).T
        reachable = np.unique(GridSpace().canonical(grid), axis=0)
        reachable = reachable[cost(reachable) <= maximum]
        strategy = self.make(problem, evaluations=evaluations)
        found = []
        while len(genomes := strategy.ask(40)):
            found.append(genomes)
            strategy.tell(genomes, problem.objective_values(genomes, {"accuracy": accuracy(genomes)}))
        assert len(np.concatenate(found)) == len(reachable)

    def test_candidates_from_elsewhere_are_taken_in(self, problem: Problem) -> None:
        strategy = self.make(problem)
        known = problem.space.sample(np.random.default_rng(7), 10)
        strategy.tell(known, problem.objective_values(known, {"accuracy": accuracy(known)}))
        asked = {row.tobytes() for row in np.concatenate(self.advance(strategy, 3))}
        assert not asked & {row.tobytes() for row in known}
