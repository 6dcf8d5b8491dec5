"""The ways through a layer: what accuracy depends on and no single gene says.

Whether a signal can pass a cell unchanged, and how many convolutions it meets on its way, follows from
all operations of the cell together. A few numbers say it, and exist in every space.

Source: White et al., A study on encodings for neural architecture search (2020): surrogates learn from
the paths of a cell what they do not learn from its edges.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgenas.search_spaces.layer import Layer, output_wire, parts_of
from edgenas.search_spaces.parts import INPUT, Add, AnyPart, AveragePool, Conv, Linear, Zero


@dataclass(frozen=True)
class Ways:
    """All ways from a layer's input to one of its wires.

    Only sums join ways: what gates a wire or attends to it is no way of its own.

    Attributes:
        count: how many there are.
        plain: those without a convolution or matrix product.
        unchanged: those without an average pool either, the shortcuts.
        weighted: convolutions and matrix products, summed over the ways.
        longest: the most convolutions and matrix products on one way.
        shortest: the fewest.
        pools: the fewest average pools on one way; above 0 nothing arrives that is not blurred.
    """

    count: int
    plain: int
    unchanged: int
    weighted: int = 0
    longest: int = 0
    shortest: int = 0
    pools: int = 0

    def through(self, part: AnyPart) -> Ways:
        """The same ways with ``part`` at their ends."""
        if isinstance(part, Zero):
            return _NONE
        if isinstance(part, Conv | Linear):
            return replace(
                self, plain=0, unchanged=0, weighted=self.weighted + self.count,
                longest=self.longest + 1, shortest=self.shortest + 1,
            )  # fmt: skip
        return replace(self, unchanged=0, pools=self.pools + 1) if isinstance(part, AveragePool) else self

    def beside(self, other: Ways) -> Ways:
        """The ways of both."""
        if not (self.count and other.count):
            return self if self.count else other
        return Ways(
            count=self.count + other.count,
            plain=self.plain + other.plain,
            unchanged=self.unchanged + other.unchanged,
            weighted=self.weighted + other.weighted,
            longest=max(self.longest, other.longest),
            shortest=min(self.shortest, other.shortest),
            pools=min(self.pools, other.pools),
        )


_NONE = Ways(0, 0, 0)
_STRAIGHT = Ways(1, 1, 1)


def ways_through(layer: Layer) -> Ways:
    """The ways from a layer's input to its output; a layer without parts has one that changes nothing."""
    ways = {INPUT: _STRAIGHT}
    for part in parts_of(layer):
        found = ways[part.inputs[0]]
        if isinstance(part, Add):
            found = found.beside(ways[part.inputs[1]])
        ways[part.name] = found.through(part)
    return ways[output_wire(layer)]
