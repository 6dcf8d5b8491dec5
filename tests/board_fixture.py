"""A running virtual board for tests, or the reason why there is none here."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgenas.device_profiles import load_profile
from edgenas.measuring.virtual_board import VirtualBoard, ready_image
from edgenas.workspace import Workspace

DEVICE = "virtual-a72"
_RUNS = ("qemu-system-aarch64", "ssh", "ssh-keygen")
_BUILDS = ("mmdebstrap", "cpio", "depmod")


def kept_folder() -> Path:
    """What is dear to make and the same for every run: ``EDGENAS_TEST_CACHE``, else in the user's cache."""
    folder = Path(os.environ.get("EDGENAS_TEST_CACHE") or Path.home() / ".cache" / "edgenas-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def board_here(folder: Path) -> Iterator[VirtualBoard]:
    """A board of this test run's own; its system is built once and kept between runs.

    The system stands in ``kept_folder()`` under the hash of what it is built from; everything else of
    the board is in ``folder``.
    """
    missing = [tool for tool in (*_RUNS, *_BUILDS) if shutil.which(tool, path=_PATH) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a virtual board needs root and {', '.join(missing) or 'nothing else'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", _PATH)
        patch.setenv("EDGENAS_CACHE", str(kept_folder()))
        image = ready_image()
        boards = folder / "boards"
        boards.mkdir(parents=True)
        (boards / image.name).symlink_to(image)
        for name in ("id_ed25519", "id_ed25519.pub"):
            shutil.copy(image.parent / name, boards / name)
        patch.setenv("EDGENAS_CACHE", str(folder))
        board = VirtualBoard(load_profile(DEVICE, Workspace(folder)))
        board.start()
        try:
            yield board
        finally:
            board.stop()


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
