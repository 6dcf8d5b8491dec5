"""Which kernels a layer becomes, learnt from traces.

Layers of one context become the same sequence of kernels whose sizes follow from the layer's sizes.
A template holds that sequence with every number in it replaced by where it comes from; filled with
the sizes of a layer that was never traced it gives that layer's kernels, many of which were
measured in other layers.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgenas.latency_tables.expressions import BLOCKS, Expression, Numbers, Path, likely
from edgenas.latency_tables.kernels import KernelSpec
from edgenas.latency_tables.layers import LayerDescription
from edgenas.records import TensorType

PartKernel: TypeAlias = tuple[str, KernelSpec]

_MOST_EXAMPLES = 24
_DECIDED_BY_CONTEXT = frozenset({"strides", "dilations", "perm", "axes", "axis"})


@dataclass(frozen=True)
class KernelTemplate:
    """One kernel with the numbers of its spec as expressions."""

    pattern: str  # JSON of the spec, for the places that are no numbers
    expressions: tuple[tuple[Path, Expression], ...]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Sizes of the layer that the kernel depends on."""
        return tuple(dict.fromkeys(name for _, expression in self.expressions for name in expression.names))

    def fill(self, numbers: Numbers) -> KernelSpec:
        """The kernel in a layer of these sizes."""
        content = json.loads(self.pattern)
        for path, expression in self.expressions:
            target = content
            for step in path[:-1]:
                target = target[step]
            target[path[-1]] = expression.value(numbers)
        return KernelSpec(
            kind=content["kind"],
            layout=content["layout"],
            attributes=content["attributes"],
            inputs=_tensors(content["inputs"]),
            outputs=_tensors(content["outputs"]),
        )


