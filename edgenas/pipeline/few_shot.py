"""Devices with few measurements: the other tables of the workspace help where that is better."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgenas.errors import TableError
from edgenas.latency_tables.donors import ENOUGH, Donor, DonorSpace, MakeUp
from edgenas.latency_tables.evaluation import left_out_rmspe
from edgenas.latency_tables.few_shot import FEWEST, FewShot, Standard, TransferredSpace
from edgenas.latency_tables.kernels import KernelSpec, elements, macs_of, spec_of
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.predictor import LatencyPredictor
from edgenas.latency_tables.table import LatencyTable
from edgenas.latency_tables.transfer import choose_informative
from edgenas.progress import warn
from edgenas.records import KernelPrediction, KernelTrace, Prediction, TransferSummary
from edgenas.search_spaces import RestrictedSpace, SearchSpace
from edgenas.workspace import Workspace

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_DONORS = 4
TELLING = 20
"""Networks of a space that a short profile measures first, chosen by what the donors know."""

_Seen = TypeVar("_Seen")


def networks_of(
    observations: Observations, space: str, precision: str | None = None
) -> list[MeasuredNetwork]:
    """The networks of a space that a table is fitted to."""
    return [
        one
        for one in observations.with_role("fit")
        if one.network.space == space and precision in (None, one.network.precision)
    ]


def is_few(networks: Sequence[MeasuredNetwork]) -> bool:
    """Whether donors may help: with more networks a table stands on its own."""
    return FEWEST <= len(networks) < ENOUGH


class Neighbours:
    """The other configurations of a workspace's tables, which may help one device.

    The table's own other configurations count too: other threads, and the device before its runtime was
    updated. A table that cannot be read is left out with a warning.

    Args:
        workspace: where the tables are.
        path: the table of the device that is to be helped.
        fingerprint: its environment.
        threads: the threads that are asked about.
        runtime: what runs its models.
    """

    def __init__(
        self, workspace: Workspace, path: Path, *, fingerprint: str, threads: int, runtime: str
    ) -> None:
        self._workspace = workspace
        self._asked = (path.resolve(), fingerprint, threads)
        self._runtime, self._threads = runtime, threads

    @classmethod
    def of(cls, table: LatencyTable, observations: Observations, workspace: Workspace) -> Neighbours:
        """The neighbours of one configuration of a table."""
        return cls(
            workspace,
            table.path,
            fingerprint=observations.fingerprint,
            threads=observations.threads,
            runtime=observations.runtime,
        )

    @functools.cached_property
    def donors(self) -> list[Donor]:
        """Those that were measured enough, the most alike first; read when they are first asked for."""
        found = [one for one in _configurations(self._workspace) if one.identity != self._asked]
        return [one.donor() for one in sorted(found, key=self._distance)[:MOST_DONORS]]

    def _distance(self, other: _Configuration) -> tuple[bool, bool, int]:
        """Sorts by runtime, then threads, then how much was measured."""
        seen = other.observations
        return seen.runtime != self._runtime, seen.threads != self._threads, -len(seen.networks)


@dataclass(frozen=True)
class _Configuration:
    """One environment and thread count of a table that has enough networks."""

    path: Path
    observations: Observations

    @property
    def identity(self) -> tuple[Path, str, int]:
        return self.path.resolve(), self.observations.fingerprint, self.observations.threads

    def donor(self) -> Donor:
        with LatencyTable.open(self.path) as table:
            return Donor.read(
                table, fingerprint=self.observations.fingerprint, threads=self.observations.threads
            )


def _configurations(workspace: Workspace) -> Iterator[_Configuration]:
    for path in sorted(workspace.tables.glob("*.sqlite")):
        try:
            with LatencyTable.open(path) as table:
                for fingerprint, threads in table.configurations():
                    observations = observe(table, threads=threads, fingerprint=fingerprint)
                    if len(observations.with_role("fit")) >= ENOUGH:
                        yield _Configuration(path, observations)
        except TableError as error:
            warn(f"{error.message}; it cannot help other devices")


# --- a search space --------------------------------------------------------------------------------


def transferred_space(
    space: SearchSpace, observations: Observations, neighbours: Neighbours, precision: str | None = None
) -> TransferredSpace | None:
    """A space as donors price it for a device with few networks of it; None where nothing can help.

    Its ``transfer`` says whether that is better than the device's own table.

    Args:
        space: the space.
        observations: what the device's table says.
        neighbours: the donors.
        precision: only networks of this precision are looked at; of any when None.
    """
    measured = networks_of(observations, space.name, precision)
    if not is_few(measured):
        return None
    genomes = np.array([one.network.genome for one in measured])
    # A restricted space has the name of its base, whose genomes the table holds.
    whole = space.base if isinstance(space, RestrictedSpace) else space
    spaces = donor_spaces(whole, neighbours.donors)
    found = _fitted([(one.donor, one(genomes), one) for one in spaces], measured)
    if found is None:
        return None
    few_shot, kept = found
    return TransferredSpace(
        few_shot,
        kept,
        device=observations.device,
        threads=observations.threads,
        to_donors=_to_whole(space),
        transfer=few_shot.summary(_own_rmspe(observations, few_shot.networks)),
    )


def _to_whole(space: SearchSpace) -> Callable[[Ints], Ints]:
    """Turns genomes of a space into those of the space that was measured."""
    if not isinstance(space, RestrictedSpace):
        return lambda genomes: genomes
    base, to_base = space.base, space.to_base
    return lambda genomes: base.canonical(to_base(genomes))


def donor_spaces(space: SearchSpace, donors: Sequence[Donor]) -> list[DonorSpace]:
    """The space on those donors that can price it."""
    return [found for found in (donor.compiled(space) for donor in donors) if found is not None]


def _fitted(
    offers: Sequence[tuple[Donor, MakeUp, _Seen]],
    measured: Sequence[MeasuredNetwork],
) -> tuple[FewShot, list[_Seen]] | None:
    """Fits to the networks that donors can price, with as many donors as leave enough networks."""
    for count in range(len(offers), 0, -1):
        kept = sorted(offers, key=lambda offer: -int(np.isfinite(offer[1].latency_ms).sum()))[:count]
        priced = np.all([np.isfinite(made.latency_ms) for _, made, _ in kept], axis=0)
        if priced.sum() >= FEWEST:
            rows = np.flatnonzero(priced)
            networks = [measured[int(row)] for row in rows]
            made = [one.at(rows) for _, one, _ in kept]
            return FewShot([donor for donor, _, _ in kept], made, networks), [seen for *_, seen in kept]
    return None


def _own_rmspe(observations: Observations, judged: Sequence[MeasuredNetwork]) -> float | None:
    try:
        return left_out_rmspe(observations, judged)
    except TableError:
        return None


# --- a model ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransferredModel:
    """A model's latency and 90 % interval in ms by the donors, and what was found about them."""

    latency_ms: float
    interval_ms: tuple[float, float]
    transfer: TransferSummary

    def prediction(
        self,
        own: LatencyPredictor,
        trace: KernelTrace,
        model: str,
        precision: str,
        structure: Literal["device", "host"],
    ) -> Prediction:
        """The whole prediction; each kernel has its part of the latency.

        Parts are in proportion to what the device's own table says of the kernels; a kernel that it
        does not know counts by its work, at the rate of those that it knows.
        """
        specs = [spec_of(kernel) for kernel in trace.kernels]
        overhead_ms = min(own.overhead_ms, 0.5 * self.latency_ms)
        parts = _proportions(own, specs) * (self.latency_ms - overhead_ms)
        measured = [own.knows(spec) and own.measured(spec.key()) for spec in specs]
        return Prediction(
            model=model,
            device=own.device,
            runtime=trace.runtime,
            precision=precision,
            threads=own.threads,
            latency_ms=self.latency_ms,
            interval_ms=self.interval_ms,
            overhead_ms=overhead_ms,
            interpolated_share=float(parts[~np.array(measured)].sum() / self.latency_ms),
            structure=structure,
            virtual_clock=own.virtual_clock,
            kernels=tuple(
                KernelPrediction(
                    name=kernel.name,
                    layer=kernel.layer,
                    kind=kernel.kind,
                    latency_ms=float(part),
                    source="measured" if timed else "interpolated",
                )
                for kernel, part, timed in zip(trace.kernels, parts, measured, strict=True)
            ),
            transfer=self.transfer,
        )


