"""The gate's baseline: what models were when they were accepted, with weight-free copies of them."""

from __future__ import annotations

import base64
import gzip
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import onnx

from edgenas.errors import ArtifactError
from edgenas.files import write_atomically
from edgenas.records import Characterisation, Environment, Record

BASELINE_VERSION = 1


class BaselineModel(Record):
    """One model as it was accepted. ``skeleton`` is its weight-free ONNX, gzip in base64."""

    name: str
    sha256: str
    size_bytes: int
    parameters: int
    ops: dict[str, int]
    accuracy: float | None
    characterisation: Characterisation
    skeleton: str

    def graph(self) -> onnx.ModelProto:
        """The skeleton as a model without weights."""
        return onnx.load_model_from_string(gzip.decompress(base64.b64decode(self.skeleton)))


class Baseline(Record):
    """All accepted models, where they were measured, and a checksum over everything else."""

    schema_version: int
    created_at: str
    edgenas_version: str
    versions: dict[str, str]
    commit: str
    device: str
    threads: int
    environment: Environment
    models: tuple[BaselineModel, ...]
    checksum: str = ""

    def computed_checksum(self) -> str:
        """What ``checksum`` must be."""
        content = msgspec.structs.replace(self, checksum="")
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()


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
        ArtifactError: it is missing, damaged, edited by hand or from a newer version.
    """
    again = f"accept the models as they are: edgenas check MODEL.onnx --baseline {path} --update"
    try:
        content = path.read_bytes()
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version > BASELINE_VERSION:
            raise ArtifactError(
                f"{path} has version {version}; this EdgeNAS reads up to {BASELINE_VERSION}",
                hint="pip install --upgrade edgenas",
            )
        baseline = msgspec.json.decode(content, type=Baseline)
    except OSError as error:
        raise ArtifactError(f"there is no baseline at {path}", hint=again) from error
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{path} is damaged: {error}", hint=again) from error
    if baseline.checksum != baseline.computed_checksum():
        raise ArtifactError(f"{path} was edited: its checksum does not match", hint=again)
    return baseline


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Replaces the file in one step, with the checksum."""
    complete = msgspec.structs.replace(baseline, checksum=baseline.computed_checksum())
    write_atomically(path, msgspec.json.format(msgspec.json.encode(complete), indent=1))


def commit_of(folder: Path) -> str:
    """The commit that is checked out in ``folder``; empty where git knows none."""
    command: list[Any] = ["git", "-C", folder, "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
