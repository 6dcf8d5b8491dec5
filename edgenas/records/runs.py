"""What training and whole runs leave behind."""

from __future__ import annotations

from typing import Any

from edgenas.records.base import Record, Verdict


class EpochRecord(Record):
    """One epoch of training: loss, validation accuracy by what was evaluated, CPU seconds."""

    epoch: int
    loss: float
    accuracy: dict[str, float]
    elapsed_s: float


class TrainResult(Record):
    """A trained supernet or network: where the checkpoint is and how it got there."""

    space: str
    data: str
    checkpoint: str
    epochs: tuple[EpochRecord, ...]
    validation_accuracy: float
    elapsed_s: float


class BundleFile(Record):
    """One file of a bundle and its hash."""

    name: str
    sha256: str
    size_bytes: int


class RunResult(Record):
    """What ``run`` leaves behind: the folder, the winner and the verdict."""

    name: str
    folder: str
    device: str
    space: str
    latency_limit_ms: float
    verdict: Verdict
    scheme: str
    latency_ms: float
    accuracy: float | None
    fp32_accuracy: float | None
    size_bytes: int
    fp32_size_bytes: int
    candidate: dict[str, Any]
    files: tuple[BundleFile, ...]
    elapsed_s: float
    virtual_clock: bool = False


class CleanItem(Record):
    """A folder that ``clean`` removes: a cache or an old run; its age is that of its newest file."""

    kind: str
    path: str
    size_bytes: int
    age_s: float


class CleanResult(Record):
    """What ``clean`` removed, or would."""

    removed: bool
    size_bytes: int
    items: tuple[CleanItem, ...]
