"""Asks the device what a candidate gives and how long it takes, and remembers the answers."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

import numpy as np

from edgenas.errors import MeasurementError
from edgenas.measuring import Agent
from edgenas.quantization.inputs import Inputs
from edgenas.quantization.metric import Metric
from edgenas.quantization.outputs import Outputs, OutputScore, ReferenceOutputs
from edgenas.quantization.packing import ship_model
from edgenas.quantization.schemes import replaced
from edgenas.quantization.trials import TrialStore, key_of
from edgenas.records import KernelTrace, LatencyStatistics, NetworkLatency, Record

SHARD_BYTES = 32 * 2**20
_PATIENCE_S = 3.0  # of a pass, and there are up to 24


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
        metric: rates outputs where their classes do not say how good they are.
        batch: how many samples the model takes at once.
    """

    def __init__(
        self, agent: Agent, store: TrialStore, float_model: Path, threads: int, *,
        metric: Metric | None = None, batch: int = 1,
    ) -> None:  # fmt: skip
        self.agent, self.store, self.threads = agent, store, threads
        self.metric, self.batch = metric, batch
        self._temporary = tempfile.TemporaryDirectory(prefix="edgenas-quantize-")
        self.folder = Path(self._temporary.name)
        self.float_model = float_model
        self.float_sha256 = ship_model(agent, float_model)
        self._shards: dict[str, list[dict[str, str]]] = {}
        self._references: dict[str, ReferenceOutputs] = {}
        self._ratings: dict[str, tuple[float, ...]] = {}  # the float model's, by samples

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
            ratings: list[float] = []
            with closing(self.outputs(self.float_sha256, samples)) as outputs:
                rated = self._rated(outputs, samples, ratings)
                self._references[samples.sha256] = ReferenceOutputs(folder, rated)
            self._ratings[samples.sha256] = tuple(ratings)
        return self._references[samples.sha256]

    def baseline(self, samples: Inputs) -> Baseline:
        """How good the float model is on the device."""
        key = self._score_key("baseline", self.float_sha256, samples.sha256)
        known = self.store.get(key, Baseline)
        if known is None:
            reference = self.reference(samples)
            known = Baseline(
                classes=tuple(reference.predictions) if reference.classifies else (),
                ratings=self._ratings[samples.sha256],
            )
            self.store.put(key, known, note="float model")
        return known

    def score(self, model: Path, samples: Inputs, *, name: str, optimized: bool = True) -> Answer:
        """The candidate's outputs on the device against the float model's; a failure is an answer."""
        content = ship_model(self.agent, model)
        key = self._score_key("score", content, self.float_sha256, samples.sha256, optimized)
        known = self.store.get(key, Answer)
        if known is not None:
            return known
        reference = self.reference(samples)
        try:
            ratings: list[float] = []
            with closing(self.outputs(content, samples, optimized=optimized)) as outputs:
                score = reference.score(self._rated(outputs, samples, ratings))
            answer = Answer(score=replaced(score, ratings=tuple(ratings)))
        except MeasurementError as error:
            answer = Answer(error=error.reason or error.message)
        self.store.put(key, answer, note=name)
        return answer

    def outputs(self, content: str, samples: Inputs, *, optimized: bool = True) -> Generator[Outputs]:
        """The outputs of a shipped model, batch by batch."""
        for shard in self._shipped(samples):
            yield from self.agent.evaluate(content, shard, threads=self.threads, optimized=optimized)

    def _rated(self, batches: Iterable[Outputs], samples: Inputs, ratings: list[float]) -> Iterator[Outputs]:
        """The batches as they come; the metric's ratings are added to ``ratings`` on the way."""
        for number, outputs in enumerate(batches):
            if self.metric is not None:
                start = number * self.batch
                indices = np.arange(start, min(start + self.batch, len(samples)))
                ratings.extend(self.metric(outputs, samples.targets(indices), len(indices)))
            yield outputs

    def latencies(
        self, models: Sequence[Path], *, purpose: str, rounds: int, paired: bool = False
    ) -> list[NetworkLatency]:
        """The models measured side by side, in the order given; known only as a whole batch.

        Args:
            purpose: keeps batches of the same models apart.
            rounds: at most; all of them, so that models can be compared round by round, if ``paired``.
        """
        contents = [ship_model(self.agent, model) for model in models]
        key = self._key("latency", purpose, rounds, *contents)
        known = self.store.get(key, _Batch)
        if known is None:
            measured = self.agent.compare(
                contents,
                threads=self.threads,
                min_rounds=rounds if paired else min(8, rounds),
                max_rounds=rounds,
                relative_halfwidth=0.0 if paired else 0.01,
                patience_s=_PATIENCE_S,
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
        content = ship_model(self.agent, model)
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
        content = ship_model(self.agent, model)
        key = self._key("structure", content)
        known = self.store.get(key, KernelTrace)
        if known is None:
            known = self.agent.trace(content, threads=self.threads, runs=1)
            self.store.put(key, known, note="structure")
        return known

    def _score_key(self, *parts: object) -> str:
        return self._key(*parts, self.metric.sha256 if self.metric is not None else "")

    def _key(self, *parts: object) -> str:
        return key_of(self.agent.profile.id, self.agent.environment.fingerprint(), self.threads, *parts)

    def _shipped(self, samples: Inputs) -> list[dict[str, str]]:
        if samples.sha256 not in self._shards:
            self._shards[samples.sha256] = [
                self._ship_shard(samples, start, size)
                for size in [_shard_size(samples, self.batch)]
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


class Baseline(Record):
    """The float model's classes, empty where it has none, and ratings, empty without a metric."""

    classes: tuple[int, ...]
    ratings: tuple[float, ...] = ()


class _Batch(Record):
    latencies: tuple[NetworkLatency, ...]


def _shard_size(samples: Inputs, batch: int) -> int:
    """Whole batches of about ``SHARD_BYTES``."""
    one = sum(array.nbytes for array in samples.batch([0]).values())
    return max(1, SHARD_BYTES // max(one * batch, 1)) * batch


def latency_of(latency: NetworkLatency) -> float | None:
    """Milliseconds, or None for a model that failed."""
    statistics: LatencyStatistics | None = latency.statistics
    return None if statistics is None else statistics.latency_ms
