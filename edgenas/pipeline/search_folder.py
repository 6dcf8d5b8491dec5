"""Where a search is kept when nobody says, and what to type after it."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgenas.workspace import Workspace

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
    further: Mapping[str, Any],
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
        further: all else that makes it another search, as JSON values; what is empty was not asked for. A
            digest of it ends the name, so that names stay short.
    """
    name, _, detail = source.partition(":")
    by_default = "default" if checkpoint is None else checkpoint.absolute().parent.name
    parts = (
        "search", Path(space).name.removesuffix(".toml") if space else by_default, name, Path(detail).stem,
        *devices, "-".join(f"{limit:.15g}ms" for limit in latency_ms),
        strategy != DEFAULT_STRATEGY and strategy, *objectives,
        hyperparameters and "tuned", seed and f"seed{seed}", _digest(further),
    )  # fmt: skip
    return re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part))


def place_of(asked: str | Path | None, workspace: Workspace) -> str | None:
    """The file or folder that was named, as seen from the workspace; None where it is none."""
    if not asked or not Path(asked).exists():
        return None
    place, root = Path(asked).resolve(), workspace.root.resolve()
    return (place.relative_to(root) if place.is_relative_to(root) else place).as_posix()


def _digest(further: Mapping[str, Any]) -> str:
    told = {name: value for name, value in sorted(further.items()) if value}
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:8] if told else ""


def next_steps(
    folder: Path,
    *,
    found: bool,
    space: str,
    data: str | None,
    devices: Sequence[str],
    limits_ms: Sequence[float],
    threads: int | None,
    seed: int,
    further_limits: Mapping[str, float],
) -> tuple[str, ...]:
    """Commands that go on from a search: its page, and the whole pipeline where it found a network.

    Args:
        folder: of the search, under the workspace's runs.
        found: whether a network kept the limits.
        space: as ``run --space`` takes it.
        data: as it was asked for; ``DATA`` stands for it when None.
        devices: of the search; ``run`` knows one.
        limits_ms: of each device.
        threads: that latencies are for; the device's when None.
        seed: told where it is not 0.
        further_limits: on anything but latency; ``run`` keeps none of them.
    """
    page = f"edgenas report {shlex.quote(folder.name)}"
    if not found or len(devices) > 1 or further_limits:
        return (page,)
    told = {
        "--device": devices[0], "--latency-ms": f"{limits_ms[0]:.15g}", "--space": space,
        "--threads": threads and str(threads), "--seed": seed and str(seed),
    }  # fmt: skip
    options = " ".join(f"{name} {shlex.quote(value)}" for name, value in told.items() if value)
    return page, f"edgenas run {options} --data {'DATA' if data is None else shlex.quote(data)}"
