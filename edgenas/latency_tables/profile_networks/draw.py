"""What is chosen anew for each network like a published one."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from edgenas.latency_tables.profile_networks.sketch import Sketch


@dataclass
class Draw:
    """What is chosen anew for each network.

    ``width`` multiplies channels; ``small`` are images whose maps the published stem would shrink to nothing;
    ``whole`` asks for all blocks that differ, as they were published.
    """

    sketch: Sketch
    rng: np.random.Generator
    width: float
    side: int
    whole: bool = False

    @property
    def small(self) -> bool:
        return self.side <= 64

    @property
    def channels(self) -> int:
        return self.sketch.shape[1]

    @functools.cached_property
    def addition(self) -> str:
        """What the exporter of the network calls an addition of two feature maps."""
        return "Add" if self.whole else self.one_of("Add", "Add", "Sum")

    def wide(self, count: float, divisor: int = 8) -> int:
        """Channels times the width multiplier, in multiples of ``divisor``."""
        return max(divisor, round(count * self.width / divisor) * divisor)

    def one_of(self, *options: str) -> str:
        return str(self.rng.choice(options))

    def number(self, *options: int) -> int:
        return int(self.rng.choice(options))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)
