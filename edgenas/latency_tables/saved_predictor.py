"""Predictors of tables, kept as plain arrays beside what they were fitted to.

Fitting a large table takes tens of seconds, mostly to find out how wide intervals must be; nothing of
it changes until the table does. What is kept holds for one content of a table only: rows that are not
what they were, flipped bytes too, make it be fitted again.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

import edgenas
from edgenas.files import replaced
from edgenas.latency_tables.catalogue import KernelCatalogue, KernelFacts
from edgenas.latency_tables.design import Design
from edgenas.latency_tables.features import FEATURES, WORK
from edgenas.latency_tables.observations import configuration, observe
from edgenas.latency_tables.posterior import Posterior
from edgenas.latency_tables.predictor import LatencyPredictor, Quantiles
from edgenas.latency_tables.pricing import KernelGuesses
from edgenas.latency_tables.relevance import Settings
from edgenas.latency_tables.table import LatencyTable
from edgenas.workspace import cache_folder

Array = NDArray[np.float64]

# Changes whenever the same table would be fitted otherwise.
_FORMAT = repr((5, edgenas.__version__, FEATURES, WORK))


class _Facts(msgspec.Struct, frozen=True):
    """Everything about a predictor that is no array."""

    format: str
    content: str
    device: str
    runtime: str
    threads: int
    fingerprint: str
    virtual_clock: bool
    networks: int
    quantiles: tuple[float, float]
    noise: float
    constant: float
    deviations: dict[str, float]
    keys: list[str]
    families: list[str]
    corrected: list[str]
    pinned: list[str]
    settings: dict[str, Settings]
    unseen_settings: dict[str, Settings]
    shape: tuple[int, int]


@dataclass(frozen=True)
class _Origin:
    """What a predictor needs to know of the observations that it was fitted to."""

    device: str
    runtime: str
    threads: int
    fingerprint: str
    virtual_clock: bool
    catalogue: KernelCatalogue


def fitted(
    table: LatencyTable, *, threads: int | None = None, fingerprint: str | None = None
) -> LatencyPredictor:
    """``LatencyPredictor.fit``, or what it gave for the same content of the table before.

    Raises:
        TableError: nothing was measured with that many threads, or no network at all.
    """
    fingerprint, threads = configuration(table, threads, fingerprint)
    content = _content(table, fingerprint, threads)
    path = _path(table, fingerprint, threads)
    found = _read(path, content, table)
    if found is None:
        observations = observe(table, threads=threads, fingerprint=fingerprint)
        found = LatencyPredictor.fit_to(observations, observations.with_role("fit"))
        _write(path, found, content)
    return found


def predictors_folder() -> Path:
    """Where predictors are kept."""
    return cache_folder() / "predictors"


def _path(table: LatencyTable, fingerprint: str, threads: int) -> Path:
    name = hashlib.sha256(f"{table.path.resolve()} {fingerprint} {threads}".encode()).hexdigest()[:32]
    return predictors_folder() / f"{name}.npz"


def _content(table: LatencyTable, fingerprint: str, threads: int) -> str:
    """Hash of all rows that a fit reads; those of kernels are checked whenever they are read."""
    digest = hashlib.blake2b(digest_size=16)
    chosen = (fingerprint, threads)
    for query, arguments in (
        ("SELECT * FROM networks WHERE role <> 'structure' ORDER BY model_sha256", ()),
        ("SELECT * FROM environments WHERE fingerprint = ? ORDER BY id", chosen[:1]),
        ("SELECT * FROM latencies WHERE fingerprint = ? AND threads = ? ORDER BY id", chosen),
        (
            "SELECT t.* FROM traces t JOIN networks n USING (model_sha256) WHERE fingerprint = ?"
            " AND threads = ? AND n.role <> 'structure' ORDER BY t.id",
            chosen,
        ),
    ):
        for row in table.raw_rows(query, arguments):
            digest.update(repr(row).encode())
    return digest.hexdigest()


def _write(path: Path, predictor: LatencyPredictor, content: str) -> None:
    """Keeps a predictor; a disk that takes no more costs only the next fit."""
    facts, arrays = _taken_apart(predictor, content)
    try:
        with replaced(path) as unfinished, unfinished.open("wb") as stream:
            np.savez(stream, allow_pickle=False, facts=np.frombuffer(facts, np.uint8), **arrays)
    except OSError:
        return


def _taken_apart(predictor: LatencyPredictor, content: str) -> tuple[bytes, dict[str, NDArray[np.generic]]]:
    posterior, guesses, unseen = predictor.posterior, predictor.design.guesses, predictor.unseen
    keys, corrected = list(guesses.profiled_ms), list(unseen.profiled_ms)
    known = [predictor.catalogue.facts(key) for key in keys]
    facts = _Facts(
        format=_FORMAT,
        content=content,
        device=predictor.device,
        runtime=predictor.runtime,
        threads=predictor.threads,
        fingerprint=predictor.fingerprint,
        virtual_clock=predictor.virtual_clock,
        networks=predictor.networks,
        quantiles=predictor.quantiles,
        noise=posterior.noise,
        constant=posterior.constant,
        deviations=posterior.deviations,
        keys=keys,
        families=[one.family for one in known],
        corrected=corrected,
        pinned=sorted(predictor.pinned),
        settings=guesses.settings_so_far(),
        unseen_settings=unseen.settings_so_far(),
        shape=posterior.rows.shape,
    )
    arrays: dict[str, NDArray[np.generic]] = {
        "features": np.array([one.features for one in known]),
        "work": np.array([one.work for one in known]),
        "footprint_mb": np.array([one.footprint_mb for one in known]),
        "profiled_ms": np.array([guesses.profiled_ms[key] for key in keys]),
        "corrected_ms": np.array([unseen.profiled_ms[key] for key in corrected]),
        "mean": posterior.mean,
        "prior_variance": posterior.prior_variance,
        "weights": posterior.weights,
        "factor": posterior.factor[np.tril_indices(len(posterior.factor))].astype(np.float32),
        "row_values": posterior.rows.data,
        "row_indices": posterior.rows.indices,
        "row_starts": posterior.rows.indptr,
    }
    return msgspec.json.encode(facts), arrays


def _read(path: Path, content: str, table: LatencyTable) -> LatencyPredictor | None:
    """What was kept for this content; None where there is nothing, or it is of no use."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            facts = msgspec.json.decode(kept["facts"].tobytes(), type=_Facts)
            if (facts.format, facts.content) != (_FORMAT, content):
                return None
            arrays = {name: kept[name] for name in kept.files if name != "facts"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.MsgspecError):
        return None
    known = dict(zip(facts.keys, _kernel_facts(facts, arrays), strict=True))
    return _put_together(facts, arrays, KernelCatalogue(table.kernels(), known=known))


