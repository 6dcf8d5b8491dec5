"""Asks the device what a candidate gives and how long it takes, and remembers the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from edgenas.errors import MeasurementError
from edgenas.measuring import Agent
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.outputs import Outputs, OutputScore, ReferenceOutputs
from edgenas.quantization.trials import TrialStore, key_of
from edgenas.records import KernelTrace, LatencyStatistics, NetworkLatency, Record

SHARD_BYTES = 32 * 2**20


class Answer(Record):
    """A score, or why there is none."""

    score: OutputScore | None = None
    error: str | None = None


class Scorer:
    """Scores candidates on one device against the float model there.

    Use it in a ``with`` block: shards and reference outputs live in a temporary folder.

    Args:
        float_model: the file of the float model.
        threads: of every run on the device.
    """

    def __init__(self, agent: Agent, store: TrialStore, float_model: Path, threads: int) -> None:
        self.agent, self.store, self.threads = agent, store, threads
        self._temporary = tempfile.TemporaryDirectory(prefix="edgenas-quantize-")
        self.folder = Path(self._temporary.name)
        self.float_model = float_model
        self.float_sha256 = agent.ship(float_model)
        self._shards: dict[str, list[dict[str, str]]] = {}
        self._references: dict[str, ReferenceOutputs] = {}

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def reference(self, samples: Inputs) -> ReferenceOutputs:
        """The float model's outputs on the device.

        Raises:
            MeasurementError: the device cannot run the float model.
        """
        if samples.sha256 not in self._references:
            folder = self.folder / "reference" / samples.sha256[:16]
            outputs = self.outputs(self.float_sha256, samples)
            self._references[samples.sha256] = ReferenceOutputs(folder, outputs)
        return self._references[samples.sha256]

    def reference_classes(self, samples: Inputs) -> tuple[int, ...]:
        """The class that the float model gives each sample on the device; empty for other models."""
        key = self._key("classes", self.float_sha256, samples.sha256)
        known = self.store.get(key, _Classes)
        if known is None:
            reference = self.reference(samples)
            known = _Classes(classes=tuple(reference.predictions) if reference.classifies else ())
            self.store.put(key, known, note="float model")
        return known.classes

    def score(self, model: Path, samples: Inputs, *, name: str, optimized: bool = True) -> Answer:
        """The candidate's outputs on the device against the float model's; a failure is an answer."""
        content = self.agent.ship(model)
        key = self._key("score", content, self.float_sha256, samples.sha256, optimized)
        known = self.store.get(key, Answer)
        if known is not None:
            return known
        reference = self.reference(samples)
        try:
            outputs = self.outputs(content, samples, optimized=optimized)
            answer = Answer(score=reference.score(outputs))
        except MeasurementError as error:
            answer = Answer(error=error.reason or error.message)
        self.store.put(key, answer, note=name)
        return answer

    def outputs(self, content: str, samples: Inputs, *, optimized: bool = True) -> Iterator[Outputs]:
        """The outputs of a shipped model, batch by batch."""
        for shard in self._shipped(samples):
            yield from self.agent.evaluate(content, shard, threads=self.threads, optimized=optimized)

    def latencies(
        self, models: Sequence[Path], *, purpose: str, rounds: int, paired: bool = False
    ) -> list[NetworkLatency]:
        """The models measured side by side, in the order given; known only as a whole batch.

        Args:
            purpose: keeps batches of the same models apart.
            rounds: at most; all of them, so that models can be compared round by round, if ``paired``.
        """
        contents = [self.agent.ship(model) for model in models]
        key = self._key("latency", purpose, rounds, *contents)
        known = self.store.get(key, _Batch)
        if known is None:
            measured = self.agent.compare(
                contents,
                threads=self.threads,
                min_rounds=rounds if paired else min(8, rounds),
                max_rounds=rounds,
                relative_halfwidth=0.0 if paired else 0.01,
            )
            by_content = {latency.model_sha256: latency for latency in measured}
            known = _Batch(latencies=tuple(by_content[content] for content in contents))
            self.store.put(key, known, note=purpose)
        return list(known.latencies)

    def trace(self, model: Path) -> KernelTrace:
        """The model's kernels on the device, with their times.

        Raises:
            MeasurementError: the device cannot run or trace it.
        """
        content = self.agent.ship(model)
        key = self._key("trace", content)
        known = self.store.get(key, KernelTrace)
        if known is None:
            known = self.agent.trace(content, threads=self.threads)
            self.store.put(key, known, note="trace")
        return known

    def structure(self, model: Path) -> KernelTrace:
        """The model's kernels on the device; their times mean nothing.

        Raises:
            MeasurementError: the device cannot run or trace it.
        """
        content = self.agent.ship(model)
        key = self._key("structure", content)
        known = self.store.get(key, KernelTrace)
        if known is None:
            known = self.agent.trace(content, threads=self.threads, runs=1)
            self.store.put(key, known, note="structure")
        return known

    def _key(self, *parts: object) -> str:
        return key_of(self.agent.profile.id, self.agent.environment.fingerprint(), self.threads, *parts)

    def _shipped(self, samples: Inputs) -> list[dict[str, str]]:
        if samples.sha256 not in self._shards:
            self._shards[samples.sha256] = [
                self._ship_shard(samples, start, size)
                for size in [_shard_size(samples)]
                for start in range(0, len(samples), size)
            ]
        return self._shards[samples.sha256]

    def _ship_shard(self, samples: Inputs, start: int, size: int) -> dict[str, str]:
        batch = samples.batch(np.arange(start, min(start + size, len(samples))))
        shipped = {}
        for position, (name, array) in enumerate(batch.items()):
            path = self.folder / f"{samples.sha256[:16]}-{start:06d}-{position}.npy"
            np.save(path, array)
            shipped[name] = self.agent.ship(path)
        return shipped


class _Classes(Record):
    classes: tuple[int, ...]


class _Batch(Record):
    latencies: tuple[NetworkLatency, ...]


def _shard_size(samples: Inputs) -> int:
    one = sum(array.nbytes for array in samples.batch([0]).values())
    return max(1, SHARD_BYTES // max(one, 1))


def latency_of(latency: NetworkLatency) -> float | None:
    """Milliseconds, or None for a model that failed."""
    statistics: LatencyStatistics | None = latency.statistics
    return None if statistics is None else statistics.latency_ms
