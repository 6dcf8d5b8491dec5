"""Models and arrays to the device: once, by content, resumed where a connection broke."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from edgenas.errors import AgentProtocolError, MeasurementError
from edgenas.measuring.conversation import Conversation
from edgenas.measuring.messages import Presence
from edgenas.progress import Task, track

_PIECE_BYTES = 768 << 10
_SHOWN_FROM_BYTES = 8 << 20


class Shipper:
    """Puts files into the agent's cache and remembers where they came from."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._sources: dict[str, Path] = {}
        self._hashes: dict[tuple[str, int, int], str] = {}

    def hash_of(self, path: Path) -> str:
        """The sha256 of a file's content; remembered until the file changes."""
        status = path.stat()
        key = str(path.resolve()), status.st_size, status.st_mtime_ns
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        self._sources[self._hashes[key]] = path
        return self._hashes[key]

    def present(self, contents: Iterable[str]) -> set[str]:
        """Those of the contents that the device has, complete."""
        return {content for content, presence in self._presences(contents) if presence.complete}

    def ensure(self, contents: Iterable[str]) -> None:
        """Sends what the device does not have.

        Raises:
            MeasurementError: something is missing there whose file is no longer here.
        """
        for content, presence in self._presences(contents):
            if not presence.complete:
                self._send(content, presence.size)

    def _presences(self, contents: Iterable[str]) -> list[tuple[str, Presence]]:
        wanted = list(dict.fromkeys(contents))
        found = self._conversation.ask("have", list[Presence], contents=wanted)
        if len(found) != len(wanted):
            raise AgentProtocolError(
                f"the device was asked for {len(wanted)} contents and told of {len(found)}"
            )
        return list(zip(wanted, found, strict=True))

    def _send(self, content: str, start: int) -> None:
        path = self._sources.get(content)
        if path is None or not path.exists():
            raise MeasurementError(
                f"the device lacks content {content[:12]} and its file is not here any more"
            )
        size = path.stat().st_size
        start = start if start < size else 0
        with (
            track(f"Shipping {path.name}", size)
            if size > _SHOWN_FROM_BYTES
            else contextlib.nullcontext(Task()) as task
        ):
            self._send_pieces(content, path, start, task)

    def _send_pieces(self, content: str, path: Path, start: int, task: Task) -> None:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(start)
            task.advance(start)
            while start < size or size == 0:
                piece = file.read(_PIECE_BYTES)
                last = start + len(piece) >= size
                data = base64.b64encode(piece).decode()
                self._conversation.ask("put", dict, content=content, offset=start, data=data, last=last)
                start += len(piece)
                task.advance(len(piece))
                if last:
                    return
