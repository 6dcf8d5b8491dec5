"""Several devices profiled side by side, each into its own table."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import Any

from edgenas.device_profiles import load_profile
from edgenas.errors import DeviceError, EdgeNASError
from edgenas.pipeline.profile import profile
from edgenas.progress import say, track, warn
from edgenas.records import ProfileResult
from edgenas.workspace import Workspace


def profile_several(
    devices: Sequence[str], *, workspace: Workspace | None = None, **options: Any
) -> tuple[ProfileResult, ...]:
    """Measures on several devices at once; what one of them does is no matter to the others.

    Args:
        devices: the devices; one that is named twice is measured once.
        workspace: where tables and device profiles are; the current folder when None.
        options: everything else that ``profile`` takes, the same for all.

    Returns:
        One result for each device, in their order.

    Raises:
        UnknownNameError: one of them has no profile; nothing is measured then.
        DeviceError: some could not be profiled; the others' tables are complete.
    """
    workspace = workspace or Workspace()
    names = tuple(dict.fromkeys(devices))
    for name in names:
        load_profile(name, workspace)
    results: dict[str, ProfileResult] = {}
    failures: dict[str, EdgeNASError] = {}
    with track(f"Profiling {len(names)} devices", total=len(names)) as task:
        for name, outcome in _as_they_end(names, workspace, options):
            if isinstance(outcome, ProfileResult):
                results[name] = outcome
                say(f"'{name}' is profiled: {outcome.table}")
            else:
                failures[name] = outcome
                warn(f"'{name}' is not profiled: {outcome}")
            task.advance(note=name)
    if failures:
        raise _failed(failures, len(names))
    return tuple(results[name] for name in names)


def _as_they_end(
    names: Sequence[str], workspace: Workspace, options: dict[str, Any]
) -> Iterator[tuple[str, ProfileResult | EdgeNASError]]:
    """Pairs of device and result or error.

    A pool's threads are daemons: Ctrl-C ends the program at once, and with it the connections.
    """
    contexts = {name: contextvars.copy_context() for name in names}

    def one(name: str) -> tuple[str, ProfileResult | EdgeNASError]:
        try:
            return name, contexts[name].run(profile, device=name, workspace=workspace, **options)
        except EdgeNASError as error:
            return name, error

    with ThreadPool(len(names)) as pool:
        yield from pool.imap_unordered(one, names)


def _failed(failures: dict[str, EdgeNASError], count: int) -> DeviceError:
    told = "; ".join(f"'{name}': {error}" for name, error in failures.items())
    hints = (error.hint for error in failures.values())
    return DeviceError(
        f"{len(failures)} of {count} devices are not profiled: {told}",
        hint=next((hint for hint in hints if hint), "the same command goes on with what is missing"),
    )
