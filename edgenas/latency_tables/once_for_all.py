"""Reads the block tables that once-for-all and ProxylessNAS publish as YAML.

Source: https://github.com/mit-han-lab/once-for-all, ``ofa/nas/efficiency_predictor``: a mapping from a
block's key to the ``mean`` of its latency in ms, the ``count`` of measurements and their ``std`` or
``var``.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgenas.errors import TableError, UsageError
from edgenas.latency_tables.rows import BlockRow

SUFFIXES = (".yaml", ".yml")
_LARGEST_NUMBER = 1e12
_LARGEST_BYTES = 16 << 20  # a published table has some 20 kB


def read_blocks(path: Path) -> list[BlockRow]:
    """The blocks of one YAML file; its name without the suffix is their collection.

    Raises:
        TableError: the file is missing, no YAML, or holds anything but latencies of blocks.
        UsageError: PyYAML is not installed.
    """
    content = _load(path)
    if not isinstance(content, dict) or not content:
        raise TableError(f"{path} is YAML, but not a table of blocks: expected KEY: {{mean: MS, count: N}}")
    return list(_rows(path, content))


def _load(path: Path) -> Any:
    if importlib.util.find_spec("yaml") is None:
        raise UsageError(
            "YAML tables need the package PyYAML, which is not installed",
            hint='pip install "edgenas[tables]"',
        )
    import yaml

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise TableError(f"{path} has {path.stat().st_size} bytes; a table has {_LARGEST_BYTES} at most")
        # The safe loader makes plain values only: the file comes from somebody else.
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise TableError(f"{path} is no readable YAML file: {error}") from error


def _rows(path: Path, content: dict[Any, Any]) -> Iterator[BlockRow]:
    for key, entry in content.items():
        mean, spread = _number(entry, "mean"), _spread(entry)
        if not isinstance(key, str) or mean is None or mean <= 0:
            raise TableError(
                f"{path}: block {str(key)[:80]!r} has no latency: expected a mean above 0 ms,"
                f" found {str(entry)[:80]}"
            )
        samples = int(_number(entry, "count") or 0)
        yield BlockRow(collection=path.stem, key=key, latency_ms=mean, sd_ms=spread, samples=samples)


def _spread(entry: Any) -> float:
    """The standard deviation in ms; 0 where the file does not tell."""
    deviation, variance = _number(entry, "std"), _number(entry, "var")
    return deviation if deviation is not None else math.sqrt(max(variance or 0.0, 0.0))


def _number(entry: Any, name: str) -> float | None:
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST_NUMBER else None  # nan is not below it either
