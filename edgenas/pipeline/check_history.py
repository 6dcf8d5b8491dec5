"""Results of the gate one after the other: JSON Lines, a result a line, from which reports draw trends."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgenas.errors import ArtifactError
from edgenas.records import CheckResult

HISTORY = "history.jsonl"


def append(path: Path, result: CheckResult) -> None:
    """Adds one result at the end, in place of what a killed process left half-written there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(msgspec.json.encode(result) + b"\n")


def read_history(path: Path) -> tuple[CheckResult, ...]:
    """Every result, the oldest first. A last line that a killed process left half-written is skipped.

    Raises:
        ArtifactError: there is no such file, or one of its lines is damaged or from a newer version.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ArtifactError(
            f"there is no history at {path}",
            hint=f"edgenas check MODEL.onnx --baseline ci/baseline.json --history {path}",
        ) from error
    complete, results = lines[:-1], []
    for number, line in enumerate(complete, start=1):
        try:
            result = msgspec.json.decode(line, type=CheckResult)
        except msgspec.DecodeError as error:
            raise ArtifactError(f"line {number} of {path} is damaged: {error}", hint="remove it") from error
        if result.schema_version > 1:
            raise ArtifactError(
                f"line {number} of {path} has version {result.schema_version}; this EdgeNAS reads 1",
                hint="pip install --upgrade edgenas",
            )
        results.append(result)
    return tuple(results)
