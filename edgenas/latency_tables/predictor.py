"""Latency of any network from its kernels, with an interval that leave-one-out errors calibrate."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from edgenas.errors import TableError, UnknownKernelsError
from edgenas.latency_tables.catalogue import KernelCatalogue
from edgenas.latency_tables.design import KNOTS_MB, MEMORY, OVERHEAD, Column, Design
from edgenas.latency_tables.kernels import KernelSpec, spec_of
from edgenas.latency_tables.observations import MeasuredNetwork, Observations, observe
from edgenas.latency_tables.posterior import Posterior, solve
from edgenas.latency_tables.pricing import KernelGuesses, to_be_chosen
from edgenas.latency_tables.table import LatencyTable
from edgenas.records import KernelPrediction, KernelTrace, Prediction

Array = NDArray[np.float64]
NOTHING: Array = np.array([])

COVERAGE = 0.9
_GAUSSIAN = 1.645  # 90 % of a normal distribution, until enough networks tell better
_LEAST_TO_CALIBRATE = 20
_FOLDS = 6
_LEAST_SHARE = 0.02  # of its guess, that a kernel is taken to cost whatever the correction says
_PINNINGS = 12
_OUTLYING, _DOUBTINGS = 4.0, 3  # standard deviations from what all other networks say
_PIN_SD, _PIN_TOLERANCE = 0.01, 0.02  # relative to the guess


@dataclass(frozen=True)
class Estimate:
    """A network's predicted latency, its standard deviation, the interval that holds nine in ten networks
    and the share of its kernels' time that is interpolated."""

    latency_ms: float
    sd_ms: float
    interval_ms: tuple[float, float]
    interpolated_share: float


class Quantiles(NamedTuple):
    """How many expected deviations an interval reaches: of networks without and with integer kernels.

    A device may repeat the one kind far better than the other; a common quantile would be too narrow for
    one and too wide for the other, and hold nine in ten only on average.

    Source: Vovk et al., Algorithmic Learning in a Random World (2005), section 4.5 (Mondrian predictors).
    """

    floats: float
    integers: float


