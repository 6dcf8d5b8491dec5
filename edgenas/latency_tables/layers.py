"""A layer as its latency sees it: what it is made of, and the numbers in it.

The layers of search spaces are read by their shape only (``Placed`` below), so that any space with
such layers has latency tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from edgenas.records import Record

INPUT = "input"
_NUMBERED = ("in_channels", "out_channels", "kernel", "groups")


class Part(Protocol):
    """One primitive operation of a layer; a record with integer and other fields."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]: ...


class LayerLike(Protocol):
    """A named layer made of parts."""

    @property
    def name(self) -> str: ...
    @property
    def precision(self) -> str: ...
    def parts(self) -> Sequence[Any]: ...


class Placed(Protocol):
    """A layer where it stands: the shape it reads and the precision of what comes before."""

    @property
    def layer(self) -> Any: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def input_precision(self) -> str: ...


class LayerDescription(Record):
    """What decides a layer's kernels. Equal descriptions mean equal kernels.

    ``context`` says what it is made of, without sizes; ``parts`` names its parts in execution order;
    ``numbers`` holds the sizes by name, such as ``expand.out_channels`` or ``input.height``.
    """

    context: str
    parts: tuple[str, ...]
    numbers: dict[str, int]

    def key(self) -> str:
        """Canonical text: equal layers have equal keys whatever their names."""
        return json.dumps([self.context, self.parts, self.numbers], separators=(",", ":"))


def describe_layer(placed: Placed) -> LayerDescription:
    """The description of a placed layer."""
    layer = placed.layer
    parts = layer.parts()
    shapes: dict[str, tuple[int, ...]] = {INPUT: tuple(placed.input_shape)}
    numbers = _sizes(INPUT, shapes[INPUT])
    context: list[Any] = [type(layer).__name__, layer.precision, placed.input_precision]
    for part in parts:
        source = shapes[part.inputs[0]]
        shapes[part.name] = tuple(part.output_shape(source))
        numbers |= _sizes(part.name, shapes[part.name]) | _read(part.name, source)
        for field in part.__struct_fields__:
            if field in _NUMBERED:
                numbers[f"{part.name}.{field}"] = getattr(part, field)
        context.append([type(part).__name__, *_without_sizes(part)])
    return LayerDescription(
        context=json.dumps(context, separators=(",", ":")),
        parts=tuple(part.name for part in parts),
        numbers=numbers,
    )


def _sizes(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    if len(shape) == 1:
        return {f"{name}.channels": shape[0]}
    return {f"{name}.channels": shape[0], f"{name}.height": shape[1], f"{name}.width": shape[2]}


def _read(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}.in_height": shape[1], f"{name}.in_width": shape[2]} if len(shape) == 3 else {}


def _without_sizes(part: Any) -> list[Any]:
    """Everything about a part but its sizes; whether it is grouped or pointwise stays."""
    fields = {name: getattr(part, name) for name in part.__struct_fields__}
    kept = [value for name, value in fields.items() if name not in _NUMBERED]
    return [*kept, fields.get("groups", 1) > 1, fields.get("kernel", 1) == 1]


def part_of(kernel_name: str, parts: Sequence[str]) -> str | None:
    """The part that a kernel named ``layer/part_suffix`` belongs to, None for any other name."""
    rest = kernel_name.partition("/")[2]
    fitting = [part for part in (*parts, INPUT) if rest.startswith(part)]
    return max(fitting, key=len) if fitting else None
