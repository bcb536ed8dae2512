"""Two samples: the tests agree with scipy, statsmodels and paper arithmetic, one pair at a time and many at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.weightstats import CompareMeans, ttost_ind, ttost_paired

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics.two_samples import (
    Samples,
    differences,
    hedges_g,
    paired,
    paired_difference,
    paired_hedges_g,
    tost,
    welch,
)

SAMPLES = [
    (np.random.default_rng(s).normal(0.3, 1.0, n), np.random.default_rng(s + 99).normal(0, 2.0, m))
    for s, (n, m) in enumerate([(4, 4), (4, 7), (2, 3), (12, 5)])
]


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welch_agrees_with_statsmodels(a, b):
    ours, theirs = welch(a, b), CompareMeans.from_data(a, b)
    t, p, df = theirs.ttest_ind(usevar="unequal")
    assert (ours.t, ours.p_value, ours.df) == pytest.approx((t, p, df))
    assert (ours.ci_low, ours.ci_high) == pytest.approx(theirs.tconfint_diff(usevar="unequal"))


def test_welch_agrees_with_paper_arithmetic():
    # a: mean 2, variance 1; b: mean 6, variance 4; so se² = 1/3 + 4/3 and df = (5/3)² / ((1/3)²/2 + (4/3)²/2)
    test = welch([1, 2, 3], [4, 6, 8])
    assert (test.difference, test.t) == (-4, pytest.approx(-4 / math.sqrt(5 / 3)))
    assert test.df == pytest.approx((25 / 9) / (17 / 18))
    assert test.ci_high + 4 == pytest.approx(stats.t.ppf(0.975, test.df) * math.sqrt(5 / 3))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.5], [0.1, 0.2]),
        ([], [0.1, 0.2]),
        ([0.7, 0.7, 0.7], [0.1, 0.1]),
        ([0.1 + 0.2, 0.3], [0.5, 0.5]),
        ([0.1, np.nan, 0.2], [0.1, 0.2]),
    ],
)
def test_what_cannot_be_tested_gives_nan_and_no_error(a, b):
    assert math.isnan(welch(a, b).p_value)
    assert math.isnan(hedges_g(a, b).g)
    assert math.isnan(tost(a, b, margin=1.0))


@pytest.mark.filterwarnings("error")
def test_one_side_without_variance_is_tested_without_a_warning():
    test = welch([0.9, 0.9, 0.9], [0.1, 0.2, 0.3])
    assert (test.t, test.df) == (pytest.approx(0.7 / math.sqrt(0.01 / 3)), pytest.approx(2))


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_hedges_g_agrees_with_statsmodels(a, b):
    g, _ = effectsize_smd(a.mean(), a.std(ddof=1), len(a), b.mean(), b.std(ddof=1), len(b))
    assert hedges_g(a, b).g == pytest.approx(g, rel=0.02)  # theirs approximates the correction by 1 − 3/(4 df − 1)


@pytest.mark.parametrize("shift", [0.0, 1.0, 3.0, 50.0])
def test_the_interval_of_hedges_g_holds_zero_exactly_when_students_t_is_not_significant(shift):
    a, b = SAMPLES[0][0] + shift, SAMPLES[0][1]
    effect = hedges_g(a, b)
    assert effect.ci_low < effect.g < effect.ci_high
    assert (effect.ci_low <= 0 <= effect.ci_high) == (stats.ttest_ind(a, b).pvalue >= 0.05)


def test_the_interval_of_hedges_g_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    correction = math.gamma(3) / (math.gamma(2.5) * math.sqrt(3))  # of 4 against 4
    draws = [hedges_g(rng.normal(1.5, 1, 4), rng.normal(0, 1, 4)) for _ in range(500)]
    covered = np.mean([e.ci_low / correction < 1.5 < e.ci_high / correction for e in draws])
    assert abs(covered - 0.95) < 3 * math.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize(("a", "b"), SAMPLES)
@pytest.mark.parametrize("margin", [0.1, 1.0, 5.0])
def test_tost_is_the_larger_of_two_shifted_one_sided_welch_tests(a, b, margin):
    lower = stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    upper = stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    assert tost(a, b, margin) == pytest.approx(max(lower, upper))


# --- many at once ---

UNTESTABLE = [[0.5], [], [0.7, 0.7, 0.7], [0.1 + 0.2, 0.3], [0.1, np.nan, 0.2], [0.1, np.inf]]
MANY = [values for pair in SAMPLES for values in pair] + UNTESTABLE
PAIRS = np.array([(i, j) for i in range(len(MANY)) for j in range(len(MANY)) if i != j])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "test", [welch, hedges_g, lambda a, b: tost(a, b, margin=0.7)], ids=["welch", "hedges_g", "tost"]
)
def test_many_pairs_at_once_give_what_each_pair_gives_alone(test):
    shuffled = np.random.default_rng(0).permutation(sum(map(len, MANY)))
    values, owner = np.concatenate(MANY)[shuffled], np.repeat(np.arange(len(MANY)), list(map(len, MANY)))[shuffled]
    samples = Samples.grouped(values, owner, len(MANY))
    together = test(samples[PAIRS[:, 0]], samples[PAIRS[:, 1]])
    alone = [test(MANY[i], MANY[j]) for i, j in PAIRS]
    if test in (welch, hedges_g):
        together, alone = np.transpose(list(vars(together).values())), [list(vars(one).values()) for one in alone]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_a_sample_knows_its_number_mean_and_variance():
    samples = Samples.grouped([1, 2, 3, 10, 5, 5], [0, 0, 0, 1, 3, 3], 4)  # (1 + 0 + 1) / 2 = 1
    np.testing.assert_array_equal(samples.n, [3, 1, 0, 2])
    np.testing.assert_array_equal(samples.mean, [2, 10, np.nan, 5])
    np.testing.assert_array_equal(samples.variance, [1, np.nan, np.nan, 0])


def test_one_pair_gives_plain_numbers():
    assert {type(value) for value in vars(welch([1, 2, 3], [4, 6, 8])).values()} == {int, float}


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welch_agrees_with_scipy_on_either_side(a, b):
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert (welch(a, b).t, welch(a, b).p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (welch(b, a).t, welch(b, a).p_value) == pytest.approx((-theirs.statistic, theirs.pvalue))


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_swapping_the_sides_turns_the_effect_and_its_interval_round(a, b):
    there, back = hedges_g(a, b), hedges_g(b, a)
    assert (there.g, there.ci_low, there.ci_high) == pytest.approx((-back.g, -back.ci_high, -back.ci_low), rel=1e-5)


@pytest.mark.parametrize(("a", "b"), SAMPLES)
@pytest.mark.parametrize("margin", [0.1, 1.0, 5.0])
def test_tost_agrees_with_statsmodels(a, b, margin):
    assert tost(a, b, margin) == pytest.approx(ttost_ind(a, b, -margin, margin, usevar="unequal")[0])


def test_seeds_that_hardly_differ_have_an_effect_with_an_interval():
    a, b = np.array([0.9, 0.9, 0.9 + 1e-9, 0.9]), np.array([0.1, 0.1, 0.1 + 1e-9, 0.1])  # scipy alone never returns
    effect = hedges_g(a, b)
    assert 0 < effect.ci_low < effect.g < effect.ci_high < math.inf


# --- paired ---


@pytest.mark.parametrize("n", [2, 4, 11])
def test_the_paired_test_agrees_with_scipy(n):
    a, b = np.random.default_rng(n).normal([[0.3], [0.0]], 1.0, (2, n))
    ours, theirs = paired(a, b), stats.ttest_rel(a, b)
    assert (ours.n, ours.t, ours.df, ours.p_value) == pytest.approx((n, theirs.statistic, theirs.df, theirs.pvalue))
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_the_paired_test_agrees_with_paper_arithmetic():
    # differences 1, 2, 3: mean 2, variance 1, so t = 2 / √(1/3) with 2 degrees of freedom
    test = paired([5, 7, 9], [4, 5, 6])
    assert (test.difference, test.df, test.t) == (2, 2, pytest.approx(2 * math.sqrt(3)))


@pytest.mark.parametrize(
    ("a", "b"),
    [([1.0], [2.0]), ([], []), ([1, np.nan], [1, 2]), ([0.3, 0.7, 0.9], [0.1, 0.5, 0.7]), ([0.1 + 0.2, 1], [0.3, 1])],
)
def test_pairs_that_cannot_be_tested_give_nan(a, b):
    assert math.isnan(paired(a, b).p_value)


def test_sides_of_different_length_have_no_pairs():
    with pytest.raises(RunError, match="found 2 values against 3"):
        paired([1, 2], [1, 2, 3])


PAIRS_OF_SIX = np.random.default_rng(5).normal([[0.3], [0.0]], 1.0, (2, 6)) + np.random.default_rng(6).normal(0, 2, 6)


def of_one_pair(a: np.ndarray, b: np.ndarray) -> Samples:
    return differences(a, b, np.zeros(len(a), int), 1)[0]


@pytest.mark.parametrize("margin", [0.1, 0.5, 3.0])
def test_equivalence_in_pairs_agrees_with_statsmodels(margin):
    ours = paired_difference(of_one_pair(*PAIRS_OF_SIX)).p_tost(margin)
    assert ours == pytest.approx(ttost_paired(*PAIRS_OF_SIX, -margin, margin)[0])


@pytest.mark.parametrize("level", [0.05, 0.0052, 0.0125])
def test_an_interval_at_a_level_holds_zero_exactly_if_p_is_above_the_level(level):
    test = paired_difference(of_one_pair(*PAIRS_OF_SIX))
    low, high = test.interval(1 - level)
    theirs = stats.ttest_rel(*PAIRS_OF_SIX).confidence_interval(1 - level)
    assert (low, high) == pytest.approx(tuple(theirs))
    assert (low <= 0 <= high) == (test.p_value >= level)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 5.0])
def test_the_effect_of_pairs_is_on_the_scale_of_one_arm_and_its_interval_is_that_of_the_paired_test(shift):
    a, b = PAIRS_OF_SIX[0] + shift, PAIRS_OF_SIX[1]
    effect = paired_hedges_g(Samples.of(a), Samples.of(b), of_one_pair(a, b))
    correction = math.gamma(2.5) / (math.gamma(2) * math.sqrt(2.5))  # 5 degrees of freedom
    assert effect.g == pytest.approx(correction * (a - b).mean() / math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    assert effect.ci_low < effect.g < effect.ci_high
    assert (effect.ci_low <= 0 <= effect.ci_high) == (stats.ttest_rel(a, b).pvalue >= 0.05)


def test_the_interval_of_the_effect_of_pairs_covers_the_truth_as_often_as_it_says():
    rng, n = np.random.default_rng(0), 2000
    shared = rng.normal(0, 1.5, (n, 6))
    a, b = shared + rng.normal(1.0, 1.0, (n, 6)), shared + rng.normal(0.0, 1.0, (n, 6))
    study = np.repeat(np.arange(n), 6)
    sides = [Samples.grouped(values.ravel(), study, n) for values in (a, b)]
    effect = paired_hedges_g(*sides, differences(a.ravel(), b.ravel(), study, n))
    truth = 1.0 / math.sqrt(1.5**2 + 1.0)
    correction = math.gamma(2.5) / (math.gamma(2) * math.sqrt(2.5))
    covered = np.mean((effect.ci_low < correction * truth) & (correction * truth < effect.ci_high))
    assert 0.92 < covered < 0.97  # approximate: the standard deviation of the arms is estimated
