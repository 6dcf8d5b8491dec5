"""What milliseconds are called where people read them.

Those of a virtual board count instructions; whatever formats a latency inside ``latencies_of`` says
so, so that no place can forget it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

MS, VIRTUAL_MS = "ms", "virtual ms"
_UNIT: ContextVar[str] = ContextVar("unit of latencies", default=MS)


def latency_unit() -> str:
    """``ms``, or ``virtual ms`` where a virtual board's latencies are shown."""
    return _UNIT.get()


def microsecond_unit() -> str:
    """``µs`` or ``virtual µs``, likewise."""
    return latency_unit().replace("ms", "µs")


def unit_of(*, virtual: bool) -> str:
    """The unit of one device's latencies."""
    return VIRTUAL_MS if virtual else MS


@contextlib.contextmanager
def latencies_of(*, virtual: bool) -> Iterator[None]:
    """Latencies that are formatted inside the block are a virtual board's, or are not."""
    token = _UNIT.set(unit_of(virtual=virtual))
    try:
        yield
    finally:
        _UNIT.reset(token)
