"""Multiple comparisons with the best: its critical values, its errors on simulated studies, and its power."""

import numpy as np
import pytest
from scipy import stats

from ssl_transfer.measures.comparison_with_best import may_be_best

PATIENTS, RESAMPLES, STUDIES = 24, 100, 1000


def samples_with(covariance, resamples, units):
    """Bootstrap samples around 0 whose covariance, corrected for the number of units, is exactly this one."""
    draws = np.random.default_rng(0).normal(size=(len(covariance), resamples))
    draws -= draws.mean(1, keepdims=True)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(draws)), draws)
    return np.linalg.cholesky(np.asarray(covariance) * (units - 1) / units) @ white


def study(rng, means, correlation=0.5):
    """Means over patients of candidates with these expected values, and the means of bootstrap samples of the patients."""
    common, own = rng.normal(size=(PATIENTS, 1)), rng.normal(size=(PATIENTS, len(means)))
    scores = np.asarray(means) + correlation**0.5 * common + (1 - correlation) ** 0.5 * own
    counts = rng.multinomial(PATIENTS, np.full(PATIENTS, 1 / PATIENTS), size=RESAMPLES)
    return scores.mean(0), (counts @ scores / PATIENTS).T


def left(means, studies=STUDIES, **options):
    """Which candidates are left in each simulated study, (studies, K)."""
    rng = np.random.default_rng(0)
    return np.stack([may_be_best(*study(rng, means, **options), PATIENTS) for _ in range(studies)])


@pytest.mark.parametrize("advantage", [0.98, 1.02])
def test_two_candidates_are_compared_by_a_two_sided_t_test(advantage):
    units, resamples = 13, 41
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    freedom = 1 / (1 / (units - 1) + 1 / (resamples - 1))
    critical = stats.t.ppf(0.975, freedom) * (1.0 + 0.5 - 2 * 0.3) ** 0.5
    possible = may_be_best(
        np.array([advantage * critical, 0.0]), samples_with(covariance, resamples, units), units, alpha=0.05
    )
    assert possible.tolist() == [True, advantage < 1]


@pytest.mark.parametrize("advantage", [0.98, 1.02])
def test_several_candidates_are_compared_by_the_maximum_of_a_multivariate_t_distribution(advantage):
    """With equal variances and no correlation, differences from one candidate are correlated by one half."""
    units, resamples, count = 25, 61, 4
    freedom = 1 / (1 / (units - 1) + 1 / (resamples - 1))
    correlation = 0.5 + 0.5 * np.eye(count - 1)
    law = stats.multivariate_t(np.zeros(count - 1), correlation, df=freedom, seed=0)
    grid = np.linspace(2, 3, 101)
    critical = grid[np.searchsorted([law.cdf(np.full(count - 1, x)) for x in grid], 0.975)]
    values = advantage * critical * 2**0.5 * np.array([1.0, 1.0, 0.0, 0.0])
    possible = may_be_best(values, samples_with(np.eye(count), resamples, units), units, alpha=0.05)
    assert possible.tolist() == 2 * [True] + 2 * [advantage < 1]


@pytest.mark.parametrize("advantage", [0.98, 1.02])
def test_the_first_of_several_is_left_alone_if_it_beats_each_of_them_in_a_two_sided_t_test(advantage):
    units, resamples, count = 25, 61, 6
    critical = stats.t.ppf(0.975, 1 / (1 / (units - 1) + 1 / (resamples - 1)))
    values = advantage * critical * 2**0.5 * np.eye(count)[2]
    possible = may_be_best(values, samples_with(np.eye(count), resamples, units), units, alpha=0.05)
    assert (possible.sum() == 1) == (advantage > 1) and possible[2]


@pytest.mark.parametrize("shape", ["in the middle of two", "twins", "apart by different distances", "a wide one"])
def test_no_dependence_between_equal_candidates_makes_single_winners_more_frequent_than_with_two(shape):
    """Exact errors of the rule on many draws of a normal distribution, with known standard errors."""
    loadings = {
        "in the middle of two": [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.2]],
        "twins": [[1.0, 0.0, 0.0], [1.0, 0.01, 0.0], [-1.0, 0.0, 0.0], [-1.0, 0.0, 0.01]],
        "apart by different distances": [[0.0, 0.0], [1.0, 0.1], [3.0, 0.2], [9.0, -0.1]],
        "a wide one": [[9.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    }[shape]
    directions = np.array(loadings)
    draws = np.random.default_rng(0).normal(size=(400_000, directions.shape[1])) @ directions.T
    errors = np.linalg.norm(directions[:, None] - directions, axis=2) + np.eye(len(directions))
    first = draws.argmax(1)
    advantages = (draws.max(1)[:, None] - draws) / errors[first]
    advantages[np.arange(len(draws)), first] = np.inf
    assert (advantages.min(1) > stats.norm.ppf(0.975)).mean() <= 0.05 + 3 * (0.05 * 0.95 / len(draws)) ** 0.5


@pytest.mark.parametrize(
    "means",
    [(0, 0), (0, 0, 0, 0, 0), (0, 0, -1, -1, -1), (0, 0, 0, -0.3, -0.3)],
    ids=["two equal", "five equal", "two equal and three worse", "three equal and two a little worse"],
)
@pytest.mark.parametrize("correlation", [pytest.param(0.0, marks=pytest.mark.long), 0.9])
def test_of_equally_good_candidates_a_single_one_is_left_in_at_most_5_percent_of_studies(means, correlation):
    single = (left(means, correlation=correlation).sum(1) == 1).mean()
    assert single <= 0.05 + 3 * (0.05 * 0.95 / STUDIES) ** 0.5


def test_the_best_of_five_is_excluded_in_at_most_5_percent_of_studies():
    excluded = (~left((0.0, -0.1, -0.1, -0.1, -0.1))[:, 0]).mean()
    assert excluded <= 0.05 + 3 * (0.05 * 0.95 / STUDIES) ** 0.5


def test_a_clear_difference_leaves_the_best_alone():
    """The difference is one standard deviation of the difference within a patient, in 24 patients."""
    possible = left((1.0, 0, 0, 0, 0), studies=300)
    assert (possible == [True, False, False, False, False]).all(1).mean() >= 0.9


def test_equal_candidates_under_two_names_both_remain():
    rng = np.random.default_rng(0)
    values, resampled = study(rng, (0, -3))
    possible = may_be_best(values[[0, 0, 1]], resampled[[0, 0, 1]], PATIENTS)
    assert possible.tolist() == [True, True, False]


def test_candidates_that_never_vary_are_ordered_by_their_values():
    assert may_be_best(np.array([1.0, 0.5]), np.array([[1.0] * 9, [0.5] * 9]), PATIENTS).tolist() == [True, False]


@pytest.mark.parametrize("units, resamples", [(1, 50), (50, 1)])
def test_without_an_estimate_of_the_variance_all_may_be_the_best(units, resamples):
    assert may_be_best(np.array([1.0, 0.0]), np.zeros((2, resamples)), units).all()
