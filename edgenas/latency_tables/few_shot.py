"""A device with few measurements, priced by the tables of other devices.

Donors price the few networks that were measured on the device, and what is asked about; ``transfer``
finds the mixture. Leaving each measured network out says how good that is, beside what the device's
own table says of it alone: the better of the two is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgenas.latency_tables.donors import Donor, DonorSpace, MakeUp
from edgenas.latency_tables.observations import MeasuredNetwork
from edgenas.latency_tables.transfer import Networks, Transfer
from edgenas.records import DonorShare, TransferSummary

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST = 5
"""Measured networks below which donors say nothing about a device."""

_LEAST_MS = 1e-4  # of a class of kernels, so that its logarithm is finite
_LEAST_SPREAD = 0.05  # of a log-time over the measured networks
_LEAST_SHARE = 0.1  # of the fastest measured network, that a prediction is at least


@dataclass(frozen=True)
class Standard:
    """What features of networks are standardised by: the networks that were measured.

    ``used`` (C,) says which classes of kernels they have, ``center`` and ``spread`` (C,) are of the
    logarithms of the times of these classes.
    """

    used: NDArray[np.bool_]
    center: Array
    spread: Array

    @classmethod
    def of(cls, made: MakeUp) -> Standard:
        """The standard that networks set."""
        times = _log_times(made)
        spread = np.maximum(times.std(axis=0), _LEAST_SPREAD)
        return cls(np.any(made.class_ms > 0, axis=0), times.mean(axis=0), spread)

    def networks(self, made: Sequence[MakeUp]) -> Networks:
        """Networks as ``transfer`` reads them, from their make-up on each donor."""
        features = ((_log_times(made[0]) - self.center) / self.spread)[:, self.used]
        donors_ms = np.column_stack([one.latency_ms for one in made])
        return Networks(donors_ms, made[0].calls[:, self.used], features)


def _log_times(made: MakeUp) -> Array:
    return np.asarray(np.log(np.maximum(made.class_ms, _LEAST_MS)))


class FewShot:
    """Latencies of a device from its donors and a few networks that were measured on it.

    Args:
        donors: the donors; how networks are made up on the first tells them apart.
        made: the measured networks on each donor.
        networks: the networks themselves.
    """

    def __init__(
        self, donors: Sequence[Donor], made: Sequence[MakeUp], networks: Sequence[MeasuredNetwork]
    ) -> None:
        latency_ms = np.array([one.latency_ms for one in networks])
        self.networks = tuple(networks)
        self._donors = tuple(donors)
        self._standard = Standard.of(made[0])
        self._transfer = Transfer.fit(self._standard.networks(made), latency_ms)
        self._least_ms = _LEAST_SHARE * float(latency_ms.min())
        self.leave_one_out_rmspe = float(
            np.sqrt(np.mean((self._transfer.leave_one_out_ms / latency_ms) ** 2))
        )

    def predict(self, made: Sequence[MakeUp]) -> tuple[Array, Array]:
        """Latencies (M,) and 90 % intervals (M, 2) in ms of networks by their make-up on each donor.

        What a donor cannot price is infinite.
        """
        priced = np.all([np.isfinite(one.latency_ms) for one in made], axis=0)
        latency, half = np.full(len(priced), np.inf), np.zeros(len(priced))
        if priced.any():
            rows = np.flatnonzero(priced)
            found, halfwidth = self._transfer.predict(self._standard.networks([one.at(rows) for one in made]))
            latency[rows], half[rows] = np.maximum(found, self._least_ms), halfwidth
        low = np.maximum(latency - half, _LEAST_SHARE * latency)
        return latency, np.column_stack([low, latency + half])

    def summary(self, own_rmspe: float | None) -> TransferSummary:
        """What stands in results, beside the error of the device's own table alone."""
        return TransferSummary(
            measured_networks=len(self.networks),
            used=own_rmspe is None or self.leave_one_out_rmspe < own_rmspe,
            donors=tuple(
                DonorShare(device=one.device, runtime=one.runtime, threads=one.threads, share=float(weight))
                for one, weight in zip(self._donors, self._transfer.weights, strict=False)
            ),
            leave_one_out_rmspe=self.leave_one_out_rmspe,
            own_leave_one_out_rmspe=own_rmspe,
        )


class TransferredSpace:
    """Latencies of a space's candidates on a device with few measurements; some 100,000 a second.

    Args:
        few_shot: fitted to networks of the space.
        spaces: the space on each donor.
        device: the device.
        threads: the threads that latencies are for.
        to_donors: turns the genomes that are asked about into those of ``spaces``.
        transfer: what was found about the transfer.
    """

    def __init__(
        self,
        few_shot: FewShot,
        spaces: Sequence[DonorSpace],
        *,
        device: str,
        threads: int,
        to_donors: Callable[[Ints], Ints],
        transfer: TransferSummary,
    ) -> None:
        self._few_shot, self._spaces, self._to_donors = few_shot, tuple(spaces), to_donors
        self.device, self.threads, self.transfer = device, threads, transfer

    def latency_ms(self, genomes: Ints) -> Array:
        """Predicted latencies (N,) in ms of genomes (N, genes)."""
        return self._predict(genomes)[0]

    def __call__(self, genomes: Ints) -> Array:
        return self.latency_ms(genomes)

    def interval_ms(self, genomes: Ints) -> Array:
        """The interval (N, 2) in ms that holds nine in ten candidates."""
        return self._predict(genomes)[1]

    def _predict(self, genomes: Ints) -> tuple[Array, Array]:
        population = self._to_donors(np.atleast_2d(np.asarray(genomes)))
        return self._few_shot.predict([space(population) for space in self._spaces])
