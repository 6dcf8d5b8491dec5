"""The gate's baseline: what models were when they were accepted, with weight-free copies of them."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import subprocess
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnx

from edgenas.errors import ArtifactError
from edgenas.files import write_atomically
from edgenas.progress import warn
from edgenas.records import Characterisation, Environment, GateVerdict, Record

BASELINE_VERSION = 1


class BaselineModel(Record):
    """One model as it was accepted. ``skeleton`` is its weight-free ONNX, gzip in base64.

    ``characterisation`` is None where latency was predicted.
    """

    name: str
    sha256: str
    size_bytes: int
    parameters: int
    ops: dict[str, int]
    accuracy: float | None
    latency_ms: float
    characterisation: Characterisation | None
    skeleton: str

    def graph(self) -> onnx.ModelProto:
        """The skeleton as a model without weights."""
        return onnx.load_model_from_string(gzip.decompress(base64.b64decode(self.skeleton)))


class Baseline(Record):
    """All accepted models, how and where their latency is known, and a checksum over everything else.

    ``verdict`` is that of the models' own gate: the absolute limits, and old against old.
    ``table`` is the table that predicts, as a path from the baseline's folder; empty where a device
    is measured.
    """

    schema_version: int
    created_at: str
    edgenas_version: str
    versions: dict[str, str]
    commit: str
    device: str
    threads: int
    latency_source: Literal["measured", "virtual", "predicted"]
    table: str
    environment: Environment
    verdict: GateVerdict
    models: tuple[BaselineModel, ...]
    checksum: str = ""


class _Versioned(Record):
    schema_version: int


def packed(skeleton: onnx.ModelProto) -> str:
    """A skeleton as text; the same one is the same text."""
    return base64.b64encode(
        gzip.compress(skeleton.SerializeToString(deterministic=True), 9, mtime=0)
    ).decode()


def read_baseline(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        ArtifactError: it is missing, damaged, edited by hand, from a newer version, or of models that
            did not pass their own gate.
    """
    again = f"accept the models as they are: edgenas check MODEL.onnx --baseline {path} --update"
    try:
        content = path.read_bytes()
        _refuse_newer(path, content)
        baseline = msgspec.json.decode(content, type=Baseline)
    except OSError as error:
        raise ArtifactError(f"there is no baseline at {path}", hint=again) from error
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}", hint=again) from error
    if baseline.checksum != _checksum_of(content):
        raise ArtifactError(f"{path} was edited: its checksum does not match", hint=again)
    if baseline.verdict != "pass":
        raise ArtifactError(f"{path} did not pass its own gate ({baseline.verdict})", hint=again)
    return baseline


def replaced_baseline(path: Path) -> Baseline | None:
    """What an update replaces; None where there is nothing, or nothing that can be believed.

    Raises:
        ArtifactError: it is from a newer version, which this one must not destroy.
    """
    if not path.exists():
        return None
    try:
        return read_baseline(path)
    except ArtifactError as error:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            _refuse_newer(path, path.read_bytes())
        warn(f"{error.message}; it is replaced whole, with the models that are given")
        return None


def _refuse_newer(path: Path, content: bytes) -> None:
    version = msgspec.json.decode(content, type=_Versioned).schema_version
    if version > BASELINE_VERSION:
        raise ArtifactError(
            f"{path} has version {version}; this EdgeNAS reads up to {BASELINE_VERSION}",
            hint="pip install --upgrade edgenas",
        )


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Replaces the file in one step, with the checksum."""
    complete = msgspec.structs.replace(baseline, checksum=_checksum_of(msgspec.json.encode(baseline)))
    write_atomically(path, msgspec.json.format(msgspec.json.encode(complete), indent=1))


def _checksum_of(content: bytes) -> str:
    """The checksum over all else that a file says, also over what this version knows nothing about.

    Of the file and not of the record: a record that gains a field must not make old files look edited.
    """
    values = msgspec.json.decode(content)
    return hashlib.sha256(msgspec.json.encode({**values, "checksum": ""})).hexdigest()


def commit_of(folder: Path) -> str:
    """The commit that is checked out in ``folder``; empty where git knows none."""
    command: list[Any] = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
