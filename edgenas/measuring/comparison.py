"""Comparing models on a device batch by batch, whatever single models do to the agent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from edgenas.device_profiles import DeviceProfile
from edgenas.errors import AgentProtocolError
from edgenas.measuring.conversation import AgentEndedError, ContentMissingError, Conversation
from edgenas.measuring.messages import Compared, Comparison, plausible
from edgenas.measuring.shipping import Shipper
from edgenas.records import NetworkLatency

_MOST_SESSIONS = 24
# On an instruction-count clock only the kernel's own ticks, every 4 ms, get into a run or do not: single
# runs of a network of 1.5 to 8 ms spread by .1 to 1.3 %, the fastest of a few by less than .05 %. One round
# in ten of a shorter network has a tick in all of its runs, which the median of three rounds ignores.
# Where the memory of a session lies matters more than all of that, so that processes begin alike.
_VIRTUAL = {"min_rounds": 3, "max_rounds": 3, "runs_per_round": 3, "alike": True}


class ComparePlan(NamedTuple):
    """What is asked of every batch."""

    threads: int
    min_rounds: int
    max_rounds: int
    relative_halfwidth: float
    runs_per_round: int | None = None
    rounds_limit_s: float | None = None
    patience_s: float = 0.0
    known_pace_ms: float | None = None


class Steadily(Protocol):
    """Asks, and asks again after a lost connection."""

    def __call__(self, ask: Callable[[], Comparison], /) -> Comparison: ...


class Comparer:
    """Measures a list of models; each batch is one request."""

    def __init__(
        self,
        profile: DeviceProfile,
        plan: ComparePlan,
        conversation: Conversation,
        shipper: Shipper,
        steadily: Steadily,
    ) -> None:
        self._profile, self._plan = profile, plan
        self._conversation, self._shipper, self._steadily = conversation, shipper, steadily
        self._most = _MOST_SESSIONS

    def compare(self, models: Sequence[str], time_limit_s: float | None) -> Iterator[NetworkLatency]:
        """Yields every model once, failed or measured."""
        deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
        waiting = list(dict.fromkeys(models))
        while waiting:
            left_s = None if deadline is None else deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                reason = f"not measured: the time limit of {time_limit_s:.0f} s is over"
                yield from (self._failed(model, reason) for model in waiting)
                return
            for measured in self._batch(waiting, left_s):
                waiting.remove(measured.model_sha256)
                yield measured

    def _batch(self, waiting: list[str], left_s: float | None) -> list[NetworkLatency]:
        """Results of some of the models; none where a crash did not tell which model it was."""
        try:
            reply = self._steadily(lambda: self._ask(waiting, left_s))
        except AgentEndedError as ended:
            return self._after_crash(waiting, ended)
        unknown = set(reply.results) - set(waiting)
        if unknown or not reply.results:
            raise AgentProtocolError(f"'{self._profile.id}' was asked for {len(waiting)} models, not these")
        self._most = _MOST_SESSIONS
        return [self._network(model, compared) for model, compared in reply.results.items()]

    def _after_crash(self, waiting: list[str], ended: AgentEndedError) -> list[NetworkLatency]:
        """The model that was being loaded is to blame; else smaller batches find it."""
        blamed = ended.loading
        if blamed not in waiting:
            if self._most > 1 and len(waiting) > 1:
                self._most = min(self._most, len(waiting)) // 2
                return []
            blamed = waiting[0]
        return [self._failed(blamed, ended.end.reason, crashed=True)]

    def _ask(self, waiting: list[str], left_s: float | None) -> Comparison:
        try:
            return self._ask_once(waiting, left_s)
        except ContentMissingError:
            self._shipper.ensure(waiting[: self._most])
            return self._ask_once(waiting[: self._most], left_s)

    def _ask_once(self, models: list[str], left_s: float | None) -> Comparison:
        plan = self._plan
        rounds: dict[str, Any] = {"min_rounds": plan.min_rounds, "max_rounds": plan.max_rounds}
        if plan.runs_per_round is not None:
            rounds["runs_per_round"] = plan.runs_per_round
        if plan.rounds_limit_s is not None:
            rounds["rounds_limit_s"] = plan.rounds_limit_s
        if plan.patience_s:
            rounds |= {"patience_s": plan.patience_s, "known_pace_ms": plan.known_pace_ms}
        if self._profile.virtual:
            rounds = _VIRTUAL
        return self._conversation.ask(
            "compare",
            Comparison,
            models=models,
            threads=self._plan.threads,
            relative_halfwidth=self._plan.relative_halfwidth,
            time_limit_s=left_s,
            most_sessions=self._most,
            temperature_limit_c=self._profile.temperature_limit_c,
            **rounds,
        )

    def _network(self, model: str, compared: Compared) -> NetworkLatency:
        if compared.statistics is None:
            reason = compared.error or "the device gave no reason"
            return self._failed(model, reason, crashed=compared.crashed)
        try:
            statistics = plausible(compared.statistics)
        except ValueError as error:
            raise AgentProtocolError(f"'{self._profile.id}' sent a result that cannot be: {error}") from error
        return NetworkLatency(
            model_sha256=model,
            threads=self._plan.threads,
            statistics=statistics,
            disturbed_rounds=compared.disturbed_rounds,
        )

    def _failed(self, model: str, reason: str, *, crashed: bool = False) -> NetworkLatency:
        return NetworkLatency(model_sha256=model, threads=self._plan.threads, error=reason, crashed=crashed)
