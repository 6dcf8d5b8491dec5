"""The few parts of ONNX's protobuf encoding that the agent reads and writes without the onnx package.

Source: onnx/onnx.proto for the field numbers, protobuf.dev/programming-guides/encoding for the wire.
"""

from __future__ import annotations

import struct
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple, Union

Value = Union[int, memoryview]

_DTYPES = {
    1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string",
    9: "bool", 10: "float16", 11: "double", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
_OLDEST_IR, _OLDEST_OPSET = 7, 12
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_BYTES = 8  # that a single number has


class Node(NamedTuple):
    """One node of a graph."""

    name: str
    op_type: str
    domain: str
    inputs: List[str]
    outputs: List[str]
    attributes: Dict[str, Any]


class Weight(NamedTuple):
    """Type and shape of an initializer; ``content`` are the bytes of a single number."""

    dtype: str
    shape: List[int]
    content: bytes = b""


class Graph(NamedTuple):
    """The nodes of a model's main graph in order, and its initializers by name."""

    nodes: List[Node]
    initializers: Dict[str, Weight]


def read_graph(model: bytes) -> Graph:
    """The main graph of an encoded ``ModelProto``; weights are skipped, not copied.

    Raises:
        ValueError: these bytes are not a model.
    """
    nodes: List[Node] = []
    initializers: Dict[str, Weight] = {}
    for number, graph in _fields(memoryview(model)):
        if number != 7:
            continue
        for field, value in _fields(_bytes(graph)):
            if field == 1:
                nodes.append(_node(_bytes(value)))
            elif field == 5:
                name, weight = _initializer(_bytes(value))
                initializers[name] = weight
    return Graph(nodes, initializers)


def tiny_model(ir_version: int, opset: int) -> bytes:
    """A model of one ``Identity`` node over a float vector, to ask a runtime what it accepts."""
    vector = _field(1, _field(1, 1) + _field(2, _field(1, _field(1, 1))))
    node = _field(1, b"x") + _field(2, b"y") + _field(3, b"probe") + _field(4, b"Identity")
    ports = _field(11, _field(1, b"x") + _field(2, vector)) + _field(12, _field(1, b"y") + _field(2, vector))
    graph = _field(1, node) + _field(2, b"probe") + ports
    return _field(1, ir_version) + _field(7, graph) + _field(8, _field(2, opset))


def chain_model(layers: int, channels: int, side: int) -> bytes:
    """Pointwise convolutions with ReLUs in between, of one shared weight, over (1, channels, side, side)."""
    values = [0.01 * (index % 7 - 3) for index in range(channels * channels)]
    weight = b"".join(_field(1, size) for size in (channels, channels, 1, 1)) + _field(2, 1) + _field(8, b"w")
    nodes, last = b"", b"x"
    for layer in range(layers):
        inner, outer = b"a%d" % layer, b"y" if layer == layers - 1 else b"b%d" % layer
        nodes += _field(1, _field(1, last) + _field(1, b"w") + _field(2, inner) + _field(4, b"Conv"))
        nodes += _field(1, _field(1, inner) + _field(2, outer) + _field(4, b"Relu"))
        last = outer
    shape = b"".join(_field(1, _field(1, size)) for size in (1, channels, side, side))
    tensor = _field(2, _field(1, _field(1, 1) + _field(2, shape)))
    ports = _field(11, _field(1, b"x") + tensor) + _field(12, _field(1, b"y") + tensor)
    raw = _field(9, struct.pack(f"<{len(values)}f", *values))
    graph = nodes + _field(2, b"chain") + _field(5, weight + raw) + ports
    return _field(1, _OLDEST_IR) + _field(7, graph) + _field(8, _field(2, _OLDEST_OPSET))


def _node(data: memoryview) -> Node:
    node = Node("", "", "", [], [], {})
    texts = {3: "", 4: "", 7: ""}
    for number, value in _fields(data):
        if number == 1:
            node.inputs.append(_text(value))
        elif number == 2:
            node.outputs.append(_text(value))
        elif number in texts:
            texts[number] = _text(value)
        elif number == 5:
            name, attribute = _attribute(_bytes(value))
            if attribute is not None:
                node.attributes[name] = attribute
    return node._replace(name=texts[3], op_type=texts[4], domain=texts[7])


def _attribute(data: memoryview) -> Tuple[str, Any]:
    """Name and value of an attribute; None for tensors and graphs, which no kernel key needs."""
    name, value = "", None  # type: Tuple[str, Any]
    ints: List[int] = []
    floats: List[float] = []
    strings: List[str] = []
    for number, raw in _fields(data):
        if number == 1:
            name = _text(raw)
        elif number == 2:
            value = next(iter(_floats(_bytes(raw))), None)
        elif number == 3:
            value = _signed(raw)
        elif number == 4:
            value = _text(raw)
        elif number == 7:
            floats += _floats(_bytes(raw))
        elif number == 8:
            ints += _integers(raw)
        elif number == 9:
            strings.append(_text(raw))
    return name, ints or floats or strings or value


def _initializer(data: memoryview) -> Tuple[str, Weight]:
    name, weight = "", Weight("", [])
    for number, value in _fields(data):
        if number == 1:
            weight.shape.extend(_integers(value))
        elif number == 2:
            weight = weight._replace(dtype=_DTYPES.get(_signed(value), str(value)))
        elif number == 8:
            name = _text(value)
        elif number in (4, 5, 9):
            weight = weight._replace(content=_one_number(number, value))
    return name, weight


def _one_number(field: int, value: Value) -> bytes:
    """What raw data would hold of a number of float_data, int32_data or raw_data; empty for many numbers."""
    if not isinstance(value, int) and len(value) > _MOST_BYTES:
        return b""
    if field != 5:
        return bytes(_bytes(value))
    integers = _integers(value)
    return bytes([integers[0] & 0xFF]) if len(integers) == 1 else b""


def _fields(data: memoryview) -> Iterator[Tuple[int, Value]]:
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _LENGTH:
            size, position = _varint(data, position)
        if size < 0 or position + size > end:
            raise ValueError("not a protobuf message")
        yield key >> 3, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> Tuple[int, int]:
    result = shift = 0
    while position < len(data) and shift < 70:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
    raise ValueError("not a protobuf message")


def _signed(value: Value) -> int:
    if not isinstance(value, int):
        raise ValueError("not an integer field")
    return value - (1 << 64) if value >> 63 else value


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("not a bytes field")
    return value


def _text(value: Value) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _integers(value: Value) -> List[int]:
    """Repeated integers, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    found, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        found.append(_signed(number))
    return found


def _floats(value: memoryview) -> List[float]:
    return list(struct.unpack(f"<{len(value) // 4}f", value[: len(value) // 4 * 4]))


def _field(number: int, value: Union[int, bytes]) -> bytes:
    if isinstance(value, int):
        return _encoded(number << 3) + _encoded(value)
    return _encoded(number << 3 | _LENGTH) + _encoded(len(value)) + value


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
