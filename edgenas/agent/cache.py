"""Models and arrays on the device, stored once under the hash of their content."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Tuple

from .failures import AgentError
from .part import Bytes, Part

_HASH = re.compile(r"[0-9a-f]{64}")
_KEPT = re.compile(r"[0-9a-f]{64}((\.[0-9a-f]{32})?\.part)?")
_RESERVE_BYTES = 64 << 20
_LISTED_EVERY = 200  # pieces


class ContentCache:
    """Files named by their sha256; the least recently used go when the limit is reached.

    Args:
        folder: where the files are; created when first written to.
        limit_bytes: how much may be kept.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._parts: Dict[str, Part] = {}
        self._total_bytes, self._unlisted = 0, 0

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
        """For each hash whether it is complete, and how many bytes of it are here to go on from."""
        return [self._size(_checked(content)) for content in contents]

    def append(self, content: str, offset: int, piece: Bytes, *, last: bool) -> None:
        """Writes one piece; the last piece makes the file appear if its hash is right.

        Raises:
            AgentError: the piece does not follow the one before, the disk is full, or what
                arrived is not what was announced.
        """
        _checked(content)
        try:
            self._write(content, offset, piece)
        except OSError as error:
            raise AgentError("device", f"{self._folder} cannot be written: {error.strerror}") from error
        if last:
            self._complete(content)

    def _write(self, content: str, offset: int, piece: Bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(piece))
        part = self._part(content)
        if offset == 0:
            part.clear()
        if part.size() != offset:
            raise AgentError("request", f"piece at {offset} of {content} does not follow the last one")
        part.append(piece)

    def _part(self, content: str) -> Part:
        """What this process writes to: the common part, or while another fills that, one of its own."""
        if content not in self._parts:
            own = (f"{content}.{uuid.uuid4().hex}.part" for _ in itertools.count())
            names = itertools.chain([f"{content}.part"], own)
            tried = (Part.locked(self._folder / name) for name in names)
            self._parts[content] = next(part for part in tried if part is not None)
        return self._parts[content]

    def _complete(self, content: str) -> None:
        with contextlib.closing(self._parts.pop(content)) as part:
            digest = part.sha256()
            if digest != content:
                part.path.unlink()
                raise AgentError("device", f"{content} arrived damaged: its hash is {digest}")
            os.replace(part.path, self._folder / content)

    def _size(self, content: str) -> Tuple[bool, int]:
        with contextlib.suppress(FileNotFoundError):
            return True, (self._folder / content).stat().st_size
        common = self._folder / f"{content}.part"
        if content not in self._parts and common.exists():
            part = Part.locked(common)
            if part is not None:  # from here on nobody else goes on with it or removes it
                self._parts[content] = part
        return False, self._parts[content].size() if content in self._parts else 0

    def _make_room(self, needed: int) -> None:
        """Removes what was used least recently; agents beside this one may do the same at any moment.

        Thousands of files take a small board long to look at, so that is done once in a while.
        """
        self._total_bytes, self._unlisted = self._total_bytes + needed, self._unlisted - 1
        if self._unlisted > 0 and not self._is_short_of(needed):
            return
        kept = sorted(self._kept())
        self._total_bytes, self._unlisted = needed + sum(size for _, size, _ in kept), _LISTED_EVERY
        while kept and self._is_short_of(needed):
            _, size, oldest = kept.pop(0)
            self._total_bytes -= size if _removed(oldest) else 0
        if self._free() < _RESERVE_BYTES:
            raise AgentError(
                "device", f"the disk is full: {self._free() >> 20} MiB are free where {self._folder} is"
            )

    def _is_short_of(self, needed: int) -> bool:
        return self._total_bytes > self._limit_bytes or self._free() < needed + _RESERVE_BYTES

    def _kept(self) -> Iterator[Tuple[float, int, Path]]:
        """Last use, size and path of every file, complete or not."""
        for path in self._folder.iterdir():
            if _KEPT.fullmatch(path.name):
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield found.st_mtime, found.st_size, path

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free


def _removed(path: Path) -> bool:
    """Removes a file, unless it is a part that is being filled."""
    if path.suffix == ".part":
        part = Part.locked(path)
        if part is None:
            return False
        with contextlib.closing(part):
            path.unlink()
    else:
        path.unlink(missing_ok=True)
    return True


def _checked(content: str) -> str:
    if not _HASH.fullmatch(content):
        raise AgentError("request", f"not a sha256: {content[:80]!r}")
    return content
