"""The folder that EdgeNAS works in: where tables, profiles and runs are."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from edgenas.errors import UsageError

CONFIGURATION_FILE = "edgenas.toml"


class Workspace:
    """Paths of one workspace; nothing is created before it is written to.

    Args:
        root: the folder; the current one when omitted.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root is not None else Path.cwd()

    @property
    def tables(self) -> Path:
        return self.root / "latency_tables"

    @property
    def device_profiles(self) -> Path:
        return self.root / "device_profiles"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def table_path(self, device: str) -> Path:
        """The SQLite file that holds what was measured on ``device``."""
        return self.tables / f"{device}.sqlite"

    def configuration(self) -> dict[str, Any]:
        """The content of ``edgenas.toml``; empty without that file.

        Raises:
            UsageError: the file is not valid TOML.
        """
        path = self.root / CONFIGURATION_FILE
        return read_configuration(path) if path.exists() else {}

    def device_or_default(self, device: str | None) -> str:
        """``device``, else the one in ``edgenas.toml``, else the only table's, else ``local``."""
        if device is not None:
            return device
        configured = self.configuration().get("device")
        if isinstance(configured, str):
            return configured
        tables = sorted(self.tables.glob("*.sqlite")) if self.tables.is_dir() else []
        return tables[0].stem if len(tables) == 1 else "local"


def read_configuration(path: Path) -> dict[str, Any]:
    """The content of a file like ``edgenas.toml``.

    Raises:
        UsageError: it is missing or not valid TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def cache_folder() -> Path:
    """The user's cache of EdgeNAS (``EDGENAS_CACHE``, else ``XDG_CACHE_HOME``, else ``~/.cache``)."""
    named = os.environ.get("EDGENAS_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgenas"


def configuration_folder() -> Path:
    """The user's own device profiles and settings (``EDGENAS_CONFIG``, else XDG's)."""
    named = os.environ.get("EDGENAS_CONFIG")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgenas"