@dataclass
class _Skeleton:
    """Layers that became the same kernels but for numbers."""

    examples: list[tuple[LayerDescription, tuple[PartKernel, ...]]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    learnt: tuple[KernelTemplate, ...] | None = None

    def add(self, layer: LayerDescription, kernels: tuple[PartKernel, ...]) -> None:
        key = layer.key()
        self.seen[key] += 1
        if self.seen[key] == 1 and len(self.examples) < _MOST_EXAMPLES:
            self.examples.append((layer, kernels))
            self.learnt = None

    def templates(self) -> tuple[KernelTemplate, ...]:
        if self.learnt is None:
            layers = [layer.numbers for layer, _ in self.examples]
            columns = zip(*(kernels for _, kernels in self.examples), strict=True)
            self.learnt = tuple(_learn(layers, specs) for specs in columns)
        return self.learnt

    def distance(self, layer: LayerDescription) -> tuple[float, int]:
        """How far the nearest example is in octaves of size, and (negated) how often it was seen."""
        count = self.seen.get(layer.key(), 0)
        if count:
            return (0.0, -count)
        nearest = min(_octaves(layer.numbers, example.numbers) for example, _ in self.examples)
        return (nearest, -sum(self.seen.values()))


class LayerTemplates:
    """All contexts that were traced. ``learn`` from traces, then ask for the ``kernels`` of a layer."""

    def __init__(self) -> None:
        self._contexts: dict[str, dict[str, _Skeleton]] = defaultdict(lambda: defaultdict(_Skeleton))
        self._nearest: dict[str, str | None] = {}

    def learn(self, layer: LayerDescription, kernels: Sequence[PartKernel]) -> None:
        """Takes in the kernels, each with its part, that one layer became in one network."""
        skeleton = json.dumps([(part, *_skeleton(spec)) for part, spec in kernels])
        self._contexts[layer.context][skeleton].add(layer, tuple(kernels))

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts that were traced at least once."""
        return tuple(self._contexts)

    def knows(self, layer: LayerDescription) -> bool:
        """Whether a layer made of the same parts was traced."""
        return layer.context in self._contexts

    def templates(self, layer: LayerDescription) -> tuple[KernelTemplate, ...]:
        """The kernel templates of a layer whose context was traced."""
        skeletons = list(self._contexts[layer.context].values())
        if len(skeletons) == 1:
            return skeletons[0].templates()
        return min(skeletons, key=lambda skeleton: skeleton.distance(layer)).templates()

    def nearest(self, layer: LayerDescription) -> str | None:
        """The traced context with the same parts that differs in the fewest details; None: no such."""
        if layer.context not in self._nearest:
            self._nearest[layer.context] = self._find_nearest(json.loads(layer.context))
        return self._nearest[layer.context]

    def _find_nearest(self, wanted: list[Any]) -> str | None:
        found = {context: json.loads(context) for context in self._contexts}
        differences = [
            (_differences(wanted, other), context)
            for context, other in found.items()
            if [part[:2] for part in other[3:]] == [part[:2] for part in wanted[3:]]
        ]
        return min(differences)[1] if differences else None


def _differences(left: list[Any], right: list[Any]) -> int:
    """Details in which two contexts of the same parts differ; the precision counts for many."""
    heads = 8 * sum(one != other for one, other in zip(left[:3], right[:3], strict=True))
    parts = sum(one != other for one, other in zip(left[3:], right[3:], strict=True))
    return int(heads + parts)


def _skeleton(spec: KernelSpec) -> list[Any]:
    shapes = [len(tensor.shape) for tensor in (*spec.inputs, *spec.outputs)]
    dtypes = [tensor.dtype for tensor in (*spec.inputs, *spec.outputs)]
    words = {name: value for name, value in spec.attributes.items() if not _numbers(value)}
    return [spec.kind, spec.layout, shapes, dtypes, words, sorted(spec.attributes)]


def _numbers(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(item, int) for item in values)


def _learn(layers: Sequence[Numbers], kernels: Sequence[PartKernel]) -> KernelTemplate:
    """The template that gives every one of ``kernels`` for the layer beside it."""
    part = kernels[0][0]
    contents = [json.loads(spec.canonical()) for _, spec in kernels]
    expressions = tuple(
        (
            path,
            _explain(
                [_at(content, path) for content in contents], layers, likely(path, contents[0], part), path
            ),
        )
        for path in _number_paths(contents[0])
    )
    return KernelTemplate(json.dumps(contents[0]), expressions)


def _number_paths(content: dict[str, Any]) -> Iterator[Path]:
    for side in ("inputs", "outputs"):
        for index, tensor in enumerate(content[side]):
            for axis in range(len(tensor["shape"])):
                yield (side, index, "shape", axis)
    for name, value in content["attributes"].items():
        if _numbers(value) and isinstance(value, list):
            yield from (("attributes", name, index) for index in range(len(value)))
        elif _numbers(value):
            yield ("attributes", name)


def _at(content: Any, path: Path) -> int:
    for step in path:
        content = content[step]
    return int(content)


def _explain(
    values: Sequence[int], layers: Sequence[Numbers], first: Sequence[Expression], path: Path
) -> Expression:
    """The most likely expression that gives every value; a constant where none but that does."""
    constant = Expression("constant", constant=values[0])
    same = all(value == values[0] for value in values)
    if same and (path[1] in _DECIDED_BY_CONTEXT or (values[0] <= 1 and path[1] != "pads")):
        return constant
    for expression in itertools.chain(first, _candidates(layers[0], values[0])):
        if all(name in layers[0] for name in expression.names) and all(
            expression.value(numbers) == value for numbers, value in zip(layers, values, strict=True)
        ):
            return expression
    return constant


def _candidates(numbers: Numbers, value: int) -> Iterator[Expression]:
    """Expressions that give ``value`` for these sizes, in the order in which they are believed."""
    sizes = [name for name in numbers if name.endswith(("height", "width"))]
    others = [name for name in numbers if name not in sizes]
    yield from (Expression("same", (name,)) for name in [*others, *sizes] if numbers[name] == value)
    for block in BLOCKS:
        yield from (Expression(f"up{block}", (name,)) for name in others)
    yield from (Expression("half", (name,)) for name in others if numbers[name] // 2 == value)
    planes = [name.removesuffix(".height") for name in sizes if name.endswith(".height")]
    for plane in planes:
        yield Expression("area", (f"{plane}.height", f"{plane}.width"))
        yield Expression("volume", (f"{plane}.channels", f"{plane}.height", f"{plane}.width"))
    groups = [name for name in others if name.endswith(".groups")]
    yield from (Expression("quotient", (name, group)) for group in groups for name in others)


def _octaves(left: Numbers, right: Numbers) -> float:
    return sum(abs(math.log2((1 + left[name]) / (1 + right.get(name, 0)))) for name in left)


def _tensors(content: Iterable[dict[str, Any]]) -> tuple[TensorType, ...]:
    return tuple(TensorType(dtype=item["dtype"], shape=tuple(item["shape"])) for item in content)
