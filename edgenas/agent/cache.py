"""Models and arrays on the device, stored once under the hash of their content."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Iterable, Iterator, List, Tuple

from .failures import AgentError

_HASH = re.compile(r"[0-9a-f]{64}")
_RESERVE_BYTES = 64 << 20


class ContentCache:
    """Files named by their sha256; the least recently used go when the limit is reached.

    Args:
        folder: where the files are; created when first written to.
        limit_bytes: how much may be kept.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def path(self, content: str) -> Path:
        """The file with this hash, marked as used.

        Raises:
            AgentError: it is not here.
        """
        path = self._folder / _checked(content)
        try:
            os.utime(path)
        except FileNotFoundError:
            raise AgentError("missing", content) from None
        return path

    def sizes(self, contents: Iterable[str]) -> List[Tuple[bool, int]]:
        """For each hash whether it is complete, and how many bytes of it are here."""
        return [self._size(_checked(content)) for content in contents]

    def append(self, content: str, offset: int, data: str, *, last: bool) -> None:
        """Writes one piece; the last piece makes the file appear if its hash is right.

        Raises:
            AgentError: the piece does not follow the one before, the disk is full, or what
                arrived is not what was announced.
        """
        part = self._folder / (_checked(content) + ".part")
        try:
            piece = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise AgentError("request", f"a piece of {content} is not base64: {error}") from error
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(offset + len(piece))
        with part.open("r+b" if offset else "wb") as file:
            if file.seek(0, os.SEEK_END) != offset:
                raise AgentError("request", f"piece at {offset} of {content} does not follow the last one")
            file.write(piece)
        if last:
            self._complete(content, part)

    def _complete(self, content: str, part: Path) -> None:
        digest = hashlib.sha256()
        with part.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        if digest.hexdigest() != content:
            part.unlink()
            raise AgentError("device", f"{content} arrived damaged: its hash is {digest.hexdigest()}")
        os.replace(part, self._folder / content)

    def _size(self, content: str) -> Tuple[bool, int]:
        for path, complete in ((self._folder / content, True), (self._folder / (content + ".part"), False)):
            try:
                return complete, path.stat().st_size
            except FileNotFoundError:
                continue
        return False, 0

    def _make_room(self, needed: int) -> None:
        """Removes what was used least recently; agents beside this one may do the same at any moment."""
        kept = sorted(self._kept())
        total = sum(size for _, size, _ in kept)
        while kept and (total + needed > self._limit_bytes or self._free() < needed + _RESERVE_BYTES):
            _, size, oldest = kept.pop(0)
            total -= size
            oldest.unlink(missing_ok=True)
        if self._free() < _RESERVE_BYTES:
            raise AgentError(
                "device", f"the disk is full: {self._free() >> 20} MiB are free where {self._folder} is"
            )

    def _kept(self) -> Iterator[Tuple[float, int, Path]]:
        """Last use, size and path of every complete file."""
        for path in self._folder.iterdir():
            if _HASH.fullmatch(path.name):
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield found.st_mtime, found.st_size, path

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


def _checked(content: str) -> str:
    if not _HASH.fullmatch(content):
        raise AgentError("request", f"not a sha256: {content[:80]!r}")
    return content
