"""A search space on a device with few measurements, as other tables price it where that is better."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.donors import Donor, DonorSpace
from edgenas.latency_tables.few_shot import Standard, TransferredSpace
from edgenas.latency_tables.observations import Observations
from edgenas.latency_tables.transfer import choose_informative
from edgenas.pipeline.few_shot import fitted_few_shot, is_few, networks_of, own_rmspe
from edgenas.pipeline.neighbours import Neighbours
from edgenas.search_spaces import RestrictedSpace, SearchSpace

Ints = NDArray[np.int64]
TELLING = 20
"""Networks of a space that a short profile measures first, chosen by what the donors know."""


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
    found = fitted_few_shot([(one.donor, one(genomes), one) for one in spaces], measured)
    if found is None:
        return None
    few_shot, kept = found
    return TransferredSpace(
        few_shot,
        kept,
        device=observations.device,
        threads=observations.threads,
        to_donors=_to_whole(space),
        transfer=few_shot.summary(own_rmspe(observations, few_shot.networks)),
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
