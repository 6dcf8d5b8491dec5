"""Scores on disk, a line each: what was paid for once is never paid for again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from edgenas.errors import ArtifactError
from edgenas.search_spaces.space import Genomes

VERSION = 1


class ScoreStore:
    """Accuracies by key in a file of JSON lines; only lines of the same ``source`` are used.

    Args:
        path: the file; made with the first score.
        source: everything that the scores depend on.

    Raises:
        ArtifactError: the file is damaged or from a newer version.
    """

    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source
        self.known = _read(path, source)

    def add(self, key: str, genome: Genomes, accuracy: float) -> None:
        """Keeps one score, at once."""
        line = {
            "version": VERSION,
            "source": self._source,
            "network": key,
            "genome": [int(gene) for gene in genome],
            "accuracy": accuracy,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.known[key] = accuracy


def _read(path: Path, source: str) -> dict[str, float]:
    """What the file knows about ``source``; the end of a line that a kill cut off is dropped."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))  # never rewritten: a second kill would take it all
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        newest = max((line["version"] for line in lines), default=VERSION)
        known = {line["network"]: float(line["accuracy"]) for line in lines if line["source"] == source}
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} is damaged: {error}", hint="delete it; scores are measured again"
        ) from error
    if newest > VERSION:
        raise ArtifactError(f"{path} has version {newest}, this EdgeNAS reads up to {VERSION}")
    return known
