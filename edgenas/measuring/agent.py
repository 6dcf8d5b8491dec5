"""A device that can be asked to measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import AgentProtocolError, DeviceError, DeviceUnreachableError, MeasurementError
from edgenas.measuring import messages
from edgenas.measuring.comparison import ComparePlan, Comparer
from edgenas.measuring.connection import Connection
from edgenas.measuring.conversation import AgentEndedError, ContentMissingError, Conversation
from edgenas.measuring.shipping import Shipper
from edgenas.progress import warn
from edgenas.records import Characterisation, Environment, KernelTrace, NetworkLatency

_Outputs = dict[str, npt.NDArray[Any]]
_Done = TypeVar("_Done")
# An instruction-count clock repeats itself; more runs would only tell the same again.
_VIRTUAL_RUNS = 2
# Three minutes in all: a small board takes one to start anew.
_BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 30.0, 30.0, 30.0, 30.0)


class Agent:
    """The agent of one device. Use it in a ``with`` block of ``connect``.

    Attributes:
        profile: the device's profile.
        environment: what the device said about itself when it was connected or last refreshed.
        threads: the profile's thread count, else all the cores that the device has.
    """

    def __init__(self, connection: Connection) -> None:
        self.profile: DeviceProfile = connection.profile
        self._conversation = Conversation(connection)
        self._shipper = Shipper(self._conversation)
        self.environment = self._read_environment()
        self.threads = self.profile.threads or self.environment.cores

    def refresh_environment(self) -> Environment:
        """The environment as it is now: governor, temperature, load, free memory."""
        self.environment = self._read_environment()
        return self.environment

    def ship(self, path: Path) -> str:
        """Puts a model or an array into the device's cache, unless it is there.

        Returns:
            The sha256 of its content, by which it is named in all the other calls. Keep the file as
            long as the agent: the device's cache has a limit, and what it dropped is sent again.

        Raises:
            DeviceError: the device has no room for it, or is gone.
        """
        return self.ship_all([path])[0]

    def ship_all(self, paths: Sequence[Path], *, hashes: Sequence[str] | None = None) -> list[str]:
        """Like ``ship`` for several files, of which the device is asked at once.

        Args:
            hashes: their sha256 where the caller knows them; the device checks what arrives anyway.
        """
        if hashes is None:
            contents = [self._shipper.hash_of(path) for path in paths]
        else:
            contents = [self._shipper.known(*known) for known in zip(paths, hashes, strict=True)]
        if contents:
            self._steadily(lambda: self._shipper.ensure(contents))
        return contents

    def present(self, contents: Sequence[str]) -> set[str]:
        """Those of the contents that the device has in its cache now; one request for all of them."""
        if not contents:
            return set()
        return self._steadily(lambda: self._shipper.present(contents))

    def compare(
        self,
        models: Sequence[str],
        *,
        threads: int,
        min_rounds: int = 8,
        max_rounds: int = 40,
        relative_halfwidth: float = 0.01,
        runs_per_round: int | None = None,
        rounds_limit_s: float | None = None,
        patience_s: float = 0.0,
        known_pace_ms: float | None = None,
        time_limit_s: float | None = None,
    ) -> Iterator[NetworkLatency]:
        """Measures models side by side, in interleaved rounds, as many at once as memory allows.

        Args:
            models: hashes of shipped models; repeated ones are measured once.
            relative_halfwidth: a model is done when the 95 % interval of its median is this narrow,
                after ``min_rounds``, or after ``max_rounds``.
            runs_per_round: runs of a model in each round; when None the agent takes more of fast models.
            rounds_limit_s: a batch whose rounds alone took longer begins no other one; on a virtual board,
                whose clock is another, nothing is limited.
            patience_s: how long a batch of several threads waits for a device on which they work together
                more slowly than they were seen to; rounds in which they do are repeated. With 0 nobody
                looks.
            known_pace_ms: what was usual there before this agent began; see ``LatencyStatistics.pace_ms``.
            time_limit_s: when it is over, what was not begun is yielded with an error.

        Yields:
            Each model's latency as soon as its batch is done. A model that fails, even one that
            takes the agent with it, has an error and no statistics.

        Raises:
            DeviceError: the device itself failed.
        """
        plan = ComparePlan(
            threads, min_rounds, max_rounds, relative_halfwidth, runs_per_round, rounds_limit_s, patience_s,
            known_pace_ms,
        )  # fmt: skip
        comparer = Comparer(self.profile, plan, self._conversation, self._shipper, self._steadily)
        yield from comparer.compare(models, time_limit_s)

    def trace(
        self,
        model: str,
        *,
        threads: int,
        runs: int = 40,
        patience_s: float = 0.0,
        known_pace_ms: float | None = None,
    ) -> KernelTrace:
        """The kernels of one model as the runtime executes them, with their times.

        Args:
            runs: with 1 the structure is right and the times mean nothing.
            patience_s, known_pace_ms: as for ``compare``; a trace that lost the pace is made once more.

        Raises:
            MeasurementError: the model cannot be run, or took the agent with it.
        """
        limit = self.profile.temperature_limit_c
        runs = min(runs, _VIRTUAL_RUNS) if self.profile.virtual else runs
        traced = self._measured(
            [model],
            lambda: self._conversation.ask(
                "trace",
                messages.Traced,
                model=model,
                threads=threads,
                runs=runs,
                patience_s=0.0 if self.profile.virtual else patience_s,
                known_pace_ms=known_pace_ms,
                temperature_limit_c=limit,
            ),
        )
        trace = KernelTrace(
            model_sha256=model,
            runtime=self.environment.runtime,
            runtime_version=self.environment.runtime_version,
            threads=threads,
            runs=traced.runs,
            run_latency_ms=traced.run_latency_ms,
            kernels=traced.kernels,
        )
        return self._checked(messages.plausible_trace, trace)

    def characterise(self, model: str, *, threads: int, runs: int = 200) -> Characterisation:
        """One model alone in a fresh process: quantiles over ``runs``, load time, memory.

        The p99 is None below 100 runs.

        Raises:
            MeasurementError: the model cannot be run.
        """
        limit = self.profile.temperature_limit_c
        found = self._measured(
            [model],
            lambda: self._conversation.ask(
                "characterise",
                messages.Characterised,
                model=model,
                threads=threads,
                runs=runs,
                temperature_limit_c=limit,
            ),
        )
        return Characterisation(
            model_sha256=model,
            threads=threads,
            statistics=self._checked(messages.plausible, found.statistics),
            load_ms=found.load_ms,
            peak_memory_bytes=found.peak_memory_bytes,
        )

    def evaluate(
        self,
        model: str,
        inputs: Mapping[str, str],
        *,
        threads: int,
        batch: int = 1,
        optimized: bool = True,
    ) -> Iterator[_Outputs]:
        """A model's outputs over arrays, with the device's own kernels, in bounded memory.

        Args:
            inputs: for each input of the model the hash of a shipped .npy file (N, ...).
            batch: items in one run where the model's batch is symbolic; else the model's own.
            optimized: False switches the runtime's graph optimization off (ONNX Runtime only).

        Yields:
            Outputs by name, arrays (batch, ...), the last one possibly shorter.

        Raises:
            MeasurementError: the arrays do not fit the model, or it cannot be run.
        """
        contents = [model, *inputs.values()]
        options = {"model": model, "inputs": dict(inputs), "threads": threads, "batch": batch}
        start, items, started_by, handle, losses = 0, 1, -1, 0, 0
        try:
            while start < items:
                if not self._serves(started_by):
                    opened = self._measured(contents, lambda: self._open(options, optimized))
                    handle, items, started_by = opened.handle, opened.items, self._conversation.starts
                outputs = self._next_outputs(handle, start)
                if outputs is None:
                    losses = self._counted_loss(losses)
                    continue
                yield from outputs[0]
                start, losses = self._advanced(start, outputs[1], items), 0
        finally:
            self._close_evaluation(handle, started_by)

    def close(self) -> None:
        """Ends the agent."""
        self._conversation.close()

    def _open(self, options: dict[str, Any], optimized: bool) -> messages.Opened:
        return self._conversation.ask("evaluate_open", messages.Opened, **options, optimized=optimized)

    def _next_outputs(self, handle: int, start: int) -> tuple[list[_Outputs], int] | None:
        """The next outputs and where the following ones start; None where the connection was lost."""
        try:
            reply = self._conversation.ask("evaluate_next", messages.Outputs, handle=handle, start=start)
        except AgentEndedError as ended:
            if not ended.end.lost:
                raise self._crashed(ended) from ended
            return None
        batches = self._checked(_decoded_batches, reply.batches)
        return batches, reply.next

    def _advanced(self, start: int, following: int, items: int) -> int:
        if not start < following <= items:
            raise AgentProtocolError(f"'{self.profile.id}' went from item {start} to {following} of {items}")
        return following

    def _counted_loss(self, losses: int) -> int:
        """One more loss of the connection since the last output; waits longer after each."""
        if losses == len(_BACK_OFF_S):
            raise DeviceUnreachableError(
                f"'{self.profile.id}' is lost whenever it evaluates a model",
                hint=f"everything measured so far is kept; try: edgenas device check {self.profile.id}",
            )
        time.sleep(_BACK_OFF_S[losses])
        return losses + 1

    def _serves(self, start: int) -> bool:
        """Whether the agent of that start, which alone knows its evaluations, is the one that answers."""
        return self._conversation.connected and self._conversation.starts == start

    def _close_evaluation(self, handle: int, started_by: int) -> None:
        if self._serves(started_by):
            try:
                self._conversation.ask("evaluate_close", dict, handle=handle)
            except AgentEndedError:
                return  # with the agent the evaluation ended, too

    def _read_environment(self) -> Environment:
        return self._labelled(self._steadily(lambda: self._conversation.ask("environment", Environment)))

    def _labelled(self, found: Environment) -> Environment:
        return msgspec.structs.replace(found, virtual_clock=found.virtual_clock or self.profile.virtual)

    def _measured(self, contents: Sequence[str], ask: Callable[[], _Done]) -> _Done:
        """Ships what is missing and asks; an agent that crashes is a failed measurement."""

        def attempt() -> _Done:
            try:
                return ask()
            except ContentMissingError:
                self._shipper.ensure(contents)
                return ask()

        try:
            return self._steadily(attempt)
        except AgentEndedError as ended:
            raise self._crashed(ended) from ended

    def _steadily(self, ask: Callable[[], _Done]) -> _Done:
        """Asks again, with back-off, when the connection is lost; a crash of the agent is raised."""
        known = self._conversation.starts > 0
        for pause_s in (*_BACK_OFF_S, math.inf):
            try:
                if known and not self._conversation.connected:
                    self._check_that_it_is_the_same()
                return ask()
            except AgentEndedError as ended:
                if not ended.end.lost:
                    raise
                reason = ended.end.reason
            except DeviceUnreachableError as error:
                if not self._conversation.starts:
                    raise
                reason = error.message
            if pause_s is math.inf:
                break
            warn(f"{reason}; connecting again in {pause_s:.0f} s")
            time.sleep(pause_s)
        raise DeviceUnreachableError(
            f"'{self.profile.id}' does not come back, {reason}",
            hint=f"everything measured so far is kept; try: edgenas device check {self.profile.id}",
        )

    def _check_that_it_is_the_same(self) -> None:
        """What comes after a lost connection must be measured where the rest was.

        Raises:
            DeviceError: another runtime or another processor answers now.
        """
        before, now = self.environment, self._conversation.ask("environment", Environment)
        now = self._labelled(now)
        if now.fingerprint() != before.fingerprint():
            changed = (
                f"{name} {getattr(now, name)} instead of {getattr(before, name)}"
                for name in (
                    "runtime_version",
                    "cpu_model",
                    "cpu_features",
                    "cores",
                    "architecture",
                    "runtime",
                    "float_type",
                    "virtual_clock",
                    "measuring_version",
                )
                if getattr(now, name) != getattr(before, name)
            )
            raise DeviceError(
                f"'{self.profile.id}' came back as another device: {', '.join(changed)}",
                hint="what was measured is kept; the same command goes on with the device as it is now",
            )

    def _crashed(self, ended: AgentEndedError) -> MeasurementError:
        return MeasurementError(
            f"'{self.profile.id}' could not run the model: {ended.end.reason}",
            reason=ended.end.reason,
            hint=f"how much memory is free there: edgenas device check {self.profile.id}",
        )

    def _checked(self, check: Callable[[Any], _Done], value: Any) -> _Done:
        try:
            return check(value)
        except ValueError as error:
            raise AgentProtocolError(f"'{self.profile.id}' sent a result that cannot be: {error}") from error


def _decoded_batches(batches: list[dict[str, messages.EncodedArray]]) -> list[_Outputs]:
    return [{name: _decoded_array(array) for name, array in batch.items()} for batch in batches]


def _decoded_array(encoded: messages.EncodedArray) -> npt.NDArray[Any]:
    dtype = np.dtype(encoded.dtype)
    if math.prod(encoded.shape) * dtype.itemsize != len(encoded.data):
        raise ValueError(f"an array of shape {encoded.shape} has {len(encoded.data)} bytes")
    return np.frombuffer(encoded.data, dtype=dtype).reshape(encoded.shape).copy()
