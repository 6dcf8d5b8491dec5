"""Removes caches and old runs; without ``yes`` it only shows them."""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from edgenas.errors import EdgeNASError
from edgenas.latency_tables.saved_predictor import predictors_folder
from edgenas.progress import say
from edgenas.records import CleanItem, CleanResult
from edgenas.workspace import Workspace, cache_folder

OLD_S = 30 * 24 * 3600.0
_CACHED = ("content", "tmp")  # of the agent on this machine; models are shipped to it again


def clean(
    *, yes: bool = False, older_than_s: float = OLD_S, workspace: Workspace | None = None
) -> CleanResult:
    """What the agent on this machine cached, fitted predictors, and runs that have long been left alone.

    Tables, profiles, data sets and virtual boards stay. A run goes whole, with its bundle.

    Args:
        yes: removes what is otherwise only shown.
        older_than_s: runs whose newest file is older than this many seconds are old.
        workspace: where runs are; the current folder when None.

    Raises:
        EdgeNASError: a folder cannot be removed; what went before it is gone.
    """
    workspace = workspace or Workspace()
    items = (*_caches(), *_old_runs(workspace.runs, older_than_s))
    if yes:
        for item in items:
            _remove(Path(item.path))
    elif items:
        say("nothing was removed; to remove this: edgenas clean --yes")
    return CleanResult(removed=yes, size_bytes=sum(item.size_bytes for item in items), items=items)


def _caches() -> Iterator[CleanItem]:
    for name in _CACHED:
        folder = cache_folder() / "agent" / name
        if folder.is_dir() and any(folder.iterdir()):
            yield _item("cache", folder)
    if predictors_folder().is_dir():
        yield _item("cache", predictors_folder())


def _old_runs(runs: Path, older_than_s: float) -> Iterator[CleanItem]:
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink():
            item = _item("run", folder)
            if item.age_s > older_than_s:
                yield item


def _item(kind: str, folder: Path) -> CleanItem:
    """A folder with the size of its files and the age of the newest one."""
    found = [path.lstat() for path in (folder, *folder.rglob("*"))]
    newest_s = max(one.st_mtime for one in found)
    files = [one for one in found if stat.S_ISREG(one.st_mode)]
    return CleanItem(
        kind=kind,
        path=str(folder),
        size_bytes=sum(one.st_size for one in files),
        age_s=max(time.time() - newest_s, 0.0),
    )


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return  # another process was quicker
    except OSError as error:
        raise EdgeNASError(f"{folder} cannot be removed: {error.strerror or error}") from error
