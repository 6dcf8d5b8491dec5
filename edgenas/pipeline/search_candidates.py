"""What is known of every candidate of a search: predicted first, measured and confirmed where it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgenas.pipeline.finalists import measure_candidates
from edgenas.pipeline.search_prepared import PreparedSearch
from edgenas.pipeline.tuning import TuningLoop
from edgenas.records import Candidate
from edgenas.search_spaces import Genomes
from edgenas.search_spaces import macs as count_macs
from edgenas.search_spaces import parameters as count_parameters


class Candidates:
    """The rows of a search's history as records.

    Args:
        search: whose history.
    """

    def __init__(self, search: PreparedSearch) -> None:
        self._search = search
        self._measured: dict[bytes, dict[str, float]] = {}
        self._confirmed: dict[bytes, float] = {}
        self._rows: dict[tuple[int, bool], Candidate] = {}

    @property
    def measured(self) -> int:
        """How many networks were measured."""
        return len(self._measured)

    def of(self, row: int) -> Candidate:
        """The record of a row of the history."""
        loop = self._search.loop
        genome = loop.history.genomes[row]
        key = (row, genome.tobytes() in self._measured)
        if key not in self._rows:  # every generation shows all of them again
            trained_with = loop.hyperparameters(row) if isinstance(loop, TuningLoop) else {}
            self._rows[key] = self._described(genome, float(loop.scores[row]), trained_with)
        return self._rows[key]

    def share(self, candidate: Candidate) -> float:
        """How much of its scarcest limit a candidate uses, 0..1 where it keeps them all."""
        pairs = zip(candidate.latency_ms.values(), self._search.asked.limits_ms, strict=True)
        return max(latency / limit for latency, limit in pairs)

    def merit(self, candidate: Candidate) -> float:
        """Accuracy, less lambda x metric in the weighted form."""
        if not self._search.asked.weights:
            return candidate.accuracy
        genome = self._search.space.genome_of(candidate.candidate)[None]
        return candidate.accuracy - float(self._search.problem.penalty(genome)[0])

    def measure(self, rows: Sequence[int]) -> None:
        """Latencies of rows, and accuracies where a dearer source has the last word."""
        asked, confirming = self._search.asked, self._search.scoring.confirming
        genomes = [self._search.loop.history.genomes[row] for row in rows]
        if confirming is not None:
            accuracies = confirming.score(np.array(genomes))
            self._confirmed |= {g.tobytes(): float(a) for g, a in zip(genomes, accuracies, strict=True)}
        for profile in asked.profiles:
            found = measure_candidates(
                self._search.space, genomes, profile, threads=asked.threads, workspace=asked.workspace
            )
            for genome, latency_ms in zip(genomes, found, strict=True):
                value = float("inf") if latency_ms is None else latency_ms
                self._measured.setdefault(genome.tobytes(), {})[profile.id] = value

    def _described(self, genome: Genomes, accuracy: float, hyperparameters: dict[str, float]) -> Candidate:
        search = self._search
        predicted = {one: float(latency(genome[None])[0]) for one, latency in search.latencies.items()}
        measured = self._measured.get(genome.tobytes())
        latency_ms = measured or predicted
        network = search.space.network(genome)
        limits = zip(latency_ms.values(), search.asked.limits_ms, strict=True)
        confirmed = self._confirmed.get(genome.tobytes())
        source = search.scoring.source if confirmed is None else search.scoring.confirming
        assert source is not None, "what is confirmed has a source"
        return Candidate(
            candidate=search.space.describe(genome),
            accuracy=accuracy if confirmed is None else confirmed,
            accuracy_source=source.name,
            latency_ms=latency_ms,
            latency_source="measured" if measured else "predicted",
            predicted_ms=predicted,
            macs=count_macs(network),
            parameters=count_parameters(network),
            feasible=all(value <= limit for value, limit in limits) and self._counts_hold(genome),
            hyperparameters=hyperparameters,
            size_mb=self._counted("size_mb", genome),
            memory_mb=self._counted("memory_mb", genome),
        )

    def _counts_hold(self, genome: Genomes) -> bool:
        limits = self._search.asked.limits.items()
        return all(self._counted(name, genome) <= most for name, most in limits)

    def _counted(self, name: str, genome: Genomes) -> float:
        return float(self._search.problem.metrics[name](genome[None])[0])
