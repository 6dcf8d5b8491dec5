"""One agent at a time: started when it is needed, asked, and started anew when it ended."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from edgenas.errors import AgentProtocolError, DeviceError, DeviceUnreachableError, MeasurementError
from edgenas.measuring.connection import Connection, End
from edgenas.measuring.messages import (
    PROTOCOL,
    Event,
    Failure,
    Greeting,
    Message,
    decoded,
)
from edgenas.measuring.pipe import AgentPipe, PipeEndedError, PipeFloodedError, PipeSilentError, greeting_of
from edgenas.progress import say, warn

# An agent at work says so every two seconds of its own clock; a virtual board's runs far slower.
_SILENCE_S = 120.0
_VIRTUAL_SLOWNESS = 10.0
_START_S = 60.0
_REQUEST_S = 4 * 3600.0

Answer = TypeVar("Answer")


class AgentEndedError(DeviceError):
    """The agent ended while it served a request.

    Attributes:
        end: whether the connection was lost, and the reason.
        loading: hash of the model that it was loading, if it was.
    """

    def __init__(self, device: str, end: End, loading: str) -> None:
        super().__init__(
            f"the agent of '{device}' ended: {end.reason}", hint=f"try: edgenas device check {device}"
        )
        self.end, self.loading = end, loading


class ContentMissingError(DeviceError):
    """The device does not have a content (any more)."""


class Conversation:
    """Requests and replies. One request is under way at a time; nothing is sent before it is asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._profile = connection.profile
        self._pipe: AgentPipe | None = None
        self._number = 0
        self._told: set[str] = set()
        self._named = f"'{self._profile.id}': "
        self._patience = _VIRTUAL_SLOWNESS if self._profile.virtual else 1.0
        self.starts = 0

    def ask(
        self,
        method: str,
        answer: type[Answer],
        *,
        limit_s: float = _REQUEST_S,
        attached: Sequence[bytes] = (),
        **params: Any,
    ) -> Answer:
        """The checked result of one request. What is ``attached`` travels behind it as it is.

        Raises:
            AgentEndedError: the agent or the connection ended meanwhile; the next request starts anew.
            ContentMissingError: the device lacks a content that the request names.
            MeasurementError: the model cannot be measured.
            DeviceError: the device cannot do it.
            AgentProtocolError: what came back is not the protocol.
        """
        if self._pipe is None:
            self._start()
        return self._ask(method, answer, limit_s, params, attached)

    @property
    def connected(self) -> bool:
        """Whether an agent answers; else the next request starts one."""
        return self._pipe is not None

    def close(self) -> None:
        """Ends the agent."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            pipe.close()

    def _start(self) -> None:
        pipe = AgentPipe(self._connection.start())
        try:
            greeting = decoded(greeting_of(pipe, b'"edgenas"', _START_S * self._patience), Greeting)
        except PipeEndedError as ended:
            pipe.close()
            raise self._unreachable(ended) from ended
        except (PipeSilentError, PipeFloodedError, ValueError) as error:
            stderr = pipe.stderr
            pipe.close(0.0)
            raise AgentProtocolError(
                f"'{self._profile.id}' was asked to start the agent and did not greet: "
                f"{stderr[-300:] or 'nothing that is the protocol arrived'}",
                hint=f"look at it: edgenas device check {self._profile.id}",
            ) from error
        self._pipe = pipe
        self._greeted(greeting)
        self.starts += 1

    def _greeted(self, greeting: Greeting) -> None:
        if greeting.protocol != PROTOCOL:
            self.close()
            raise AgentProtocolError(
                f"the agent of '{self._profile.id}' speaks protocol {greeting.protocol}, EdgeNAS {PROTOCOL}"
            )
        holder = f"{getpass.getuser()} on {platform.node()}, process {os.getpid()}"
        hello = {
            "protocol": PROTOCOL,
            "runtime": self._profile.runtime,
            "float_type": self._profile.float_type,
            "holder": holder,
        }
        try:
            self._ask("hello", dict, _START_S * self._patience, hello)
        except DeviceError as error:
            self.close()
            raise DeviceUnreachableError(
                f"'{self._profile.id}' cannot measure: {error.message.removeprefix(self._named)}",
                hint=self._connection.hint(error.message),
            ) from error

    def _unreachable(self, ended: PipeEndedError) -> DeviceError:
        end = self._connection.end_of(ended.returncode)
        said = f": {_last_line(ended.stderr)}" if ended.stderr else ""
        return DeviceUnreachableError(
            f"the agent for '{self._profile.id}' did not start, {end.reason}{said}",
            hint=self._connection.hint(ended.stderr),
        )

    def _ask(
        self,
        method: str,
        answer: type[Answer],
        limit_s: float,
        params: dict[str, Any],
        attached: Sequence[bytes] = (),
    ) -> Answer:
        assert self._pipe is not None
        self._number += 1
        progress = _Progress(self._profile.id, self._told)
        request = {
            "id": self._number,
            "method": method,
            "params": params,
            "attached": sum(map(len, attached)),
        }
        line = msgspec.json.encode(request) + b"\n"
        deadline = time.monotonic() + limit_s * self._patience
        try:
            for part in (line, *attached):
                self._pipe.send(part, _SILENCE_S * self._patience)
            return self._reply(answer, deadline, progress)
        except PipeEndedError as ended:
            self.close()
            end = self._connection.end_of(ended.returncode)
            raise AgentEndedError(self._profile.id, end, progress.loading) from ended
        except PipeSilentError:
            self._abandon()
            late = time.monotonic() >= deadline
            end = End(
                lost=not late, reason=f"'{method}' took too long" if late else "it says nothing any more"
            )
            raise AgentEndedError(self._profile.id, end, progress.loading) from None
        except (ValueError, PipeFloodedError) as error:
            self._abandon()
            raise AgentProtocolError(
                f"'{self._profile.id}' was asked for '{method}' and answered something else: {error}",
                hint="is another program printing on the device's stdout? "
                f"try: edgenas device check {self._profile.id}",
            ) from error

    def _reply(self, answer: type[Answer], deadline: float, progress: _Progress) -> Answer:
        assert self._pipe is not None
        while True:
            patience = min(_SILENCE_S * self._patience, deadline - time.monotonic())
            message = decoded(self._pipe.receive(max(0.0, patience)), Message)
            if message.id != self._number:
                raise ValueError(f"a message about request {message.id}, not {self._number}")
            if message.kind == "event":
                progress.event(message.name, decoded(message.data, Event))
            elif message.kind == "result":
                return decoded(message.data, answer)
            else:
                raise self._failure(decoded(message.data, Failure))

    def _failure(self, failure: Failure) -> Exception:
        if failure.kind == "missing":
            return ContentMissingError(
                f"'{self._profile.id}' does not keep {failure.message[:12]} in its cache"
            )
        if failure.kind == "device":
            return DeviceError(self._named + failure.message, hint=self._connection.hint(failure.message))
        if failure.kind == "request":
            return AgentProtocolError(f"the agent of '{self._profile.id}' refused: {failure.message}")
        memory = (
            f"how much is free: edgenas device check {self._profile.id}; a smaller input or int8 needs less"
        )
        return MeasurementError(
            f"'{self._profile.id}' cannot run the model: {failure.message}",
            reason=failure.message,
            hint=memory if failure.kind == "memory" else "",
        )

    def _abandon(self) -> None:
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            pipe.close(0.0)


class _Progress:
    """Turns the events of one request into messages for people; ``told`` is what they know already."""

    def __init__(self, device: str, told: set[str]) -> None:
        self._device = device
        self._told = told
        self.loading = ""

    def event(self, name: str, event: Event) -> None:
        if name in ("loading", "measuring"):
            self.loading = event.model
        elif name == "waiting" and self._first(name):
            say(f"'{self._device}' is measuring for {event.holder}; waiting for it")
        elif name == "cooling" and self._first(name):
            warn(f"'{self._device}' is at {event.temperature_c:.0f} C; waiting until it has cooled down")
        elif name == "restless" and self._first(name):
            warn(
                f"the runtime's threads on '{self._device}' never rest and slow each other down: latencies "
                "with several threads are too high. A newer runtime may end that; --threads 1 does"
            )

    def _first(self, name: str) -> bool:
        if name in self._told:
            return False
        self._told.add(name)
        return True


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""
