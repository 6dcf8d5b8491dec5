"""Models and arrays to the device: once, by content, resumed where a connection broke."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from edgenas.errors import AgentProtocolError, MeasurementError
from edgenas.measuring.conversation import Conversation
from edgenas.measuring.messages import Presence
from edgenas.progress import Task, track

_MESSAGE_BYTES = 1 << 20
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

    def known(self, path: Path, content: str) -> str:
        """Remembers where a content is whose hash needs no computing; returns the hash."""
        self._sources[content] = path
        return content

    def present(self, contents: Iterable[str]) -> set[str]:
        """Those of the contents that the device has, complete."""
        return {content for content, presence in self._presences(contents) if presence.complete}

    def ensure(self, contents: Iterable[str]) -> None:
        """Sends what the device does not have.

        Raises:
            MeasurementError: something is missing there whose file is no longer here.
        """
        lacking = [self._rest(*found) for found in self._presences(contents) if not found[1].complete]
        if not lacking:
            return
        total = sum(rest.size for rest in lacking)
        name = lacking[0].path.name if len(lacking) == 1 else f"{len(lacking)} files"
        shown = track(f"Shipping {name}", total) if total > _SHOWN_FROM_BYTES else None
        with shown or contextlib.nullcontext(Task()) as task:
            task.advance(sum(rest.start for rest in lacking))
            for message in _messages(_pieces(lacking)):
                self._put(message)
                task.advance(sum(len(piece.data) for piece in message))

    def _presences(self, contents: Iterable[str]) -> list[tuple[str, Presence]]:
        wanted = list(dict.fromkeys(contents))
        found = self._conversation.ask("have", list[Presence], contents=wanted)
        if len(found) != len(wanted):
            raise AgentProtocolError(
                f"the device was asked for {len(wanted)} contents and told of {len(found)}"
            )
        return list(zip(wanted, found, strict=True))

    def _rest(self, content: str, presence: Presence) -> _Rest:
        path = self._sources.get(content)
        if path is None or not path.exists():
            raise MeasurementError(
                f"the device lacks content {content[:12]} and its file is not here any more"
            )
        size = path.stat().st_size
        return _Rest(content, path, presence.size if presence.size < size else 0, size)

    def _put(self, message: list[_Piece]) -> None:
        pieces = [
            {"content": piece.content, "offset": piece.offset, "size": len(piece.data), "last": piece.last}
            for piece in message
        ]
        self._conversation.ask("put", dict, pieces=pieces, attached=[piece.data for piece in message])


class _Rest(NamedTuple):
    """A file of which the device has the first ``start`` bytes."""

    content: str
    path: Path
    start: int
    size: int


class _Piece(NamedTuple):
    """Bytes of a content from ``offset`` on."""

    content: str
    offset: int
    data: bytes
    last: bool


def _pieces(rests: Iterable[_Rest]) -> Iterator[_Piece]:
    """What is to be sent, in order; an empty file is one empty piece."""
    for rest in rests:
        with rest.path.open("rb") as file:
            start = file.seek(rest.start)
            while True:
                data = file.read(_MESSAGE_BYTES)
                last = start + len(data) >= rest.size or not data
                yield _Piece(rest.content, start, data, last)
                start += len(data)
                if last:
                    break


def _messages(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces that travel together: a round trip for each small file would be most of its time."""
    message: list[_Piece] = []
    for piece in pieces:
        if message and sum(len(one.data) for one in message) + len(piece.data) > _MESSAGE_BYTES:
            yield message
            message = []
        message.append(piece)
    if message:
        yield message
