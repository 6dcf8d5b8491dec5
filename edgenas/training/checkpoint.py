"""Checkpoints: tensors and plain values only, written whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from edgenas.errors import ArtifactError
from edgenas.files import replaced

VERSION = 2  # 2: the steps of the whole training stand beside those that are done


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors and plain values) under ``path``; a kill leaves the old file."""
    with replaced(path) as unfinished:
        torch.save({"version": VERSION, **state}, unfinished)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in ``path``; nothing in the file can run code.

    Raises:
        ArtifactError: the file is missing, damaged or from a newer version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no checkpoint {path}", hint="make one: edgenas train") from error
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path} is not a readable checkpoint: {str(error).splitlines()[0] if str(error) else 'empty'}",
            hint="delete it and train again",
        ) from error
    version = state.get("version") if isinstance(state, dict) else None
    if not isinstance(version, int):
        raise ArtifactError(f"{path} is not a checkpoint of EdgeNAS", hint="delete it and train again")
    if version > VERSION:
        raise ArtifactError(
            f"{path} has version {version}, this EdgeNAS reads up to {VERSION}", hint="update EdgeNAS"
        )
    return state
