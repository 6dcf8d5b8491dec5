"""What a search with few dear evaluations lives on: warping, surrogate, improvements, first candidates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import check_grad
from strategy_contract import GridSpace, accuracy, cost, grid_problem

from edgenas.search.acquisition import Predictions, choose_batch, corner_of, shortlist
from edgenas.search.adviser import Adviser
from edgenas.search.evolution import FIRST, Evolution
from edgenas.search.genome_codes import GenomeCodes
from edgenas.search.initial_design import spread_sample
from edgenas.search.pareto import front, hypervolume
from edgenas.search.problem import Problem
from edgenas.search.random_search import RandomSearch
from edgenas.search.strategy import Strategy
from edgenas.search.surrogate import GaussianProcess, _loss, _Prior
from edgenas.search.variation import Seen, Variation
from edgenas.search.warping import STRENGTHS, Warping

COUNTS = GridSpace.option_counts


def sampled(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.permutation(np.unique(GridSpace().sample(rng, n), axis=0), axis=0)


@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=30, unique=True), st.sampled_from(STRENGTHS)
)
def test_a_warping_keeps_the_order_and_gives_values_back(values: list[int], strength: float) -> None:
    targets = np.sort(np.array(values) / 1000.0)
    warping = Warping.of(targets, strength)
    warped = warping.forward(targets)
    assert (np.diff(warped) >= 0).all()
    assert np.allclose(warping.backward(warped), targets, rtol=1e-6, atol=1e-6 * np.ptp(targets))


def test_equal_values_can_be_warped() -> None:
    assert np.allclose(Warping.of(np.full(5, 0.1), 0.3).forward(np.full(5, 0.1)), 0.0)


def test_codes_of_drawn_genomes_average_to_the_relaxed_code() -> None:
    codes = GenomeCodes(COUNTS)
    uniform = np.concatenate([np.full(count, 1.0 / count) for count in COUNTS])
    grid = np.indices(COUNTS).reshape(len(COUNTS), -1).T
    assert np.allclose(codes.encode(grid).mean(axis=0), codes.relaxed(uniform))


def test_the_posterior_has_the_gradient_that_it_says() -> None:
    genomes = sampled(40)
    codes = GenomeCodes(COUNTS)
    columns, prior = codes.encode(genomes), _Prior(codes.kinds, codes.genes)
    warped = Warping.of(1.0 - accuracy(genomes), 0.3).forward(1.0 - accuracy(genomes))
    theta = prior.mode + 0.3 * np.random.default_rng(1).normal(size=len(prior.mode))
    error = check_grad(
        lambda at: _loss(at, columns, warped, prior)[0],
        lambda at: _loss(at, columns, warped, prior)[1],
        theta,
    )
    assert error < 1e-3


def test_a_surrogate_predicts_what_it_has_not_seen_and_knows_how_well() -> None:
    genomes = sampled(400)
    rng = np.random.default_rng(2)
    targets = 1.0 - accuracy(genomes) + rng.normal(0.0, 0.01, len(genomes))
    model = GaussianProcess(COUNTS, 1)
    numbers = np.log(cost(genomes))[:, None]
    model.fit(genomes[:120], targets[:120], numbers[:120])
    held_out = targets[120:]
    median = model.median(genomes[120:], numbers[120:])
    quantiles = model.quantiles(genomes[120:], numbers[120:])
    assert np.corrcoef(median, held_out)[0, 1] > 0.95
    assert (np.diff(quantiles, axis=1) >= 0).all()
    covered = ((quantiles[:, 1] <= held_out) & (held_out <= quantiles[:, -2])).mean()
    assert 0.55 < covered < 0.95  # the second and the last but one quantile enclose three quarters


def test_a_feature_that_all_data_share_moves_no_prediction() -> None:
    genomes = sampled(120)
    targets = 1.0 - accuracy(genomes)
    told = np.log(cost(genomes))[:, None]
    shared = np.full((len(genomes), 1), 3.0)
    plain, padded = GaussianProcess(COUNTS, 1), GaussianProcess(COUNTS, 2)
    plain.fit(genomes[:60], targets[:60], told[:60])
    padded.fit(genomes[:60], targets[:60], np.hstack([told, shared])[:60])
    elsewhere = padded.median(genomes[60:], np.hstack([told, shared + 1.0])[60:])
    assert np.isfinite(elsewhere).all()
    assert np.allclose(elsewhere, plain.median(genomes[60:], told[60:]), atol=0.02)


def test_the_relaxed_gradient_is_the_slope_of_the_median_between_two_genomes() -> None:
    genomes = sampled(80)
    model = GaussianProcess(COUNTS)
    model.fit(genomes, 1.0 - accuracy(genomes))
    first = genomes[0].copy()
    second = first.copy()
    second[3] = (first[3] + 2) % COUNTS[3]
    from_, to = (GenomeCodes(COUNTS).encode(one[None])[0, : COUNTS.sum()] for one in (first, second))
    steps = np.linspace(0.0, 1.0, 201)
    slopes = [model.relaxed_gradient(from_ + t * (to - from_)) @ (to - from_) for t in steps]
    difference = float(np.diff(model.median(np.stack([first, second])))[0])
    assert np.trapezoid(slopes, steps) == pytest.approx(difference, abs=1e-4)


def test_a_certain_candidate_that_adds_the_most_hypervolume_is_picked_first() -> None:
    rng = np.random.default_rng(3)
    corner = np.array([1.0, 1.0])
    known = rng.random((12, 2))
    known = known[front(known)]
    points = 0.8 * rng.random((60, 2))
    gains = [hypervolume(np.vstack([known, point]), corner) for point in points]
    predictions = Predictions(np.repeat(points[:, :1], 2, axis=1), points[:, 0], points[:, 1:])
    picked = choose_batch(predictions, known, corner, 5, rng=rng)
    assert len(set(picked.tolist())) == 5
    assert gains[picked[0]] >= np.quantile(gains, 0.95)


def test_of_equal_medians_the_uncertain_candidate_is_worth_more() -> None:
    quantiles = np.array([[0.5, 0.5], [0.1, 0.9]])
    predictions = Predictions(quantiles, np.array([0.5, 0.5]), np.zeros((2, 0)))
    picked = choose_batch(predictions, np.array([[0.4]]), np.array([1.0]), 2, rng=np.random.default_rng(0))
    assert picked.tolist() == [1, 0]


def test_networks_that_do_not_learn_do_not_move_the_corner() -> None:
    learning = np.linspace(0.1, 0.3, 21)
    alone, beside = (
        corner_of(np.append(learning, [failed] * 2)[:, None], np.zeros((1, 0)))[0] for failed in (0.9, 90.0)
    )
    assert alone == beside < 1.0


def test_the_corner_leaves_room_for_the_fastest_and_for_the_slowest() -> None:
    """Fast networks err more than most candidates do, and the slowest one can be the best."""
    evaluated = np.array([[0.40, 1.0], [0.16, 2.0], [0.12, 4.0], [0.10, 6.0], [0.11, 5.0], [0.10, 7.0]])
    corner = corner_of(evaluated, np.array([[1.0], [5.0], [9.0]]))
    assert corner[0] > 0.16
    assert corner[1] == 9.0


def test_the_shortlist_keeps_what_lies_below_the_front() -> None:
    known = np.array([[0.5, 1.0], [0.2, 3.0]])
    medians, others = np.array([0.45, 0.9, 0.19, 0.6]), np.array([[1.0], [1.0], [3.5], [2.0]])
    assert set(shortlist(medians, others, known, 2).tolist()) == {0, 2}


def test_first_candidates_reach_from_the_fastest_to_the_slowest_with_balanced_options() -> None:
    problem = grid_problem(("accuracy", "cost"))
    design = spread_sample(Variation(problem, np.random.default_rng(0)), 20)
    everything = cost(sampled(4000))
    everything = everything[everything <= 14.0]
    assert len(np.unique(design, axis=0)) == 20
    assert (problem.violations(design) == 0).all()
    assert cost(design).min() <= np.quantile(everything, 0.02)
    assert cost(design).max() >= np.quantile(everything, 0.98)
    for gene, count in enumerate(COUNTS[:4]):
        assert np.bincount(design[:, gene], minlength=count).min() > 0


def residue(genomes: np.ndarray) -> np.ndarray:
    """What no gene tells by itself."""
    return (genomes[:, 1:6].sum(axis=1) % 4).astype(float)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_search_learns_from_traits_what_its_genes_do_not_say(seed: int) -> None:
    found = []
    for traits in (None, lambda genomes: residue(genomes)[:, None]):
        problem = Problem(GridSpace(), traits=traits)
        strategy = Evolution(problem, seed=seed, evaluations=60)
        while len(strategy.history) < 60:
            genomes = strategy.ask(min(strategy.generation_size, 60 - len(strategy.history)))
            strategy.tell(genomes, -(accuracy(genomes) + 0.2 * residue(genomes))[:, None])
        found.append(strategy.history.objectives[:, 0])
    without, told = (np.sort(one)[:20].mean() for one in found)
    assert told < without


def test_a_surrogate_that_is_wrong_and_sure_does_not_choose_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stubborn(self: Adviser, history: object, seen: Seen, breed: object, n: int) -> np.ndarray:
        left = self._everything.genomes[~np.array(seen.contains(self._everything.genomes))]
        return left[left[:, 0] == 0][:n]

    monkeypatch.setattr(Adviser, "advise", stubborn)
    strategy = Evolution(grid_problem(("accuracy",)), seed=0, evaluations=200)
    while len(strategy.history) < 100:
        genomes = strategy.ask()
        strategy.tell(genomes, -accuracy(genomes)[:, None])
    later = strategy.history.genomes[FIRST:]
    assert 3 <= (later[:, 0] == 1).sum() <= 20


def best_of(kind: type[Strategy], seed: int) -> float:
    strategy = kind(grid_problem(("accuracy",)), seed=seed, evaluations=60)
    while len(strategy.history) < 60:
        genomes = strategy.ask(min(strategy.generation_size, 60 - len(strategy.history)))
        strategy.tell(genomes, -accuracy(genomes)[:, None])
    return float(strategy.history.objectives[:, 0].min())


def test_sixty_evaluations_with_a_surrogate_find_the_optimum_that_random_ones_miss() -> None:
    grid = np.indices(COUNTS).reshape(len(COUNTS), -1).T
    optimum = -accuracy(grid[cost(grid) <= 14.0]).max()
    assert best_of(Evolution, 0) == pytest.approx(optimum)
    assert best_of(RandomSearch, 0) > optimum
