"""Finds strategies by name: built in, or from other packages."""

from __future__ import annotations

from importlib import metadata

from edgenas.errors import UnknownNameError
from edgenas.search.bayesian import Bayesian, BayesianGP
from edgenas.search.evolution import Evolution
from edgenas.search.gradient import GradientDescent
from edgenas.search.local_search import LocalSearch, SimulatedAnnealing
from edgenas.search.random_search import RandomSearch
from edgenas.search.regularized_evolution import RegularizedEvolution
from edgenas.search.reinforce import Reinforce
from edgenas.search.strategy import Strategy

ENTRY_POINTS = "edgenas.strategies"

_BUILT_IN: dict[str, type[Strategy]] = {
    one.name: one
    for one in (
        Evolution,
        RegularizedEvolution,
        RandomSearch,
        LocalSearch,
        SimulatedAnnealing,
        Bayesian,
        BayesianGP,
        Reinforce,
        GradientDescent,
    )
}


def strategy_names() -> tuple[str, ...]:
    """All names that ``get_strategy`` knows, sorted."""
    return tuple(sorted({*_BUILT_IN, *_installed()}))


def get_strategy(name: str) -> type[Strategy]:
    """The strategy of that name; built-in ones cannot be replaced.

    Raises:
        UnknownNameError: no such strategy.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    installed = _installed()
    if name not in installed:
        raise UnknownNameError("strategy", name, strategy_names())
    strategy: type[Strategy] = installed[name].load()
    return strategy


def _installed() -> dict[str, metadata.EntryPoint]:
    return {entry.name: entry for entry in metadata.entry_points(group=ENTRY_POINTS)}
