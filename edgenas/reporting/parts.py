"""The parts that a page is put together from, and how numbers look on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from edgenas.units import latency_unit


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number that matters, with its name and what to know about it."""

    label: str
    value: str
    note: str = ""
    mood: str = ""  # "good", "bad" or ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table; the reader can sort it. Numbers are formatted already."""

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    folded: bool = True
    marked: int | None = None  # the row to stand out


@dataclass(frozen=True, kw_only=True)
class Section:
    """One chapter of the page; every part of it but the title may be missing."""

    key: str
    title: str
    short: str  # its name in the navigation
    lead: str = ""
    facts: tuple[Fact, ...] = ()
    figure: dict[str, Any] | None = None
    describes: str = ""  # what the figure shows, for those who cannot see it
    grids: tuple[Grid, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the template shows."""

    title: str
    subtitle: str
    summary: str = ""  # what came out, in a sentence
    verdict: str = ""
    facts: tuple[Fact, ...] = ()
    sections: list[Section] = field(default_factory=list)


def milliseconds(value: float | None) -> str:
    """Three significant digits at least, and never more than the microsecond."""
    if value is None:
        return "-"
    return f"{value:.3f} {latency_unit()}" if value < 10 else f"{value:.2f} {latency_unit()}"


def limit(value: float) -> str:
    """A limit as the user gave it."""
    return f"{value:g} {latency_unit()}"


def threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def percent(ratio: float | None, digits: int = 2) -> str:
    return "-" if ratio is None else f"{100 * ratio:.{digits}f} %"


def size(count: int | None) -> str:
    """Bytes in the unit that reads best."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def shown(value: object) -> str:
    """Any setting or gene as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name}={shown(item)}" for name, item in value.items())
    return str(value)


def metric_value(metric: str, value: float | None) -> str:
    """A number in the unit that its metric's name ends in."""
    if value is None:
        return "-"
    if metric.endswith("_ms"):
        return milliseconds(value)
    if metric.endswith("_bytes"):
        return size(round(value))
    if metric.endswith("_mb"):
        return size(round(1e6 * value))
    if metric.endswith(("accuracy", "drop")):
        return percent(value)
    return str(round(value)) if float(value).is_integer() or abs(value) >= 1000 else shown(value)


def moment(iso: str) -> str:
    """A time for people, to the minute; ISO 8601 in, as it is where it is something else."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = " UTC" if when.utcoffset() == timedelta(0) else ""
    return f"{when:%Y-%m-%d %H:%M}{zone}"