def _put_together(facts: _Facts, arrays: dict[str, Array], catalogue: KernelCatalogue) -> LatencyPredictor:
    guesses = KernelGuesses(
        catalogue, _by_key(facts.keys, arrays["profiled_ms"]), settings=facts.settings.get
    )
    posterior = Posterior(
        mean=arrays["mean"],
        prior_variance=arrays["prior_variance"],
        rows=csr_array(
            (arrays["row_values"], arrays["row_indices"], arrays["row_starts"]), shape=facts.shape
        ),
        factor=_lower(arrays["factor"], facts.shape[0]),
        noise=facts.noise,
        constant=facts.constant,
        deviations=facts.deviations,
        weights=arrays["weights"],
    )
    origin = _Origin(
        facts.device, facts.runtime, facts.threads, facts.fingerprint, facts.virtual_clock, catalogue
    )
    unseen = KernelGuesses(
        catalogue, _by_key(facts.corrected, arrays["corrected_ms"]), settings=facts.unseen_settings.get
    )
    design = Design(guesses, facts.corrected)
    predictor = LatencyPredictor(origin, design, posterior, Quantiles(*facts.quantiles), facts.networks)
    predictor.take(unseen, frozenset(facts.pinned))
    return predictor


def _kernel_facts(facts: _Facts, arrays: dict[str, Array]) -> Iterator[KernelFacts]:
    columns = (arrays["features"], arrays["work"], arrays["footprint_mb"].tolist())
    for family, features, work, footprint_mb in zip(facts.families, *columns, strict=True):
        yield KernelFacts(family, features, work, footprint_mb)


def _by_key(keys: list[str], times_ms: Array) -> dict[str, float]:
    return dict(zip(keys, times_ms.tolist(), strict=True))


def _lower(packed: Array, size: int) -> Array:
    factor = np.zeros((size, size))
    factor[np.tril_indices(size)] = packed
    return factor
