"""What a design can detect agrees with statsmodels, scipy and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats
from statsmodels.stats.power import TTestIndPower, TTestPower

from ssl_transfer.study.statistics import (
    minimal_detectable_effect,
    paired_detectable_effect,
    paired_seeds_needed,
    seeds_needed,
)
from ssl_transfer.study.statistics.detectable import MOST_SEEDS, noncentrality


@pytest.mark.parametrize(("n_a", "n_b", "power", "alpha"), [(4, 4, 0.8, 0.05), (10, 5, 0.9, 0.01), (50, 50, 0.8, 0.05)])
def test_the_minimal_detectable_effect_has_the_power_it_claims(n_a, n_b, power, alpha):
    effect = minimal_detectable_effect(n_a, n_b, power, alpha)
    assert TTestIndPower().power(effect, n_a, alpha, ratio=n_b / n_a) == pytest.approx(power, abs=1e-4)


def test_four_against_four_detects_two_point_four_standard_deviations():
    assert minimal_detectable_effect(4, 4) == pytest.approx(2.38, abs=0.005)
    assert math.isnan(minimal_detectable_effect(4, 1))


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0, 1.73, 2.5, 4.0])
@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.9, 0.01)])
def test_the_seeds_needed_agree_with_statsmodels(effect, power, alpha):
    theirs = TTestIndPower().solve_power(effect, power=power, alpha=alpha, ratio=1)
    assert seeds_needed(effect, power, alpha) == math.ceil(theirs)


@pytest.mark.parametrize("n", [2, 3, 4, 10, 100])
def test_the_seeds_needed_invert_the_minimal_detectable_effect(n):
    effect = minimal_detectable_effect(n, n)
    assert seeds_needed(effect) == n
    assert seeds_needed(-effect * 0.999) == n + 1


@pytest.mark.parametrize("effect", [0.0, math.nan, minimal_detectable_effect(MOST_SEEDS, MOST_SEEDS) * 0.99])
def test_no_number_of_seeds_detects_an_effect_of_zero(effect):
    assert seeds_needed(effect) is None


def test_a_huge_effect_still_needs_two_seeds_a_side():
    assert seeds_needed(math.inf) == 2


# --- pairs ---


@pytest.mark.parametrize(
    ("n", "power", "alpha"), [(4, 0.8, 0.05), (6, 0.9, 0.0045), (16, 0.8, 0.0333), (60, 0.8, 0.05)]
)
def test_the_paired_detectable_effect_has_the_power_it_claims(n, power, alpha):
    effect = paired_detectable_effect(n, power, alpha)
    assert TTestPower().power(effect, n, alpha / 2, alternative="larger") == pytest.approx(power, abs=1e-4)


def test_the_paired_detectable_effect_is_found_as_often_in_simulated_studies():
    effect = paired_detectable_effect(6, 0.8, 0.0125)
    values = np.random.default_rng(0).normal(effect, 1.0, (20_000, 6))
    assert np.mean(stats.ttest_1samp(values, 0.0, axis=1).pvalue < 0.0125) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("n", [2, 3, 8, 50])
def test_the_pairs_needed_invert_the_paired_detectable_effect(n):
    effect = paired_detectable_effect(n, alpha=0.01)
    assert paired_seeds_needed(effect, alpha=0.01) == n
    assert paired_seeds_needed(-effect * 0.999, alpha=0.01) == n + 1
    assert (paired_seeds_needed(0.0), math.isnan(paired_detectable_effect(1))) == (None, True)


# --- the noncentral t far out ---


@pytest.mark.parametrize("df", [2, 6, 30])
@pytest.mark.parametrize("p", [0.025, 0.975])
@pytest.mark.parametrize("t", [99.0, -99.0])
def test_the_far_formula_meets_scipy_where_it_takes_over(df, p, t):
    beyond = noncentrality(df, p, math.copysign(100.001, t)) * abs(t) / 100.001
    assert beyond == pytest.approx(special.nctdtrinc(df, p, t), rel=2e-4)