def _proportions(own: LatencyPredictor, specs: Sequence[KernelSpec]) -> Array:
    """The share of each kernel in the time of all, (K,); none is 0."""
    known = np.array([own.knows(spec) for spec in specs])
    times = np.array(
        [own.kernel_ms(spec.key()) if one else 0.0 for one, spec in zip(known, specs, strict=True)]
    )
    work = np.array(
        [1.0 + macs_of(spec) + sum(map(elements, (*spec.inputs, *spec.outputs))) for spec in specs]
    )
    rate = times[known].sum() / work[known].sum() if known.any() else 1.0
    parts = np.where(known, times, work * rate)
    return np.asarray(parts / parts.sum())


def transferred_model(
    *,
    model_sha256: str,
    specs: Sequence[KernelSpec],
    precision: str,
    observations: Observations,
    neighbours: Neighbours,
    structure_on: Callable[[Donor], Sequence[KernelSpec] | None],
) -> TransferredModel | None:
    """A model as donors price it for a device with few networks; None where nothing can help.

    Args:
        model_sha256: the model.
        specs: the kernels that it becomes on the device.
        precision: the networks of the device that are compared with have the same.
        observations: what the device's table says for the threads that are asked about.
        neighbours: the donors.
        structure_on: asks for the kernels that the model becomes on a donor; None where it cannot be
            asked.
    """
    measured = [one for one in observations.with_role("fit") if one.network.precision == precision]
    if not is_few(measured):
        return None
    offers = []
    for donor in neighbours.donors:
        asked = donor.kernels_of(model_sha256, specs) or _counted(donor, structure_on(donor))
        if asked is not None:
            offers.append((donor, _made_by(donor, measured, observations), donor.make_up([asked])))
    found = _fitted(offers, measured)
    if found is None:
        return None
    few_shot, asked_of = found
    latency, interval = few_shot.predict(asked_of)
    return TransferredModel(
        float(latency[0]),
        (float(interval[0, 0]), float(interval[0, 1])),
        few_shot.summary(_own_rmspe(observations, few_shot.networks)),
    )


