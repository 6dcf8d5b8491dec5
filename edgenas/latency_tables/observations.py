"""What a table knows, as arrays: how often each kernel stands in each network, and all times."""

from __future__ import annotations

import functools
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import TableError
from edgenas.latency_tables.catalogue import KernelCatalogue
from edgenas.latency_tables.kernels import KernelSpec
from edgenas.latency_tables.rows import LatencyRow, NetworkRow, TraceRow, at_pace
from edgenas.latency_tables.table import LatencyTable

Array = NDArray[np.float64]

# What is left of a virtual clock's noise within a session, where rounds tell of nothing else (see
# comparison.py). What differs between sessions is found when a table is fitted.
_VIRTUAL_NOISE = 0.0002
# Below this a kernel's time is the profiler's resolution, not a time.
_SHORTEST_MS = 1e-4


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network with its end-to-end latency; ``rounds_ms`` are the rounds of each pass."""

    network: NetworkRow
    kernels: Counter[str]
    latency_ms: float
    relative_noise: float
    rounds_ms: tuple[tuple[float, ...], ...]
    passes_ms: tuple[float, ...]

    def halves_ms(self) -> tuple[float, float]:
        """Latency by one half of the rounds of each pass and by the other, dealt alternately."""
        even = _median([_median(rounds[::2]) for rounds in self.rounds_ms])
        return even, _median([_median(rounds[1::2] or rounds) for rounds in self.rounds_ms])


@dataclass(frozen=True)
class Observations:
    """Everything that one device measured in one environment at one thread count.

    ``times_ms`` holds the times in place by kernel and by the model that was traced, held-out models
    left out; ``structures`` the traces by model, held-out ones too.
    """

    device: str
    fingerprint: str
    threads: int
    runtime: str
    specs: dict[str, KernelSpec]
    times_ms: dict[str, dict[str, float]]
    networks: tuple[MeasuredNetwork, ...]
    structures: dict[str, TraceRow]
    virtual_clock: bool = False

    def with_role(self, role: str) -> tuple[MeasuredNetwork, ...]:
        """Networks of one role, in the order of their hashes."""
        return tuple(network for network in self.networks if network.network.role == role)

    @functools.cached_property
    def catalogue(self) -> KernelCatalogue:
        """The kernels with what is often asked about them."""
        return KernelCatalogue(self.specs)

    @functools.cached_property
    def profiled_ms(self) -> dict[str, float]:
        """Median time in place of each kernel over all models."""
        return self.profiled_without(())

    def profiled_without(self, left_out: Collection[str]) -> dict[str, float]:
        """Median time in place of each kernel over all models but those ``left_out``."""
        times = {
            key: [time for model, time in by_model.items() if model not in left_out]
            for key, by_model in self.times_ms.items()
        }
        return {key: max(_median(values), _SHORTEST_MS) for key, values in times.items() if values}


def observe(
    table: LatencyTable,
    *,
    threads: int | None = None,
    fingerprint: str | None = None,
) -> Observations:
    """Reads a table.

    Args:
        threads: the thread count; the most measured one when None.
        fingerprint: the environment; the most measured one at that thread count when None.

    Raises:
        TableError: nothing was measured that way; the message says what was.
    """
    fingerprint, threads = configuration(table, threads, fingerprint)
    networks, specs = table.networks(), table.kernels()  # kernels first: traces are read under their keys
    traces = list(table.traces(fingerprint=fingerprint, threads=threads))
    structures = {trace.model_sha256: trace for trace in sorted(traces, key=lambda trace: trace.runs)}
    held_out = {sha for sha, network in networks.items() if network.role == "held-out"}
    environments = {row.fingerprint: row for row in table.environments()}
    environment = environments.get(fingerprint)
    virtual = environment is not None and environment.virtual_clock
    measured = _measured(
        networks, structures, at_pace(table.latencies(fingerprint=fingerprint, threads=threads))
    )
    return Observations(
        device=table.device,
        fingerprint=fingerprint,
        threads=threads,
        runtime=environment.runtime if environment else "",
        specs=specs,
        times_ms=_times(trace for trace in traces if trace.model_sha256 not in held_out),
        networks=tuple(replace(one, relative_noise=_VIRTUAL_NOISE) for one in measured)
        if virtual
        else measured,
        structures=structures,
        virtual_clock=virtual,
    )


def configuration(table: LatencyTable, threads: int | None, fingerprint: str | None) -> tuple[str, int]:
    """The fingerprint and the thread count that are meant; see ``observe``."""
    known = table.configurations()
    fitting = [
        (found, count)
        for found, count in known
        if (threads is None or count == threads) and (fingerprint is None or found == fingerprint)
    ]
    if fitting:
        return fitting[0]
    table.refuse_foreign()
    asked = f"{threads} threads" if threads is not None else "any thread count"
    there = ", ".join(sorted({f"{count} threads" for _, count in known})) or "no measurements"
    raise TableError(
        f"the table of '{table.device}' has nothing measured with {asked} here; it has {there}",
        hint=f"edgenas profile --device {table.device}" + (f" --threads {threads}" if threads else ""),
    )


def _times(traces: Iterable[TraceRow]) -> dict[str, dict[str, float]]:
    """Mean time in place by kernel and model; traces of one run tell structure, not time."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trace in traces:
        if trace.runs > 1:
            for sample in trace.kernels:
                times[sample.kernel][trace.model_sha256].append(sample.latency_ms)
    return {
        key: {model: sum(values) / len(values) for model, values in by_model.items()}
        for key, by_model in times.items()
    }


def _measured(
    networks: dict[str, NetworkRow], structures: dict[str, TraceRow], latencies: Iterable[LatencyRow]
) -> tuple[MeasuredNetwork, ...]:
    by_model: dict[str, list[LatencyRow]] = defaultdict(list)
    for row in latencies:
        if row.statistics is not None and row.model_sha256 in structures and row.model_sha256 in networks:
            by_model[row.model_sha256].append(row)
    return tuple(_pooled(networks[sha], structures[sha], rows) for sha, rows in sorted(by_model.items()))


def _pooled(network: NetworkRow, structure: TraceRow, rows: list[LatencyRow]) -> MeasuredNetwork:
    found = [row.statistics for row in rows if row.statistics is not None]
    rounds = tuple(one.rounds_ms or (one.latency_ms,) for one in found)
    passes = tuple(one.latency_ms for one in found)
    latency = _median(passes)  # a disturbed pass has the most rounds, so they are not pooled
    return MeasuredNetwork(
        network=network,
        kernels=Counter(sample.kernel for sample in structure.kernels),
        latency_ms=latency,
        relative_noise=_relative_noise(rounds, passes, latency),
        rounds_ms=rounds,
        passes_ms=passes,
    )


def _relative_noise(
    rounds: tuple[tuple[float, ...], ...], passes: tuple[float, ...], latency: float
) -> float:
    """Standard error of the latency, relative: within the passes, at least what they differ by."""
    if sum(map(len, rounds)) < 4:
        return 0.05
    widths = [np.subtract(*np.quantile(one, [0.75, 0.25])) / np.sqrt(len(one)) for one in rounds]
    within = 0.93 * min(widths)
    between = _median([abs(one - latency) for one in passes])
    return float(max(within, between / np.sqrt(len(passes))) / latency)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
