"""Where a search is kept when nobody says, and what to type after it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

DEFAULT_STRATEGY = "evolution"


def default_folder_name(
    *,
    space: str | None,
    source: str,
    checkpoint: Path | None,
    devices: Sequence[str],
    latency_ms: Sequence[float],
    strategy: str,
    objectives: Sequence[str],
    hyperparameters: bool,
    seed: int,
) -> str:
    """A name of its own for whatever a user would call another search.

    Args:
        space: as it was asked for; a checkpoint's folder stands for it when None.
        source: ``NAME[:DETAIL]`` of the accuracy source.
        checkpoint: a supernet.
        devices: of the search.
        latency_ms: their limits.
        strategy: told where it is not the default one.
        objectives: beside the accuracy.
        hyperparameters: whether those of the training are searched, too.
        seed: told where it is not 0.
    """
    name, _, detail = source.partition(":")
    by_default = "default" if checkpoint is None else checkpoint.absolute().parent.name
    parts = (
        "search", Path(space).name.removesuffix(".toml") if space else by_default, name, Path(detail).stem,
        *devices, "-".join(f"{limit:g}ms" for limit in latency_ms),
        strategy != DEFAULT_STRATEGY and strategy, *objectives,
        hyperparameters and "tuned", seed and f"seed{seed}",
    )  # fmt: skip
    return re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part))


def next_steps(
    folder: Path,
    *,
    found: bool,
    space: str,
    data: str | None,
    devices: Sequence[str],
    limits_ms: Sequence[float],
) -> tuple[str, ...]:
    """Commands that go on from a search: its page, and the whole pipeline where it found a network.

    Args:
        folder: of the search, under the workspace's runs.
        found: whether a network kept the limits.
        space: as ``run --space`` takes it.
        data: as it was asked for; ``DATA`` stands for it when None.
        devices: of the search; ``run`` knows one.
        limits_ms: of each device.
    """
    page = f"edgenas report {shlex.quote(folder.name)}"
    if not found or len(devices) > 1:
        return (page,)
    told = {"--device": devices[0], "--latency-ms": f"{limits_ms[0]:g}", "--space": space}
    options = " ".join(f"{name} {shlex.quote(value)}" for name, value in told.items())
    return page, f"edgenas run {options} --data {'DATA' if data is None else shlex.quote(data)}"
