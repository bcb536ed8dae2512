"""The statistics agree with scipy, statsmodels and paper arithmetic, and hold their level when nothing differs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics import (
    contrasts,
    hedges_g,
    holm,
    minimal_detectable_effect,
    seed_units,
    summary,
    tost,
    welch,
)

CONTRASTS = [  # DESIGN's contract, written out on purpose
    "protocol", "task", "strategy", "fraction", "noise", "noise_sigma", "metric", "a", "b", "boundary_a", "boundary_b",
    "unit", "n_a", "n_b", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "t", "df", "p_value", "p_holm", "p_tost",
    "hedges_g", "verdict",
]  # fmt: skip
SAMPLES = [
    (np.random.default_rng(s).normal(0.3, 1.0, n), np.random.default_rng(s + 99).normal(0, 2.0, m))
    for s, (n, m) in enumerate([(4, 4), (4, 7), (2, 3), (12, 5)])
]


def study(values: dict, **columns) -> pd.DataFrame:
    """A tidy frame: `values` maps arm -> {(pretraining_seed, seed): value}."""
    shared = {"protocol": "knn", "task": "t", "strategy": None, "fraction": 1.0, "metric": "accuracy"}
    rows = [
        {**shared, "pretraining": arm, "pretraining_seed": p, "seed": s, "value": v, "boundary": "", **columns}
        for arm, runs in values.items()
        for (p, s), v in runs.items()
    ]
    return pd.DataFrame(rows).astype({"pretraining_seed": "Int64", "seed": "Int64"})


def arm(*values) -> dict:
    """One run per pretraining seed."""
    return {(p, 0): value for p, value in enumerate(values)}


# --- two samples ---


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
        ([0.5], [0.1, 0.2]), ([], [0.1, 0.2]), ([0.7, 0.7, 0.7], [0.1, 0.1]), ([0.1 + 0.2, 0.3], [0.5, 0.5]),
        ([0.1, np.nan, 0.2], [0.1, 0.2]),
    ],
)  # fmt: skip
def test_what_cannot_be_tested_gives_nan_and_no_error(a, b):
    assert math.isnan(welch(a, b).p_value)
    assert math.isnan(hedges_g(a, b).g)
    assert math.isnan(tost(a, b, margin=1.0))


@pytest.mark.filterwarnings("error")
def test_one_side_without_spread_is_tested_without_a_warning():
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


def test_holm_agrees_with_hand_computation_and_leaves_nan_out_of_the_family():
    corrected = holm([0.01, np.nan, 0.04, 0.03, np.nan, 0.2])
    np.testing.assert_allclose(corrected, [0.04, np.nan, 0.09, 0.09, np.nan, 0.2])


def test_holm_agrees_with_statsmodels():
    p = np.random.default_rng(0).uniform(0, 0.2, 40).round(2)  # with ties
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_of_nothing_is_nothing():
    assert holm([]).size == 0
    assert np.isnan(holm([np.nan])).all()


@pytest.mark.parametrize(("a", "b"), SAMPLES)
@pytest.mark.parametrize("margin", [0.1, 1.0, 5.0])
def test_tost_is_the_larger_of_two_shifted_one_sided_welch_tests(a, b, margin):
    lower = stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    upper = stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    assert tost(a, b, margin) == pytest.approx(max(lower, upper))


@pytest.mark.parametrize(("n_a", "n_b", "power", "alpha"), [(4, 4, 0.8, 0.05), (10, 5, 0.9, 0.01), (50, 50, 0.8, 0.05)])
def test_the_minimal_detectable_effect_has_the_power_it_claims(n_a, n_b, power, alpha):
    effect = minimal_detectable_effect(n_a, n_b, power, alpha)
    assert TTestIndPower().power(effect, n_a, alpha, ratio=n_b / n_a) == pytest.approx(power, abs=1e-4)


def test_four_against_four_detects_two_point_four_standard_deviations():
    assert minimal_detectable_effect(4, 4) == pytest.approx(2.38, abs=0.005)
    assert math.isnan(minimal_detectable_effect(4, 1))


# --- contrasts ---


def test_the_columns_of_contrasts_are_exactly_the_documented_ones():
    frame = study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)})
    assert list(contrasts(frame).columns) == CONTRASTS
    assert list(contrasts(frame.iloc[:0]).columns) == CONTRASTS


def test_fine_tuning_seeds_are_averaged_within_their_pretraining_seed():
    nested = {(p, s): 0.7 + 0.01 * p + (0.05 if s else -0.05) for p in range(4) for s in range(2)}
    row = contrasts(study({"a": nested, "b": arm(0.5, 0.52, 0.54, 0.57)})).iloc[0]
    expected = welch([0.70, 0.71, 0.72, 0.73], [0.5, 0.52, 0.54, 0.57])
    assert (row.unit, row.n_a, row.n_b) == ("pretraining_seed", 4, 4)
    assert (row.p_value, row.df, row.difference) == pytest.approx((expected.p_value, expected.df, expected.difference))


@pytest.mark.parametrize("only_seed", [0, pd.NA])
def test_one_pretraining_per_side_is_tested_over_seeds_and_says_for_which_checkpoints(only_seed):
    a, b = [0.9, 0.91, 0.92], [0.5, 0.52, 0.51]
    frame = study(
        {"a": {(only_seed, s): v for s, v in enumerate(a)}, "b": {(only_seed, s): v for s, v in enumerate(b)}}
    )
    row = contrasts(frame).iloc[0]
    assert (row.unit, row.n_a, row.n_b) == ("seed", 3, 3)
    assert row.p_value == pytest.approx(welch(a, b).p_value)
    assert row.verdict == "better (for these two checkpoints)"


def test_a_side_with_several_pretrainings_keeps_them_as_units_beside_a_single_checkpoint():
    nested = {(p, s): 0.7 + 0.02 * p for p in range(4) for s in range(3)}
    row = contrasts(study({"a": nested, "b": {(pd.NA, s): 0.5 + 0.01 * s for s in range(3)}})).iloc[0]
    assert (row.unit, row.n_a, row.n_b) == ("seed", 4, 3)
    assert row.verdict == "better (for these two checkpoints)"


@pytest.mark.parametrize(
    ("values", "options", "verdict"),
    [
        ((arm(0.90, 0.91, 0.92), arm(0.50, 0.51, 0.53)), {}, "better"),
        ((arm(0.50, 0.51, 0.53), arm(0.90, 0.91, 0.92)), {}, "worse"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {}, "not decided"),
        ((arm(0.50, 0.51, 0.53), arm(0.51, 0.50, 0.54)), {"margin": 0.1}, "equivalent"),
        ((arm(0.500, 0.501, 0.502), arm(0.520, 0.521, 0.522)), {"margin": 0.1}, "equivalent and different"),
        ((arm(0.90, 0.91, 0.92), arm(0.50, 0.51, 0.53)), {"margin": 0.1}, "better"),
        ((arm(0.9, 0.9), arm(0.1, 0.1)), {"margin": 0.1}, "not decided"),
        ((arm(0.9), arm(0.1, 0.2)), {}, "not decided (for these two checkpoints)"),
    ],
)
def test_verdicts_follow_the_documented_rules(values, options, verdict):
    assert contrasts(study(dict(zip("ab", values, strict=True))), **options)["verdict"].item() == verdict


def test_a_lower_calibration_error_is_the_better_one():
    frame = study({"a": arm(0.90, 0.91, 0.92), "b": arm(0.50, 0.51, 0.53)}, metric="calibration_error")
    assert contrasts(frame)["verdict"].item() == "worse"


def test_every_pair_appears_once_the_nearer_domain_first_and_scratch_last():
    frame = study({name: arm(0.1, 0.2) for name in ("scratch", "photographs", "ct", "xray")})
    boundaries = {("photographs", "t"): "hard", ("ct", "t"): "none", ("xray", "t"): "soft"}
    pairs = contrasts(frame, boundaries)
    assert list(zip(pairs["a"], pairs["b"], strict=True)) == list(
        itertools.combinations(["ct", "xray", "photographs", "scratch"], 2)
    )
    assert pairs.iloc[0][["boundary_a", "boundary_b"]].tolist() == ["none", "soft"]


def test_the_declared_family_decides_how_many_tests_holm_counts():
    arms = {"a": arm(0.90, 0.91, 0.92), "b": arm(0.80, 0.83, 0.81)}
    frame = pd.concat([study(arms, task="one"), study(arms, task="two")])
    p = contrasts(frame)["p_value"].iloc[0]
    assert contrasts(frame)["p_holm"].tolist() == pytest.approx([2 * p, 2 * p])
    assert contrasts(frame, family=("task",))["p_holm"].tolist() == pytest.approx([p, p])
    assert contrasts(frame, family=())["p_holm"].tolist() == pytest.approx([2 * p, 2 * p])


def test_a_cell_without_a_fraction_is_a_cell():
    assert len(contrasts(study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)}, fraction=np.nan))) == 1


def test_arms_are_never_compared_across_strategies():
    frame = pd.concat([study({"a": arm(0.1, 0.2)}, strategy="full"), study({"b": arm(0.1, 0.2)}, strategy="lp_ft")])
    assert len(contrasts(frame)) == 0


def test_a_missing_value_decides_nothing():
    assert contrasts(study({"a": arm(0.9, np.nan, 0.92), "b": arm(0.5, 0.51, 0.53)}))["verdict"].item() == "not decided"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda f: f.drop(columns="seed"), {}, "no column seed"),
        (lambda f: pd.concat([f, f]), {}, "two values for"),
        (lambda f: f, {"family": ["metrics"]}, "no column 'metrics'. Did you mean 'metric'"),
        (lambda f: f, {"margin": 0.0}, "statistics.margin: found 0.0"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(change, options, message):
    with pytest.raises(RunError, match=message):
        contrasts(change(study({"a": arm(0.1, 0.2), "b": arm(0.3, 0.5)})), **options)


def test_summary_gives_mean_spread_and_interval_over_units():
    row = summary(study({"a": {(p, s): p + s for p in range(3) for s in range(2)}})).iloc[0]
    assert (row.n, row["mean"], row.sd) == (3, 1.5, 1.0)
    reach = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert (row.ci_low, row.ci_high) == pytest.approx((1.5 - reach, 1.5 + reach))


def test_units_name_themselves():
    units = seed_units(study({"a": arm(0.1, 0.2), "b": {(0, 0): 0.3, (0, 1): 0.4}}))
    assert units[["pretraining", "unit", "value"]].values.tolist() == [
        ["a", "pretraining_seed", 0.1],
        ["a", "pretraining_seed", 0.2],
        ["b", "seed", 0.3],
        ["b", "seed", 0.4],
    ]


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0])
def test_null_studies_are_rejected_no_more_often_than_claimed(ratio):
    """300 studies, three equal arms, 4 pretraining × 3 fine-tuning seeds; `ratio`: spread of those over these."""
    studies, rng = 300, np.random.default_rng(1)
    values = ratio * rng.normal(size=(studies, 3, 4, 1)) + rng.normal(size=(studies, 3, 4, 3))
    index = pd.MultiIndex.from_product(
        [list(map(str, range(studies))), list("abc"), range(4), range(3)],
        names=["task", "pretraining", "pretraining_seed", "seed"],
    )
    frame = pd.DataFrame({"value": values.ravel()}, index=index).reset_index()
    frame = frame.assign(protocol="knn", strategy=None, fraction=1.0, metric="accuracy")
    table = contrasts(frame, family=("task",))  # every study is a family of its own
    per_family = table.groupby("task")["p_holm"].min() < 0.05
    assert (table["p_value"] < 0.05).mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
    assert per_family.mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
