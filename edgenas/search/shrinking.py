"""Drops options that a table proves useless: slower than a more capable one, wherever they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgenas.records import DroppedOption
from edgenas.search.problem import Floats, Genomes, Metric
from edgenas.search_spaces import RestrictedSpace, SearchSpace

CONTEXTS = 512
FEWEST = 16


@dataclass(frozen=True)
class Shrunk:
    """A space with fewer options, and why each is gone."""

    space: SearchSpace
    dropped: tuple[DroppedOption, ...]


def shrink(space: SearchSpace, latencies: Mapping[str, Metric]) -> Shrunk:
    """The space without options that are slower than a more capable one of the same gene on every device.

    The options of a gene stand from the least to the most capable, and the comparison is made in
    ``CONTEXTS`` random settings of all other genes: an option goes if it was never faster. That a
    more capable option is at least as accurate is the space's promise, not a measurement.

    Args:
        space: the space.
        latencies: predicted latency in ms by device.
    """
    contexts = space.sample(np.random.default_rng(0), CONTEXTS)
    dropped = [
        one for gene in range(len(space.choices)) for one in _dropped(space, latencies, contexts, gene)
    ]
    if not dropped:
        return Shrunk(space, ())
    gone = {(one.gene, one.option) for one in dropped}
    allowed = {
        choice.name: [option for option in choice.options if (choice.name, str(option)) not in gone]
        for choice in space.choices
    }
    return Shrunk(RestrictedSpace(space, allowed), tuple(dropped))


def _dropped(
    space: SearchSpace, latencies: Mapping[str, Metric], contexts: Genomes, gene: int
) -> list[DroppedOption]:
    choice = space.choices[gene]
    contexts = contexts[space.active(contexts)[:, gene]]
    if len(contexts) < FEWEST:
        return []
    by_option = [
        _with_option(latencies, space, contexts, gene, option) for option in range(len(choice.options))
    ]
    found = []
    for option, latency in enumerate(by_option):
        for better in range(option + 1, len(by_option)):
            # What the tables cannot price is infinite, and says nothing about either option.
            priced = np.isfinite([latency, by_option[better]]).all(axis=(0, 1))
            if priced.sum() < FEWEST:
                continue
            slower = latency[:, priced] - by_option[better][:, priced]
            if (slower >= 0).all() and slower.mean() > 0:
                found.append(_because(choice.name, choice.options, option, better, slower))
                break
    return found


def _with_option(
    latencies: Mapping[str, Metric], space: SearchSpace, contexts: Genomes, gene: int, option: int
) -> Floats:
    """(devices, contexts) latencies in ms with that option in place."""
    changed = contexts.copy()
    changed[:, gene] = option
    return np.stack([latency(space.canonical(changed)) for latency in latencies.values()])


def _because(name: str, options: Sequence[object], option: int, better: int, slower: Floats) -> DroppedOption:
    return DroppedOption(
        gene=name,
        option=str(options[option]),
        better=str(options[better]),
        slower_ms=float(slower.mean()),
        reason=(
            f"{name}={options[option]} is slower than the more capable {name}={options[better]} in all "
            f"{slower.shape[1]} settings tried, by {slower.mean():.3g} ms on average"
        ),
    )
