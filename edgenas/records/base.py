"""What every record is."""

from __future__ import annotations

import html
from typing import Any, Literal, dataclass_transform

import msgspec

Precision = Literal["fp32", "int8"]
Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: typed, immutable, JSON in and out, readable in a notebook."""

    def to_json(self) -> str:
        """The record as one JSON object."""
        return msgspec.json.encode(self).decode()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain Python values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th align='left'>{html.escape(name)}</th><td>{_cell(getattr(self, name))}</td></tr>"
            for name in self.__struct_fields__
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


def _cell(value: object) -> str:
    if isinstance(value, Record):
        return value._repr_html_()
    if isinstance(value, tuple) and value and isinstance(value[0], Record):
        shown = "".join(item._repr_html_() for item in value[:20] if isinstance(item, Record))
        return shown + (f"<p>and {len(value) - 20} more</p>" if len(value) > 20 else "")
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))