class Origin(Protocol):
    """Where, with what and in which environment a predictor's networks were measured."""

    @property
    def device(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def virtual_clock(self) -> bool: ...
    @property
    def catalogue(self) -> KernelCatalogue: ...


class LatencyPredictor:
    """Prices kernels and networks of one device at one thread count. Made by ``fit``."""

    def __init__(
        self, origin: Origin, design: Design, posterior: Posterior, quantiles: Quantiles, networks: int
    ) -> None:
        self.device = origin.device
        self.runtime = origin.runtime
        self.threads = origin.threads
        self.fingerprint = origin.fingerprint
        self.virtual_clock = origin.virtual_clock
        self.networks = networks
        self.design = design
        self.posterior = posterior
        self.quantiles = quantiles
        self.catalogue = origin.catalogue
        self.pinned: frozenset[str] = frozenset()
        self._unseen: KernelGuesses | None = None
        self._columns: dict[str, Column] = {}
        self._prices: dict[str, float] = {}

    @classmethod
    def fit(
        cls, table: LatencyTable, *, threads: int | None = None, fingerprint: str | None = None
    ) -> LatencyPredictor:
        """Fits to every network of the table whose role is "fit", whatever its precision.

        Raises:
            TableError: nothing was measured with that many threads, or no network at all.
        """
        observations = observe(table, threads=threads, fingerprint=fingerprint)
        return cls.fit_to(observations, observations.with_role("fit"))

    @classmethod
    def fit_to(
        cls,
        observations: Observations,
        networks: Sequence[MeasuredNetwork],
        *,
        left_out: Collection[str] = (),
        like: LatencyPredictor | None = None,
    ) -> LatencyPredictor:
        """Fits to ``networks``.

        Args:
            observations: what the networks are part of.
            left_out: models whose traces do not count either.
            like: a predictor of the same table, whose settings are taken over instead of chosen.
        """
        profiled = observations.profiled_without(left_out)
        chosen = like.design.guesses.settings_of if like else to_be_chosen
        guesses = KernelGuesses(observations.catalogue, profiled, settings=chosen)
        usable = [network for network in networks if all(map(guesses.knows, network.kernels))]
        if not usable:
            raise TableError(
                f"the table of '{observations.device}' has no network measured end to end with"
                f" {observations.threads} threads",
                hint=f"edgenas profile --device {observations.device}",
            )
        used = sorted({key for network in usable for key in network.kernels if key in profiled})
        design = Design(guesses, used)
        posterior, pinned = _posterior(design, usable, like)
        quantiles = like.quantiles if like else Quantiles(_GAUSSIAN, _GAUSSIAN)
        predictor = cls(observations, design, posterior, quantiles, len(usable))
        corrected = {key: predictor.kernel_ms(key) for key in used}
        chosen = like.unseen.settings_of if like else to_be_chosen
        predictor.take(KernelGuesses(observations.catalogue, corrected, settings=chosen), pinned)
        if like is None:
            predictor.quantiles = _conformal_quantiles(predictor, observations, usable)
        return predictor

    def take(self, unseen: KernelGuesses, pinned: frozenset[str]) -> None:
        """Completes a fit: guesses from corrected times, and the kernels held at their least price."""
        self._unseen, self.pinned = unseen, pinned

    @property
    def unseen(self) -> KernelGuesses:
        """Guesses of kernels that were never profiled."""
        assert self._unseen is not None, "made by fit, like everything else"
        return self._unseen

    @property
    def overhead_ms(self) -> float:
        """What a run costs besides its kernels."""
        return float(self.design.unit_ms * self.posterior.mean[OVERHEAD])

    def memory_ms(self, footprint_mb: Array) -> Array:
        """What networks that touch so many megabytes (N,) take longer than their kernels do alone."""
        beyond = np.maximum(0.0, footprint_mb[:, None] - np.array(KNOTS_MB))
        return np.asarray(self.design.ms_per_mb * (beyond @ self.posterior.mean[MEMORY]))

    def column(self, key: str) -> Column:
        """A kernel of the catalogue as a row of the linear model; its kind must be known.

        One that was never profiled is guessed from the corrected times of those that were.
        """
        if key not in self._columns:
            guess = self.design.guesses.guess(key)
            if self._unseen is None or guess.measured or not self._unseen.knows(key):
                self._columns[key] = self.design.column(key, guess)
            else:
                self._columns[key] = Column(NOTHING.astype(np.int64), NOTHING, self._unseen.guess(key))
        return self._columns[key]

    def knows(self, kernel: KernelSpec | str) -> bool:
        """Whether a kernel, or the kernel of a key of the catalogue, can be priced at all."""
        key = kernel if isinstance(kernel, str) else self.catalogue.add(kernel)
        return self.design.guesses.knows(key)

    def measured(self, key: str) -> bool:
        """Whether the kernel itself was profiled."""
        return self.column(key).guess.measured

    def kernel_ms(self, key: str) -> float:
        """The corrected time of a kernel of the catalogue; never 0."""
        if key not in self._prices:
            column = self.column(key)
            guess = column.guess.latency_ms
            corrected = guess + float(column.values @ self.posterior.mean[column.indices])
            self._prices[key] = max(corrected, _LEAST_SHARE * guess)
        return self._prices[key]

    def estimate(self, kernels: Iterable[KernelSpec]) -> Estimate:
        """Latency of a network that executes these kernels one after the other.

        Raises:
            UnknownKernelsError: kernels of kinds that were never measured.
        """
        keys = [self.catalogue.add(spec) for spec in kernels]
        self.require(keys)
        return self.estimate_counts(Counter(keys))

    def estimate_counts(self, counts: Mapping[str, int]) -> Estimate:
        """Latency of a network that calls each kernel of the catalogue so many times."""
        times = {key: count * self.kernel_ms(key) for key, count in counts.items()}
        latency = self.overhead_of(counts) + sum(times.values())
        unseen = sum(time for key, time in times.items() if not self.measured(key))
        row, _, own = self.design.row(counts, {key: self.column(key) for key in counts})
        sd = float(self.deviation(row[None, :], np.array([own]), np.array([latency]))[0])
        share = unseen / sum(times.values()) if times else 0.0
        return Estimate(latency, sd, self.interval(latency, sd, counts), share)

    def overhead_of(self, counts: Mapping[str, int]) -> float:
        """What a run of these kernels costs besides the kernels."""
        megabytes = sum(count * self.column(key).guess.footprint_mb for key, count in counts.items())
        return self.overhead_ms + float(self.memory_ms(np.array([megabytes]))[0])

    def estimates(self, networks: Sequence[MeasuredNetwork]) -> Iterator[tuple[MeasuredNetwork, Estimate]]:
        """Estimates of measured networks from their kernels; those with unknown kernels are skipped."""
        for network in networks:
            if all(self.knows(key) for key in network.kernels):
                yield network, self.estimate_counts(network.kernels)

    def deviation(self, rows: Array, own_variance: Array, latency_ms: Array) -> Array:
        """Standard deviation in ms (M,) of networks given as rows of the linear model (M, D)."""
        unexplained = (self.posterior.noise * latency_ms) ** 2 + (
            self.posterior.constant * rows[:, OVERHEAD]
        ) ** 2
        return np.asarray(np.sqrt(self.posterior.variance(rows) + own_variance + unexplained))

    def quantile_of(self, kernels: Collection[str]) -> float:
        """How many expected deviations the interval of a network of these kernels reaches."""
        return self.quantiles[self.catalogue.computes_in_integers(kernels)]

    def interval(self, latency_ms: float, sd_ms: float, kernels: Collection[str]) -> tuple[float, float]:
        """The interval that holds nine in ten networks; never below a tenth of the prediction."""
        half = self.quantile_of(kernels) * sd_ms
        return max(latency_ms - half, 0.1 * latency_ms), latency_ms + half

    def require(self, keys: Iterable[str]) -> None:
        """Raises ``UnknownKernelsError`` naming every kernel that nothing in the table can price."""
        unknown = dict.fromkeys(self.catalogue.spec(key).label() for key in keys if not self.knows(key))
        if unknown:
            raise UnknownKernelsError(tuple(unknown), device=self.device)

    def predict(
        self, trace: KernelTrace, *, model: str = "", precision: str = "", structure: str = "device"
    ) -> Prediction:
        """Latency of a model from the structure of its kernels; the trace's times are not used.

        Raises:
            UnknownKernelsError: kernels of families that were never measured.
        """
        keys = [self.catalogue.add(spec_of(kernel)) for kernel in trace.kernels]
        self.require(keys)
        found = self.estimate_counts(Counter(keys))
        return Prediction(
            model=model or trace.model_sha256[:12],
            device=self.device,
            runtime=trace.runtime,
            precision=precision,
            threads=self.threads,
            latency_ms=found.latency_ms,
            interval_ms=found.interval_ms,
            overhead_ms=self.overhead_of(Counter(keys)),
            interpolated_share=found.interpolated_share,
            structure="host" if structure == "host" else "device",
            virtual_clock=self.virtual_clock,
            kernels=tuple(
                KernelPrediction(
                    name=kernel.name,
                    layer=kernel.layer,
                    kind=kernel.kind,
                    latency_ms=self.kernel_ms(key),
                    source="measured" if self.measured(key) else "interpolated",
                )
                for kernel, key in zip(trace.kernels, keys, strict=True)
            ),
        )


def _posterior(
    design: Design, networks: Sequence[MeasuredNetwork], like: LatencyPredictor | None
) -> tuple[Posterior, frozenset[str]]:
    """Reconciles the networks with the kernels, none of which may come out below its least price.

    A kernel that does is pinned there like one more measurement; a pin that only holds a kernel down
    is taken out again. Cutting prices off afterwards instead would make every network too slow. The
    pinned kernels are given, too: with those of ``like``, a predictor of nearly the same networks, the
    search begins.

    Source: Nocedal and Wright, Numerical Optimization (2006), section 16.5 (active sets).
    """
    keys = sorted({key for network in networks for key in network.kernels})
    columns = {key: design.column(key, design.guesses.guess(key)) for key in keys}
    measured = _network_rows(design, networks, columns)
    if like is None:
        measured = _without_outliers(measured, design)
    candidates = _pinned_rows(design, columns)
    pinned = np.array([like is not None and key in like.pinned for key in keys])
    deviations = like.posterior.deviations if like else None
    for _ in range(_PINNINGS):
        both = _Rows(
            vstack([measured.rows, candidates.rows[np.flatnonzero(pinned)]], format="csr"),
            np.concatenate([measured.residual, candidates.residual[pinned]]),
            np.concatenate([measured.variance, candidates.variance[pinned]]),
        )
        posterior = solve(*both, design.groups(), deviations=deviations)
        deviations = posterior.deviations
        too_low = ~pinned & (candidates.rows @ posterior.mean < candidates.residual - _PIN_TOLERANCE)
        pulls = np.zeros(len(keys), np.bool_)
        pulls[np.flatnonzero(pinned)] = posterior.weights[len(networks) :] < 0
        if not np.any(too_low | pulls):
            break
        pinned = (pinned & ~pulls) | too_low
    return posterior, frozenset(key for key, held in zip(keys, pinned, strict=True) if held)


class _Rows(NamedTuple):
    """Measurements of the linear model, relative: rows (N, D), residuals (N,), known variances (N,)."""

    rows: csr_array
    residual: Array
    variance: Array


def _network_rows(
    design: Design, networks: Sequence[MeasuredNetwork], columns: Mapping[str, Column]
) -> _Rows:
    rows, base, own = design.rows([network.kernels for network in networks], columns)
    latency = np.array([network.latency_ms for network in networks])
    noise = np.array([network.relative_noise for network in networks])
    known = (noise * latency / base) ** 2 + own / base**2
    return _Rows(csr_array(rows * (1.0 / base)[:, None]), latency / base - 1.0, known)


def _without_outliers(measured: _Rows, design: Design) -> _Rows:
    """The rows, with the doubt that they deserve where all others say something else.

    What shares a core with another process for as long as it is measured repeats itself perfectly at
    twice its latency; nothing about the measurement alone tells.
    """
    variance = measured.variance
    for _ in range(_DOUBTINGS):
        posterior = solve(measured.rows, measured.residual, variance, design.groups())
        residual, deviation = posterior.left_out()
        far = np.abs(residual) > _OUTLYING * deviation
        if not np.any(far):
            break
        variance = np.where(far, np.maximum(variance, residual**2), variance)
    return _Rows(measured.rows, measured.residual, variance)


def _pinned_rows(design: Design, columns: Mapping[str, Column]) -> _Rows:
    """What it would be to have measured every kernel at its least price."""
    lengths = [len(column.indices) for column in columns.values()]
    values = np.concatenate([column.values / column.guess.latency_ms for column in columns.values()])
    indices = np.concatenate([column.indices for column in columns.values()])
    starts = np.concatenate(([0], np.cumsum(lengths)))
    count = len(columns)
    rows = csr_array((values, indices, starts), shape=(count, design.size))
    return _Rows(rows, np.full(count, _LEAST_SHARE - 1.0), np.full(count, _PIN_SD**2))


def _conformal_quantiles(
    predictor: LatencyPredictor, observations: Observations, networks: Sequence[MeasuredNetwork]
) -> Quantiles:
    """How many expected deviations the interval must reach to hold nine in ten left-out networks.

    Networks are left out in folds, with the times of the kernels that only they have. Those that were
    picked for what is new in them are no sample of their space and do not count, where the others are
    enough; a kind of which there are too few takes the quantile of all.

    Source: Barber et al., Predictive inference with the jackknife+ (2021), section 3 (CV+).
    """
    if len(networks) < _LEAST_TO_CALIBRATE:
        return predictor.quantiles
    found = np.array(list(_scores(predictor, observations, networks))).reshape(-1, 3)
    if not len(found):  # each of them has kernels that no other shows
        return predictor.quantiles
    scores, integers, picked = found.T
    return Quantiles(
        *(
            _quantile(scores[(integers == kind) & (picked == 0)], scores[integers == kind], scores)
            for kind in (False, True)
        )
    )


def _quantile(*choices: Array) -> float:
    """The conformal quantile of the first choice that has enough scores, or of the last."""
    scores = next((some for some in choices if len(some) >= _LEAST_TO_CALIBRATE), choices[-1])
    rank = min(math.ceil(COVERAGE * (len(scores) + 1)), len(scores))
    return float(np.sort(scores)[rank - 1])


def _scores(
    predictor: LatencyPredictor, observations: Observations, networks: Sequence[MeasuredNetwork]
) -> Iterator[tuple[float, bool, bool]]:
    """Of each network the error over the expected deviation when it is left out, whether it computes in
    integers, and whether it was picked."""
    for fold in range(_FOLDS):
        judged = networks[fold::_FOLDS]
        names = {network.network.model_sha256 for network in judged}
        kept = [network for network in networks if network.network.model_sha256 not in names]
        fitted = LatencyPredictor.fit_to(observations, kept, left_out=names, like=predictor)
        for network, found in fitted.estimates(judged):
            score = abs(network.latency_ms - found.latency_ms) / found.sd_ms
            integers = predictor.catalogue.computes_in_integers(network.kernels)
            yield score, integers, bool(network.network.facts.get("picked"))