def _counted(donor: Donor, specs: Sequence[KernelSpec] | None) -> Counter[str] | None:
    return None if specs is None else donor.kernels_of("", specs)


def _made_by(donor: Donor, measured: Sequence[MeasuredNetwork], observations: Observations) -> MakeUp:
    """The measured networks on a donor; infinite where it cannot tell."""
    kernels = [
        donor.kernels_of(
            one.network.model_sha256, [observations.specs[key] for key in one.kernels.elements()]
        )
        for one in measured
    ]
    made = donor.make_up([counts or Counter() for counts in kernels])
    known = np.array([counts is not None for counts in kernels])
    return MakeUp(np.where(known, made.latency_ms, np.inf), made.calls, made.class_ms)


# --- what to measure first ------------------------------------------------------------------------


def most_telling(
    space: SearchSpace, genomes: Ints, donors: Sequence[Donor], rng: np.random.Generator
) -> list[int]:
    """Positions of the ``TELLING`` networks of a space that tell most about a new device.

    Args:
        space: the space.
        genomes: the networks to choose from, (N, genes).
        donors: what is known already; where none can price the space nothing is chosen.
        rng: decides which networks are looked at where they are many.
    """
    made = [one(genomes) for one in donor_spaces(space, donors)]
    if not made:
        return []
    priced = np.flatnonzero(np.all([np.isfinite(one.latency_ms) for one in made], axis=0))
    if len(priced) <= TELLING:
        return []
    known = [one.at(priced) for one in made]
    chosen = choose_informative(Standard.of(known[0]).networks(known), TELLING, rng)
    return [int(priced[index]) for index in chosen]
