"""What trainings ask of whoever runs them; the pipeline says who that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Workers(Protocol):
    """Runs a function on items, wherever."""

    def run(self, task: Callable[[Item], float], items: Sequence[Item]) -> Iterator[tuple[int, float | None]]:
        """``(index, result)`` of every item as it comes; None where its worker died again and again."""
        ...
