"""What the agent may say. Everything it sends is checked against these types before it is used."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from edgenas.records import KernelTrace, LatencyStatistics, TracedKernel

PROTOCOL = 2
_MOST_ELEMENTS = 1_000_000

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Text = Annotated[str, msgspec.Meta(max_length=8000)]


class Greeting(msgspec.Struct):
    """The first line of an agent."""

    edgenas: Literal["agent"]
    protocol: int
    python: tuple[int, int, int]
    pid: int
    bits: int


class Message(msgspec.Struct):
    """One line of an agent: an event of a request, or its result, or its failure."""

    id: int
    kind: Literal["event", "result", "error"]
    name: _Text
    data: msgspec.Raw


class Failure(msgspec.Struct):
    """Why a request was not served."""

    kind: _Text
    message: _Text


class Event(msgspec.Struct):
    """What an event may tell."""

    model: _Text = ""
    holder: _Text = ""
    temperature_c: float = 0.0
    number: _Count = 0


class Presence(msgspec.Struct):
    """How much of a content the device has."""

    complete: bool
    size: _Count


class Compared(msgspec.Struct):
    """One model of a comparison."""

    statistics: LatencyStatistics | None = None
    disturbed_rounds: _Count = 0
    error: _Text | None = None
    crashed: bool = False


class Comparison(msgspec.Struct):
    """The models that were measured side by side, by content hash."""

    results: dict[str, Compared]


class Traced(msgspec.Struct):
    """The kernels of one model."""

    runs: Annotated[int, msgspec.Meta(ge=1)]
    run_latency_ms: _Positive
    kernels: tuple[TracedKernel, ...]


class Characterised(msgspec.Struct):
    """One model measured alone."""

    statistics: LatencyStatistics
    load_ms: _Positive
    peak_memory_bytes: Annotated[int, msgspec.Meta(gt=0)]


class Opened(msgspec.Struct):
    """An evaluation that can be asked for outputs."""

    handle: int
    items: _Count


class EncodedArray(msgspec.Struct):
    """An array: NumPy's type string, the shape, the bytes in base64."""

    dtype: Annotated[str, msgspec.Meta(pattern=r"^[<>|=]?[biuf][1-8]$")]
    shape: Annotated[tuple[_Count, ...], msgspec.Meta(max_length=32)]
    data: bytes


class Outputs(msgspec.Struct):
    """Batches of outputs by name, and the item at which the next ones start."""

    batches: list[dict[str, EncodedArray]]
    next: _Count


Answer = TypeVar("Answer")


def decoded(data: msgspec.Raw | bytes, answer: type[Answer]) -> Answer:
    """A checked message.

    Raises:
        ValueError: it is not what was expected.
    """
    content = bytes(data)
    # Every element costs a hundred bytes here, and one to send; the numbers of arrays travel in base64.
    if content.count(b",") + content.count(b"{") > _MOST_ELEMENTS:
        raise ValueError(f"a message of more than {_MOST_ELEMENTS} elements")
    try:
        return msgspec.json.decode(content, type=answer)
    except RecursionError:
        raise ValueError("a message that is nested too deeply") from None


def plausible(statistics: LatencyStatistics) -> LatencyStatistics:
    """The statistics, if they can be what a device measured.

    Raises:
        ValueError: a latency is not positive, or there are no rounds.
    """
    latencies = (statistics.latency_p50_ms, statistics.latency_p90_ms, *statistics.rounds_ms)
    if not statistics.rounds_ms or min(statistics.latency_ms, *latencies) <= 0:
        raise ValueError("a latency is not positive")
    return statistics


def plausible_trace(trace: KernelTrace) -> KernelTrace:
    """The trace, if it can be what a device executed.

    Raises:
        ValueError: a kernel took no time, or an attribute is not a plain value.
    """
    for kernel in trace.kernels:
        if kernel.latency_ms <= 0:
            raise ValueError(f"the kernel '{kernel.name[:80]}' took {kernel.latency_ms} ms")
        if not all(map(_is_plain, kernel.attributes.values())):
            raise ValueError(f"the kernel '{kernel.name[:80]}' has an attribute that is not a plain value")
    return trace


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, (int, float, str)) for item in value)
    return isinstance(value, (int, float, str))
