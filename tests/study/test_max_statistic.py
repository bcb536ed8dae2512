"""p-values for many scores at once: against scipy and a plain transcription, and how often a null study has a valid score."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from ssl_transfer.study.statistics import max_statistic
from ssl_transfer.study.statistics.max_statistic import (
    permutation_p,
    permutations,
    permuted_kendall,
    restricted,
    simultaneous_p,
)


def test_few_objects_have_all_their_orders_and_many_have_drawn_ones_after_the_observed():
    assert sorted(map(tuple, permutations(4))) == sorted(itertools.permutations(range(4)))
    drawn = permutations(12)
    assert drawn.shape == (5040, 12) and drawn[0].tolist() == list(range(12))
    assert (np.sort(drawn, axis=1) == np.arange(12)).all() and len(np.unique(drawn, axis=0)) == 5040
    assert (permutations(12) == drawn).all() and (permutations(12, seed=1) != drawn).any()


def test_orders_of_some_objects_follow_those_of_all():
    orders = restricted(np.array([[0, 1, 2, 3], [3, 0, 2, 1]]), np.array([0, 1, 3]))
    assert orders.tolist() == [[0, 1, 2], [2, 0, 1]]


def test_kendall_under_every_permutation_is_that_of_scipy_with_ties_and_missing_scores():
    rng = np.random.default_rng(0)
    scores, outcome = rng.integers(0, 4, (3, 6)).astype(float), rng.integers(0, 4, 6).astype(float)
    scores[1, 2] = np.nan
    orders = permutations(6)[::37]
    ours = permuted_kendall(scores, outcome, orders)
    for row, order in zip(ours, orders, strict=True):
        for tau, score in zip(row, scores, strict=True):
            has = np.isfinite(score)
            assert tau == pytest.approx(kendalltau(score[has], outcome[order][has]).statistic, nan_ok=True)


def test_p_values_are_those_of_a_plain_loop_over_all_permutations():
    rng = np.random.default_rng(1)
    outcome = rng.normal(size=5)
    scores = np.stack([outcome + 0.4 * rng.normal(size=5), rng.normal(size=5), -outcome])
    every = [
        [abs(kendalltau(score, outcome[list(order)]).statistic) for score in scores]
        for order in itertools.permutations(range(5))
    ]
    observed = [abs(kendalltau(score, outcome).statistic) for score in scores]
    taus = permuted_kendall(scores, outcome, permutations(5))
    alone = [np.mean([row[k] >= observed[k] - 1e-9 for row in every]) for k in range(3)]
    together = [np.mean([max(row) >= observed[k] - 1e-9 for row in every]) for k in range(3)]
    assert permutation_p(taus) == pytest.approx(alone)
    assert simultaneous_p(taus) == pytest.approx(together)
    assert simultaneous_p(taus)[2] > permutation_p(taus)[2] == pytest.approx(2 / math.factorial(5))


def test_a_constant_score_has_no_p_value_and_takes_no_part():
    rng = np.random.default_rng(0)
    scores, outcome = np.stack([np.ones(5), rng.normal(size=5)]), rng.normal(size=5)
    p = simultaneous_p(permuted_kendall(scores, outcome, permutations(5)))
    assert math.isnan(p[0]) and p[1] == permutation_p(permuted_kendall(scores[1:], outcome, permutations(5)))[0]


@pytest.mark.parametrize("n", [5, 6, 9])
@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_in_null_studies_any_of_ten_scores_is_significant_in_at_most_five_percent(n, shared, monkeypatch):
    monkeypatch.setattr(max_statistic, "MOST_PERMUTATIONS", 720)
    rng, orders, studies = np.random.default_rng(n), permutations(n), 600
    any_valid = any_alone = 0
    for _ in range(studies):
        scores = shared * rng.normal(size=n) + math.sqrt(1 - shared**2) * rng.normal(size=(10, n))
        taus = permuted_kendall(scores, rng.normal(size=n), orders)
        any_valid += simultaneous_p(taus).min() < 0.05
        any_alone += permutation_p(taus).min() < 0.05
    assert any_valid / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert any_alone / studies > 0.08


def test_random_initialisation_alone_makes_scores_that_know_nothing_look_valid():
    rng, orders, studies = np.random.default_rng(0), permutations(7), 200
    with_random = without = 0
    for _ in range(studies):
        scores, outcome = rng.normal(size=(10, 7)), rng.normal(size=7)
        scores[:, :2] -= 9  # two arms that are random initialisation, of two architectures
        outcome[:2] -= 9
        with_random += simultaneous_p(permuted_kendall(scores, outcome, orders)).min() < 0.05
        without += simultaneous_p(permuted_kendall(scores[:, 2:], outcome[2:], permutations(5))).min() < 0.05
    assert without / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert with_random / studies > 0.1
