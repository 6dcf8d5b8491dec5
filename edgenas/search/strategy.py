"""The contract of every strategy: ask for genomes, tell what came out, save and restore the state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import numpy as np

from edgenas.errors import ArtifactError
from edgenas.search.history import History
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.variation import Seen, Variation


class Strategy(ABC):
    """Base of all strategies.

    Proposals are canonical, within the limits and never repeated; they depend on the seed and on
    what was told alone. A strategy that was restored proposes what the saved one would have.

    Args:
        problem: space, objectives and limits.
        seed: of all random numbers.
        evaluations: the budget that the search was given; strategies plan with it.
    """

    name: ClassVar[str]

    def __init__(self, problem: Problem, *, seed: int = 0, evaluations: int = 1000) -> None:
        self.problem = problem
        self.evaluations = evaluations
        self.rng = np.random.default_rng(seed)
        self.variation = Variation(problem, self.rng)
        self.history = History(len(self.variation.counts), len(problem.objectives))
        self._seen = Seen(self.variation.counts)
        self._waiting = np.empty((0, len(self.variation.counts)), np.int64)

    @property
    @abstractmethod
    def generation_size(self) -> int:
        """How many genomes it likes to be asked for at once."""

    @abstractmethod
    def _propose(self, n: int) -> Genomes:
        """About ``n`` proposals, better a few more; ``ask`` removes repeats and asks again if short."""

    def _learn(self, start: int) -> None:  # noqa: B027  most strategies live on the history alone
        """Takes in the rows of ``history`` from ``start`` on."""

    def _state(self) -> dict[str, Any]:
        """What the strategy holds beyond the history and the generator, as JSON values."""
        return {}

    def _restore(self, state: dict[str, Any]) -> None:  # noqa: B027  most hold no more than it
        """Takes back what ``_state`` gave; the history is in place."""

    @final
    def ask(self, n: int | None = None) -> Genomes:
        """Up to ``n`` (default: ``generation_size``) new genomes, at least one until none is left."""
        wanted = self.generation_size if n is None else n
        fresh = np.empty((0, len(self.variation.counts)), np.int64)
        for source in (*[self._propose] * 4, self.variation.sample, self._leftover):
            missing = wanted - len(fresh)
            if 2 * missing < wanted:  # a generation somewhat short costs less than chasing the last ones
                break
            fresh = np.concatenate([fresh, self._seen.add_new(source(missing), missing)])
        self._waiting = np.concatenate([self._waiting, fresh])
        return fresh

    @final
    def tell(self, genomes: Genomes, objectives: Floats, violations: Floats | None = None) -> None:
        """Reports objectives (N, M), to be minimised, and violations (N,) of genomes.

        Genomes that were not asked for are welcome: a search can start from known candidates.
        """
        if violations is None:
            violations = self.problem.violations(genomes)
        start = len(self.history)
        self.history.add(genomes, objectives, violations)
        self._await_no_more(genomes)
        self._learn(start)

    def _await_no_more(self, genomes: Genomes) -> None:
        if np.array_equal(genomes, self._waiting):  # what was asked last, as nearly always
            self._waiting = self._waiting[:0]
            return
        self._seen.add_new(genomes)
        told = {row.tobytes() for row in np.asarray(genomes, np.int64)}
        self._waiting = self._waiting[[row.tobytes() not in told for row in self._waiting]]

    @final
    def state(self) -> dict[str, Any]:
        """Everything but the history, as JSON values."""
        return {
            "strategy": self.name,
            "told": len(self.history),
            "waiting": self._waiting.tolist(),
            "random": self.rng.bit_generator.state,
            "own": self._state(),
        }

    @final
    def restore(self, state: dict[str, Any], history: History) -> None:
        """Goes back to a saved state.

        Raises:
            ArtifactError: the state is of another strategy or of another history.
        """
        if state.get("strategy") != self.name or state.get("told") != len(history):
            raise ArtifactError(
                f"the saved search is of strategy '{state.get('strategy')}' after {state.get('told')} "
                f"evaluations; asked for '{self.name}' with {len(history)} evaluations on disk",
                hint="start again in another folder, or remove the saved search",
            )
        self.history = history
        self.rng.bit_generator.state = state["random"]
        self._waiting = np.array(state["waiting"], np.int64).reshape(-1, len(self.variation.counts))
        self._seen = Seen(self.variation.counts)
        self._seen.add_new(history.genomes)
        self._seen.add_new(self._waiting)
        self._restore(state["own"])

    def _leftover(self, n: int) -> Genomes:
        everything = self.variation.everything()
        if everything is None:
            return np.empty((0, len(self.variation.counts)), np.int64)
        unseen = everything[~np.array(self._seen.contains(everything), bool)]
        return self.rng.permutation(unseen, axis=0)[:n]
