"""Seeds and patients together: held against the analysis of variance, published formulas, and simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from ssl_transfer.study.statistics import ResampledUnits, crossed_interval, probability_of_false_outperformance

COUNTS: dict[tuple, np.ndarray] = {}


def counts(patients: int, resamples: int) -> np.ndarray:
    """How often each patient is drawn, (patients, resamples)."""
    key = (patients, resamples)
    if key not in COUNTS:
        rng = np.random.default_rng(0)
        COUNTS[key] = rng.multinomial(patients, np.full(patients, 1 / patients), size=resamples).T
    return COUNTS[key]


def units(cases: np.ndarray, resamples: int = 2000) -> ResampledUnits:
    """The mean over cases of each seed, (seeds, cases), a case per patient."""
    return ResampledUnits(cases.mean(1), cases @ counts(cases.shape[1], resamples) / cases.shape[1])


def study(rng, seeds, patients, *, of_seeds=1.0, of_patients=0.0, of_both=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of cases of two equal arms, (seeds, patients) each; the differences have the stated standard deviations."""
    shared = rng.normal(size=(1, patients))
    difference = (
        of_seeds * rng.normal(size=(seeds, 1))
        + of_patients * rng.normal(size=(1, patients))
        + of_both * rng.normal(size=(seeds, patients))
    )
    return shared + difference, np.broadcast_to(shared, difference.shape)


def test_the_variance_of_a_mean_is_that_of_the_analysis_of_variance():
    a, b = study(np.random.default_rng(0), 6, 40, of_seeds=1, of_patients=4, of_both=6)
    ours = crossed_interval(units(a, 20_000), units(b, 20_000), 40, paired=True)
    table = pd.DataFrame(
        {"d": (a - b).ravel(), "seed": np.repeat(np.arange(6), 40), "patient": np.tile(np.arange(40), 6)}
    )
    squares = anova_lm(ols("d ~ C(seed) + C(patient)", table).fit())["mean_sq"]
    of_patients = (squares["C(patient)"] - squares["Residual"]) / (6 * 40)
    assert ours.se_seeds**2 == pytest.approx(squares["C(seed)"] / (6 * 40))
    assert ours.se_patients**2 == pytest.approx(of_patients, rel=0.05)


def test_of_one_model_each_the_false_probability_is_that_of_claims_reloaded():
    a, b = study(np.random.default_rng(3), 1, 50, of_seeds=0.1, of_patients=0, of_both=0.7)
    ours = crossed_interval(units(a, 20_000), units(b, 20_000), 50, paired=True)
    (x, y), n = (a[0], b[0]), 50
    of_difference = x.var(ddof=1) + y.var(ddof=1) - 2 * x.std(ddof=1) * y.std(ddof=1) * np.corrcoef(x, y)[0, 1]
    published = stats.t.cdf(-math.sqrt(n) * abs(x.mean() - y.mean()) / math.sqrt(of_difference), n - 1)
    assert ours.p_false_patients == pytest.approx(published, abs=0.01)
    assert published == pytest.approx(stats.ttest_rel(x, y).pvalue / 2)


def test_of_accuracies_the_false_probability_is_near_the_dirichlet_posterior_of_claims_reloaded():
    only_a, only_b, both, n = 24, 13, 60, 120  # images that one model, or both, classify correctly
    a = np.r_[np.ones(only_a), np.zeros(only_b), np.ones(both), np.zeros(n - only_a - only_b - both)][None]
    b = np.r_[np.zeros(only_a), np.ones(only_b), np.ones(both), np.zeros(n - only_a - only_b - both)][None]
    posterior = np.random.default_rng(0).dirichlet([only_a + 1, only_b + 1, n - only_a - only_b + 2], 200_000)
    published = (posterior[:, 0] <= posterior[:, 1]).mean()
    ours = crossed_interval(units(a, 20_000), units(b, 20_000), n, paired=True)
    assert ours.p_false_patients == pytest.approx(published, abs=0.012)


def test_the_false_probability_is_half_of_the_two_sided_p_value_and_at_most_a_half():
    a, b = study(np.random.default_rng(0), 5, 30, of_patients=2, of_both=2)
    test = crossed_interval(units(a), units(b), 30, paired=True)
    assert test.p_false == pytest.approx(test.p_value / 2) and test.p_false < 0.5
    assert probability_of_false_outperformance(0.0, 1.0, 5) == 0.5
    assert probability_of_false_outperformance(-2.0, 1.0, 5) == probability_of_false_outperformance(2.0, 1.0, 5)


def test_without_variance_between_patients_the_test_is_the_paired_t_test_over_seeds():
    rng = np.random.default_rng(0)
    a, b = np.repeat(rng.normal(0.3, 1, (6, 1)), 20, 1), np.repeat(rng.normal(0, 1, (6, 1)), 20, 1)
    ours, scipy = crossed_interval(units(a), units(b), 20, paired=True), stats.ttest_rel(a[:, 0], b[:, 0])
    interval = scipy.confidence_interval(0.95)
    assert (ours.p_value, ours.df) == pytest.approx((scipy.pvalue, 5))
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high))


