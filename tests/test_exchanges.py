"""Exchange moves: pairs of changes that keep a limit together."""

from __future__ import annotations

import numpy as np
import pytest
from strategy_contract import GridSpace, cost

from edgenas.search.exchanges import Exchanges, switching_genes
from edgenas.search.problem import Limit, Problem
from edgenas.search.variation import Variation

GAINS = np.array([1.0, 2.5, 0.5, 1.0, 0.6, 1.2, 1.0, 0.3])


class PlainSpace(GridSpace):
    """Every gene means something always, so that changes add up."""

    def canonical(self, genomes: np.ndarray) -> np.ndarray:
        return np.array(genomes, np.int64)


def loss(genomes: np.ndarray) -> np.ndarray:
    return -(genomes @ GAINS)


def variation(*limits: float, space: type[GridSpace] = GridSpace) -> Variation:
    problem = Problem(
        space(), metrics={"cost": cost}, limits=[Limit(metric="cost", maximum=one) for one in limits]
    )
    return Variation(problem, np.random.default_rng(0))


def within_two_changes(genome: np.ndarray) -> np.ndarray:
    grid = np.indices(GridSpace.option_counts).reshape(8, -1).T
    return grid[(grid != genome).sum(axis=1) <= 2]


@pytest.mark.parametrize("maximum", [6.0, 10.0, 14.0])
def test_the_first_child_is_the_best_that_two_changes_reach_within_the_limit(maximum: float) -> None:
    varied = variation(maximum, space=PlainSpace)
    exchanges = Exchanges(varied)
    seen = PlainSpace().sample(np.random.default_rng(1), 4000)
    model = exchanges.linear_model(seen, loss(seen))
    for parent in varied.sample(20):
        near = within_two_changes(parent)
        near = near[(cost(near) <= maximum) & (near != parent).any(axis=1)]
        child = exchanges.children(parent[None], model, 20)[:1]
        assert loss(child) == pytest.approx(loss(near).min())


def test_children_keep_every_limit_and_are_no_more_than_two_changes_away() -> None:
    varied = variation(14.0, 9.0)
    parents = varied.sample(6)
    exchanges = Exchanges(varied)
    children = exchanges.children(parents, exchanges.linear_model(parents, loss(parents)), 1000)
    assert len(children) > 100
    assert (cost(children) <= 9.0).all()
    assert (GridSpace().canonical(children) == children).all()
    away = (children[:, None, :-1] != parents[None, :, :-1]).sum(axis=2).min(axis=1)
    assert away.max() == 2  # the last gene follows the first


def test_what_is_equally_good_everywhere_teaches_nothing() -> None:
    varied = variation(14.0)
    genomes = varied.sample(50)
    assert not Exchanges(varied).linear_model(genomes, np.ones(len(genomes))).any()


def test_genes_that_decide_what_others_mean_are_found() -> None:
    assert switching_genes(variation()).tolist() == [0]
