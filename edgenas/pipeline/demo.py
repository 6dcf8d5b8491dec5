"""``edgenas demo``: the whole product on scikit-learn's handwritten digits."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np

from edgenas.pipeline.latency import compiled_latency
from edgenas.pipeline.run import RunSettings, profile_stage, run
from edgenas.pipeline.stages import RunFolder
from edgenas.progress import say
from edgenas.records import RunResult
from edgenas.search_spaces import CLASSES, get_space
from edgenas.workspace import Workspace

SPACE, DATA = "dense-demo", "digits"
PROFILE_TIME_LIMIT_S, TRAIN_SECONDS, FINAL_SECONDS, EVALUATIONS = 60.0, 140.0, 70.0, 48


def demo(
    *,
    device: str | None = None,
    latency_ms: float | None = None,
    threads: int = 1,
    seed: int = 0,
    workspace: Workspace | None = None,
) -> RunResult:
    """``run`` on real data that an installed dependency carries, in minutes and with no download.

    Args:
        device: the device; the workspace's default when omitted.
        latency_ms: the hard limit; when omitted, half-way (as a ratio) between the fastest and the
            median network of the space on this device.
        threads: threads to measure with; networks of some tens of microseconds gain nothing from more,
            and repeat less well.
        seed: of everything that is drawn.
        workspace: where tables and runs are; the current folder when omitted.
    """
    workspace = workspace or Workspace()
    device = workspace.device_or_default(device)
    name = f"demo-{device}"
    limit_ms = (
        latency_ms
        or _earlier_limit_ms(workspace.runs / name / "run.json")
        or _interesting_limit_ms(name, device, threads, seed, workspace)
    )
    return run(
        latency_ms=limit_ms,
        data=DATA,
        device=device,
        space=SPACE,
        name=name,
        train_seconds=TRAIN_SECONDS,
        final_seconds=FINAL_SECONDS,
        evaluations=EVALUATIONS,
        profile_time_limit_s=PROFILE_TIME_LIMIT_S,
        threads=threads,
        seed=seed,
        workspace=workspace,
    )


def _earlier_limit_ms(settings: Path) -> float | None:
    """What an interrupted demo asked for: a table that has grown since must not move the goal."""
    try:
        return msgspec.json.decode(settings.read_bytes(), type=RunSettings).latency_ms
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _interesting_limit_ms(name: str, device: str, threads: int, seed: int, workspace: Workspace) -> float:
    """A limit that rules networks out and leaves a choice, on whatever device this is.

    The device is profiled as the first stage of the run ``name``, which finds it done.
    """
    with RunFolder(workspace.runs / name) as folder:
        profiled = profile_stage(
            folder,
            device=device,
            space=SPACE,
            classes=CLASSES,
            time_limit_s=PROFILE_TIME_LIMIT_S,
            threads=threads,
            seed=seed,
            workspace=workspace,
        )
    space = get_space(SPACE, classes=CLASSES)
    latency = compiled_latency(space, device, threads=profiled.threads, workspace=workspace)
    sampled_ms = latency(space.sample(np.random.default_rng(seed), 2000))
    fastest_ms, middle_ms = float(np.min(sampled_ms)), float(np.median(sampled_ms))
    limit_ms = float(f"{math.sqrt(fastest_ms * middle_ms):.2g}")
    say(
        f"networks of this space take {fastest_ms:.3g} ms (fastest) to {middle_ms:.3g} ms (median): "
        f"asking for {limit_ms:g} ms"
    )
    return limit_ms
