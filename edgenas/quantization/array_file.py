"""The arrays of an ``.npz`` file where they lie on disk, so that a large one never fills the memory."""

from __future__ import annotations

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


class ArrayFile:
    """An opened ``.npz``; keep it as long as its arrays.

    What ``numpy.savez`` stores is mapped in place; compressed members are unpacked into a temporary
    folder and mapped there.

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

    def array(self, name: str) -> npt.NDArray[Any]:
        """The array ``name``, read-only.

        Raises:
            DataError: it is damaged, or holds Python objects.
        """
        member = self._members[name]
        try:
            if member.compress_type == zipfile.ZIP_STORED:
                return _mapped(self.path, self._start_of(member))
            with zipfile.ZipFile(self.path) as archive:
                return _mapped(Path(archive.extract(member, self._folder())), 0)
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


def _mapped(path: Path, start: int) -> npt.NDArray[Any]:
    """The array whose ``.npy`` bytes begin at ``start``."""
    with path.open("rb") as file:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        begin = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    if 0 in shape or not shape:
        return _small(path, start)
    return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")


def _small(path: Path, start: int) -> npt.NDArray[Any]:
    """Empty arrays and single numbers, which cannot be mapped."""
    with path.open("rb") as file:
        file.seek(start)
        array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
