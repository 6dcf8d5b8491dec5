"""A user's own search space: a TOML file of a stem, stages and a head.

A key may hold one value or a list of options; a list becomes a gene. See
``docs/add-your-search-space.md``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from edgenas.errors import UsageError
from edgenas.records import Record
from edgenas.search_spaces.staged import Classifier, Stage, StagedDescription, StagedSpace, Stem

_SECTIONS: dict[str, type[Record]] = {"stem": Stem, "head": Classifier}


def read_space(path: Path, *, classes: int, channels: int = 3) -> StagedSpace:
    """The staged space that ``path`` describes.

    Raises:
        UsageError: the file is missing, is not TOML, or describes no network; the message names the
            key that is wrong.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the search space '{path}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the search space '{path}' is not valid TOML: {error}") from error
    return StagedSpace(_describe(path, content), classes=classes, channels=channels)


def _describe(path: Path, content: dict[str, Any]) -> StagedDescription:
    content = {"name": path.stem} | content
    plural = _options(content, StagedDescription)
    for section, record in _SECTIONS.items():
        if isinstance(plural.get(section), dict):
            plural[section] = _options(plural[section], record)
    stages = plural.pop("stage", ())
    if isinstance(stages, list):
        plural["stages"] = [_options(stage, Stage) if isinstance(stage, dict) else stage for stage in stages]
    try:
        return msgspec.convert(plural, StagedDescription)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the search space '{path}' is wrong: {error}", hint="see docs/add-your-search-space.md"
        ) from error


def _options(table: dict[str, Any], record: type[Record]) -> dict[str, Any]:
    """The table with single values of keys that hold options made lists of one."""
    lists = {field.name for field in msgspec.structs.fields(record) if _holds_options(field.type)}
    return {
        key: [value] if key in lists and not isinstance(value, list) else value
        for key, value in table.items()
    }


def _holds_options(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple
