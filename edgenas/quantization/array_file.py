"""The arrays of an ``.npz`` file where they lie on disk, so that a large one never fills the memory."""

from __future__ import annotations

import math
import shutil
import struct
import tempfile
import weakref
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgenas.errors import DataError

UNREADABLE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, struct.error)
LOCAL_HEADER_BYTES = 30  # of a member, before its name and extra field
LENGTHS_AT = 26  # of name and extra field in it


class StoredArray:
    """An array whose rows are read from its file when they are asked for.

    Reading, not mapping: pages of a mapped file count as memory of the process until somebody else
    needs it.
    """

    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        with path.open("rb") as file:
            file.seek(start)
            first = np.lib.format.read_magic(file) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            self.shape, fortran, self.dtype = read(file)
            self._begin = file.tell()
            size = file.seek(0, 2)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which are never loaded")
        if fortran and self.ndim > 1:
            raise ValueError("its columns lie together; save it with numpy.ascontiguousarray")
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        if self._begin + len(self) * self._row_bytes > size:
            raise ValueError("it is cut off")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0]) if self.shape else 0

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The rows at these indices."""
        read = np.empty((len(rows), *self.shape[1:]), self.dtype)
        with self._path.open("rb") as file:
            for position, row in enumerate(rows):
                file.seek(self._begin + int(row) * self._row_bytes)
                read[position] = np.frombuffer(file.read(self._row_bytes), self.dtype).reshape(self.shape[1:])
        return read


class ArrayFile:
    """An opened ``.npz``; keep it as long as its arrays.

    What ``numpy.savez`` stores is read in place; compressed members are unpacked into a temporary
    folder and read there.

    Raises:
        DataError: the file is damaged.

    Source: the ZIP file format (PKWARE APPNOTE 6.3), section 4.3.7, local file header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unpacked: Path | None = None
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {Path(m.filename).stem: m for m in archive.infolist() if _is_array(m)}
        except UNREADABLE as error:
            raise DataError(f"cannot read {path}: {error}") from error

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def array(self, name: str) -> StoredArray:
        """The array ``name``.

        Raises:
            DataError: it is damaged, or holds Python objects.
        """
        member = self._members[name]
        try:
            if member.compress_type == zipfile.ZIP_STORED:
                return StoredArray(self.path, self._start_of(member))
            with zipfile.ZipFile(self.path) as archive:
                return StoredArray(Path(archive.extract(member, self._folder())), 0)
        except UNREADABLE as error:
            raise DataError(f"cannot read the array '{name}' of {self.path}: {error}") from error

    def _folder(self) -> Path:
        if self._unpacked is None:
            self._unpacked = Path(tempfile.mkdtemp(prefix="edgenas-arrays-"))
            weakref.finalize(self, shutil.rmtree, self._unpacked, ignore_errors=True)
        return self._unpacked

    def _start_of(self, member: zipfile.ZipInfo) -> int:
        with self.path.open("rb") as file:
            file.seek(member.header_offset + LENGTHS_AT)
            name, extra = struct.unpack("<HH", file.read(4))
        return int(member.header_offset + LOCAL_HEADER_BYTES + name + extra)


def _is_array(member: zipfile.ZipInfo) -> bool:
    return member.filename == f"{Path(member.filename).stem}.npy"
