"""Reads the parameters of a request, with one clear failure for each that does not fit."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .failures import AgentError


class Parameters:
    """The ``params`` of one request, and the bytes that are ``attached`` to it."""

    def __init__(self, values: Dict[str, Any], attached: bytes = b"") -> None:
        self._values = values
        self.attached = attached

    def text(self, name: str) -> str:
        """A required string."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise AgentError("request", f"parameter '{name}' is not a string: {value!r}")
        return value

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        """An integer of at least ``least``."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise AgentError("request", f"parameter '{name}' is not an integer >= {least}: {value!r}")
        return value

    def number(self, name: str, default: float) -> float:
        """A finite number of at least zero."""
        value = self._values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e15:
            raise AgentError("request", f"parameter '{name}' is not a number >= 0: {value!r}")
        return float(value)

    def optional_number(self, name: str) -> Optional[float]:
        """A number, or None where it is not given."""
        return None if self._values.get(name) is None else self.number(name, 0.0)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            raise AgentError("request", f"parameter '{name}' is not true or false: {value!r}")
        return value

    def texts(self, name: str) -> List[str]:
        """A list of strings."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise AgentError("request", f"parameter '{name}' is not a list of strings")
        return value

    def objects(self, name: str) -> List[Parameters]:
        """A list of objects."""
        value = self._values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise AgentError("request", f"parameter '{name}' is not a list of objects")
        return [Parameters(item) for item in value]

    def text_map(self, name: str) -> Dict[str, str]:
        """An object whose values are strings."""
        value = self._values.get(name)
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise AgentError("request", f"parameter '{name}' is not an object of strings")
        return value