def test_without_variance_between_patients_the_unpaired_test_is_welch():
    rng = np.random.default_rng(0)
    a, b = np.repeat(rng.normal(0.3, 1, (6, 1)), 20, 1), np.repeat(rng.normal(0, 3, (9, 1)), 20, 1)
    ours, scipy = (
        crossed_interval(units(a), units(b), 20, paired=False),
        stats.ttest_ind(a[:, 0], b[:, 0], equal_var=False),
    )
    assert (ours.p_value, ours.df) == pytest.approx((scipy.pvalue, scipy.df))


SETTINGS = [(1, 0, 0), (1, 4, 0), (1, 0, 8), (1, 8, 8), (0.05, 4, 4)]


@pytest.mark.parametrize("seeds", [4, 12])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("paired", [True, False])
def test_intervals_over_seeds_and_patients_cover_the_truth(seeds, setting, paired):
    names, rng, hits = ("of_seeds", "of_patients", "of_both"), np.random.default_rng(seeds), 0
    for _ in range(400):
        a, b = study(rng, seeds, 40, **dict(zip(names, setting, strict=True)))
        if not paired:
            b = b + study(rng, seeds, 40, **dict(zip(names, setting, strict=True)))[0] - b.mean()
        test = crossed_interval(units(a, 300), units(b, 300), 40, paired=paired)
        hits += test.ci_low <= 0 <= test.ci_high
    assert 0.92 <= hits / 400 <= 0.99


@pytest.mark.parametrize("paired", [True, False])
def test_two_seeds_that_happen_to_agree_say_no_more_with_patients_than_without(paired):
    rng = np.random.default_rng(4)
    of_cases = rng.normal(0, 0.02, (2, 1, 60))
    a = 0.6 + np.array([[0.0], [0.002]]) + of_cases[0]
    b = np.array([[0.0], [0.001]]) + of_cases[1]
    ours = crossed_interval(units(a), units(b), 60, paired=paired, confidence=0.99)
    test = (
        stats.ttest_rel(*map(seed_means, (a, b)))
        if paired
        else stats.ttest_ind(*map(seed_means, (a, b)), equal_var=False)
    )
    assert ours.df > 30  # seeds pass for equal: by Satterthwaite's degrees of freedom alone p would be smaller
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(test.confidence_interval(0.99)))
    assert (ours.p_value, ours.p_false) == pytest.approx((test.pvalue, test.pvalue / 2))


def seed_means(cases: np.ndarray) -> np.ndarray:
    return cases.mean(1)


def test_intervals_over_patients_alone_do_not_cover_what_other_seeds_would_give():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        a, b = study(rng, 4, 40, of_seeds=1, of_patients=0, of_both=1)
        test = crossed_interval(units(a, 300), units(b, 300), 40, paired=True)
        hits += test.patients_low <= 0 <= test.patients_high
    assert hits / 200 < 0.4


@pytest.mark.parametrize(("seeds", "patients"), [(1, 20), (4, 1)])
def test_one_seed_says_nothing_of_seeds_and_one_patient_nothing_at_all(seeds, patients):
    a, b = study(np.random.default_rng(0), seeds, patients, of_both=1)
    test = crossed_interval(units(a), units(b), patients, paired=True)
    assert np.isnan([test.ci_low, test.p_false, test.df]).all()
    assert math.isnan(test.patients_low) == (patients == 1)


def test_equal_seeds_and_equal_patients_up_to_rounding_decide_nothing():
    steps = np.array([0.1, 0.2, 0.3, 0.7])[:, None]  # 0.1 + 0.2 - 0.2 is not 0.1
    a, b = np.repeat(steps + 0.1, 30, 1), np.repeat(steps, 30, 1)
    test = crossed_interval(units(a), units(b), 30, paired=True)
    assert test.difference == pytest.approx(0.1)
    assert np.isnan([test.p_value, test.p_false, test.p_false_patients, test.ci_low]).all()


def test_resamples_in_which_the_metric_is_undefined_are_left_out():
    a, b = study(np.random.default_rng(0), 4, 30, of_patients=1, of_both=1)
    first, second = units(a), units(b)
    holed = ResampledUnits(first.value, np.where(np.arange(2000) < 500, np.nan, first.drawn))
    kept = ResampledUnits(first.value, first.drawn[:, 500:]), ResampledUnits(second.value, second.drawn[:, 500:])
    assert crossed_interval(holed, second, 30, paired=True) == crossed_interval(*kept, 30, paired=True)
    empty = ResampledUnits(first.value, np.where(np.arange(2000) < 1500, np.nan, first.drawn))
    assert math.isnan(crossed_interval(empty, second, 30, paired=True).ci_low)
