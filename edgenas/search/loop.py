"""Asks a strategy, scores what it proposes, tells it, and keeps everything on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgenas.errors import ArtifactError
from edgenas.files import write_atomically
from edgenas.progress import Task, track
from edgenas.search.accuracy import AccuracySource
from edgenas.search.history import History
from edgenas.search.live import LiveView
from edgenas.search.problem import Floats, Genomes, Problem
from edgenas.search.schedule import PressureSchedule
from edgenas.search.strategy import Strategy

# Raised when a strategy would go on otherwise from the same state, or an accuracy source score otherwise.
VERSION = 2


class SearchLoop:
    """A search that a killed process loses at most one generation of.

    The same strategy, seed and scores give the same proposals, so a search that goes on from disk
    ends as if it had never stopped.

    Args:
        strategy: proposes; it is restored where ``path`` holds an earlier state of this search.
        accuracy: scores what no metric of the problem knows.
        evaluations: how many candidates are scored at most.
        path: the state, replaced after every generation.
        identity: what the scores depend on besides the problem (hash of the weights, seed, ...).
        pressure: how hard the limits press as the search goes on; always the same when None.

    Raises:
        ArtifactError: ``path`` is damaged or holds another search.
    """

    def __init__(
        self,
        strategy: Strategy,
        accuracy: AccuracySource,
        *,
        evaluations: int,
        path: Path,
        identity: dict[str, Any],
        pressure: PressureSchedule | None = None,
    ) -> None:
        self._strategy, self._accuracy, self._evaluations, self._path = strategy, accuracy, evaluations, path
        self._pressure, self._released = pressure, False
        self._identity = {
            **identity,
            "pressure": "constant" if pressure is None else pressure.name,
            "version": VERSION,
            "strategy": strategy.name,
            "accuracy": accuracy.name,
            "evaluations": evaluations,
            **_described(strategy.problem),
        }
        self._restore()

    @property
    def history(self) -> History:
        """Everything that was scored, in order."""
        return self._strategy.history

    @property
    def scores(self) -> Floats:
        """Accuracy (N,) of everything that was scored."""
        problem, history = self._strategy.problem, self.history
        column = problem.objectives.index("accuracy")
        values = history.objectives[:, column]
        return -(values - problem.penalty(history.genomes) if column == 0 else values)

    def run(self, after_generation: Callable[[], object]) -> None:
        """Scores until the budget or the space is spent; interrupted, it keeps what is told."""
        view = LiveView()
        with track("Searching", total=self._evaluations) as task:
            task.advance(len(self.history))
            while len(self.history) < self._evaluations:
                self._press()
                room = self._evaluations - len(self.history)
                genomes = self._strategy.ask(min(room, self._strategy.generation_size))
                if not len(genomes) and self._release():
                    continue
                if not len(genomes):
                    return
                self._tell(genomes, task, view)
                after_generation()

    def _press(self) -> None:
        if self._pressure is not None:
            progress = 1.0 if self._released else len(self.history) / self._evaluations
            self._strategy.problem.limits = self._pressure.at(progress)

    def _release(self) -> bool:
        """Takes all pressure off where nothing is left under it; False where none was on."""
        if self._pressure is None or self._strategy.problem.limits == self._pressure.at(1.0):
            return False
        self._released = True
        return True

    def _tell(self, genomes: Genomes, task: Task, view: LiveView) -> None:
        problem = self._strategy.problem
        scores = self._accuracy.score(genomes)
        self._strategy.tell(genomes, problem.objective_values(genomes, {"accuracy": scores}))
        self._save()
        task.advance(len(genomes), note=view.line(self.history, self.scores, len(genomes)))

    def _save(self) -> None:
        history = self.history
        content = {
            "identity": self._identity,
            "genomes": history.genomes.tolist(),
            "objectives": history.objectives.tolist(),
            "violations": history.violations.tolist(),
            "state": self._strategy.state(),
        }
        write_atomically(self._path, json.dumps(content))

    def _restore(self) -> None:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except ValueError as error:
            raise ArtifactError(
                f"{self._path} is damaged: {error}", hint="remove it to start again"
            ) from error
        if content.get("identity") != self._identity:
            return  # another search stood here; its scores mean nothing for this one
        history = History(len(self._strategy.variation.counts), len(self._strategy.problem.objectives))
        genomes = np.array(content["genomes"], np.int64)
        history.add(genomes, np.array(content["objectives"]), np.array(content["violations"]))
        self._strategy.restore(content["state"], history)


def _described(problem: Problem) -> dict[str, Any]:
    return {
        "space": problem.space.name,
        "options": np.asarray(problem.space.option_counts).tolist(),
        "objectives": list(problem.objectives),
        "limits": [[limit.metric, limit.maximum] for limit in problem.limits],
        "weights": problem.weights,
    }
