"""Numbers of kernels as functions of the sizes of a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Numbers: TypeAlias = Mapping[str, int]
Path: TypeAlias = tuple[str | int, ...]
"""Where a number stands in the JSON of a kernel, such as ("inputs", 0, "shape", 1)."""

BLOCKS = (4, 8, 16, 32)  # channels that blocked layouts round up to


@dataclass(frozen=True)
class Expression:
    """A number of a kernel as a function of the layer's sizes: a constant, or names and a rule."""

    rule: str
    names: tuple[str, ...] = ()
    constant: int = 0

    def value(self, numbers: Numbers) -> int:
        """The number for the sizes of one layer."""
        if self.rule == "constant":
            return self.constant
        return _RULES[self.rule](*(numbers[name] for name in self.names))


def _round_up(block: int) -> Callable[[int], int]:
    return lambda value: -(-value // block) * block


_RULES: dict[str, Callable[..., int]] = {
    "same": lambda value: value,
    "half": lambda value: value // 2,
    "quotient": lambda left, right: left // max(right, 1),
    "area": lambda height, width: height * width,
    "volume": lambda channels, height, width: channels * height * width,
    **{f"up{block}": _round_up(block) for block in BLOCKS},
}


def likely(path: Path, content: dict[str, Any], part: str) -> list[Expression]:
    """What a number most likely is by where it stands, given the part that the kernel belongs to."""
    if path[0] == "attributes":
        return [_same(part, "kernel"), Expression("half", (f"{part}.kernel",)), _same(part, "groups")] + [
            _same(part, name) for name in ("channels", "out_channels", "in_channels")
        ]
    side, index, _, axis = path
    rank = len(content[str(side)][index]["shape"])
    if side == "inputs" and index != 0 and rank == 4 and _has_weights(content):
        return _of_weight(int(axis), part)
    reads = side == "inputs" and index == 0
    if _is_spatial(int(axis), rank, content):
        vertical = (int(axis) - (1 if _channels_last(content) else 2)) == 0
        name = "height" if vertical else "width"
        return [_same(part, f"in_{name}"), _same(part, name)] if reads else [_same(part, name)]
    names = ("in_channels", "channels") if reads else ("out_channels", "channels")
    return [_same(part, name) for name in names]


def _same(part: str, name: str) -> Expression:
    return Expression("same", (f"{part}.{name}",))


def _of_weight(axis: int, part: str) -> list[Expression]:
    if axis == 0:
        return [_same(part, "out_channels")]
    if axis == 1:
        return [Expression("quotient", (f"{part}.in_channels", f"{part}.groups"))]
    return [_same(part, "kernel")]


def _has_weights(content: dict[str, Any]) -> bool:
    return "Conv" in content["kind"] or "conv" in content["kind"]


def _channels_last(content: dict[str, Any]) -> bool:
    return bool(content["attributes"].get("channels_last")) or "nhwc" in content["layout"].lower()


def _is_spatial(axis: int, rank: int, content: dict[str, Any]) -> bool:
    """Whether an axis of an activation is a height or a width."""
    return rank == 4 and axis in ((1, 2) if _channels_last(content) else (2, 3))
