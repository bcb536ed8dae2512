"""Summaries over targets: against statsmodels, a published meta-analysis and a plain maximisation, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics import contrasts, over_targets, random_effects, target_effects
from ssl_transfer.study.statistics.meta_analysis import EFFECT_COLUMNS, SUMMARY_COLUMNS, standard_errors
from ssl_transfer.study.table import COLUMNS

# Thirteen trials of a vaccine (Colditz 1994), as in the documentation of metafor: cases and others, treated and control.
VACCINE = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ]
)


def log_risk_ratios() -> tuple[np.ndarray, np.ndarray]:
    cases, others, control_cases, control_others = VACCINE.T.astype(float)
    treated, controls = cases + others, control_cases + control_others
    effects = np.log(cases / treated / (control_cases / controls))
    return effects, np.sqrt(1 / cases - 1 / treated + 1 / control_cases - 1 / controls)


def test_the_vaccine_trials_have_their_published_summary():
    ours = random_effects(*log_risk_ratios())
    assert ours.estimate == pytest.approx(-0.7145, abs=1e-4)
    assert ours.tau**2 == pytest.approx(0.3132, abs=1e-4)
    assert ours.q == pytest.approx(152.2330, abs=1e-3)
    assert random_effects(*log_risk_ratios(), method="dl").tau ** 2 == pytest.approx(0.3088, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_dersimonian_laird_with_hartung_and_knapp_is_that_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    errors = rng.uniform(0.05, 0.2, 6)
    effects = 0.1 + rng.normal(0, 0.3, 6) + errors * rng.normal(size=6)
    ours, theirs = (
        random_effects(effects, errors, method="dl"),
        combine_effects(effects, errors**2, method_re="chi2", use_t=True),
    )
    assert (ours.estimate, ours.tau**2, ours.q) == pytest.approx((theirs.mean_effect_re, theirs.tau2, theirs.q))
    assert ours.i2 == pytest.approx(max(0, theirs.i2))
    assert ours.se == pytest.approx(max(theirs.sd_eff_w_re_hksj, theirs.sd_eff_w_re))
    assert ours.ci_high - ours.estimate == pytest.approx(stats.t.ppf(0.975, 5) * ours.se)
    assert ours.q_p == pytest.approx(stats.chi2.sf(theirs.q, 5))


@pytest.mark.parametrize("heterogeneity", [0.0, 0.1, 1.0])
def test_reml_is_the_maximum_of_the_restricted_likelihood(heterogeneity):
    rng = np.random.default_rng(3)
    errors = rng.uniform(0.05, 0.3, 8)
    effects = heterogeneity * rng.normal(size=8) + errors * rng.normal(size=8)

    def log_likelihood(variance):
        covariance, ones = np.diag(errors**2 + variance), np.ones((8, 1))
        inverse = np.linalg.inv(covariance)
        information = ones.T @ inverse @ ones
        mean = (ones.T @ inverse @ effects) / information[0]
        rest = effects - mean
        return -0.5 * (np.linalg.slogdet(covariance)[1] + math.log(information.item()) + rest @ inverse @ rest)

    grid = np.linspace(0, 6, 30_001)
    best = grid[int(np.argmax([log_likelihood(variance) for variance in grid]))]
    assert random_effects(effects, errors).tau ** 2 == pytest.approx(best, abs=3e-4)


def test_two_targets_have_a_wide_interval_and_one_has_none():
    two, one = random_effects([0.10, 0.12], [0.01, 0.01]), random_effects([0.1], [0.01])
    interval = stats.ttest_1samp([0.10, 0.12], 0).confidence_interval(0.95)  # equal weights: Student's t of two values
    assert (two.ci_low, two.ci_high) == pytest.approx((interval.low, interval.high))
    assert two.ci_low < 0 < two.ci_high and math.isnan(two.predicted_low)
    assert one.estimate == 0.1 and math.isnan(one.ci_low) and math.isnan(one.tau)


def test_targets_that_agree_by_chance_do_not_make_the_interval_shorter_than_their_own_errors_allow():
    ours = random_effects([0.1, 0.1, 0.1], [0.05, 0.05, 0.05])
    assert ours.tau == 0 and ours.se == pytest.approx(0.05 / math.sqrt(3))


@pytest.mark.parametrize(
    ("effects", "errors"), [([], []), ([0.1, 0.2], [0.1]), ([0.1, np.nan], [0.1, 0.1]), ([0.1, 0.2], [0.1, 0.0])]
)
def test_effects_without_positive_errors_are_refused(effects, errors):
    with pytest.raises(RunError, match="expected as many positive standard errors as effects"):
        random_effects(effects, errors)


@pytest.mark.parametrize("k", [3, 6])
@pytest.mark.parametrize("tau", [0.0, 0.05, 0.2])
def test_intervals_cover_the_mean_and_predictions_a_further_target(k, tau):
    rng, studies, covered, predicted = np.random.default_rng(k), 400, 0, 0
    for _ in range(studies):
        errors = rng.uniform(0.03, 0.1, k)
        ours = random_effects(tau * rng.normal(size=k) + errors * rng.normal(size=k), errors)
        covered += ours.ci_low <= 0 <= ours.ci_high
        predicted += ours.predicted_low <= tau * rng.normal() <= ours.predicted_high
    least = 0.95 - 3 * math.sqrt(0.95 * 0.05 / studies)
    assert covered / studies >= least and predicted / studies >= least - 0.02


# --- contrasts over targets ---


def study(boundaries: dict[str, dict[str, str]], gains: dict[str, float], fractions=(0.1,), seeds=6) -> pd.DataFrame:
    """A linear probe of arms on targets: target -> arm -> boundary; CT gains more on some targets."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "protocol": "linear_probe",
            "pretraining": arm,
            "task": task,
            "fraction": fraction,
            "pretraining_seed": seed,
            "seed": 0,
            "metric": "auroc",
            "value": 0.7 + gains[task] * (arm == "CT") + rng.normal(0, 0.01),
            "boundary": boundary,
            "noise": "none",
            "noise_sigma": 0.0,
        }
        for task, arms in boundaries.items()
        for arm, boundary in arms.items()
        for fraction in fractions
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


BOUNDARIES = {
    "ct": {"CT": "none", "cells": "hard"},
    "headct": {"CT": "none", "cells": "hard"},
    "blood": {"CT": "hard", "cells": "none"},
}
GAINS = {"ct": 0.1, "headct": 0.12, "blood": -0.05}


def test_a_pair_has_one_direction_and_a_summary_per_pair_of_boundaries_and_over_all():
    effects = target_effects(contrasts(study(BOUNDARIES, GAINS)))
    table = over_targets(effects)
    assert list(effects.columns) == EFFECT_COLUMNS and list(table.columns) == SUMMARY_COLUMNS
    assert set(zip(effects["a"], effects["b"], strict=True)) == {("CT", "cells")}
    rows = table.set_index(["boundary_a", "boundary_b"])
    assert rows["k"].to_dict() == {("none", "hard"): 2, ("hard", "none"): 1, ("all", "all"): 3}
    assert rows.loc[("none", "hard"), "estimate"] == pytest.approx(0.11, abs=0.02)
    assert rows.loc[("hard", "none"), "estimate"] == pytest.approx(-0.05, abs=0.02)
    assert rows.loc[("all", "all"), "influential"] == "blood"


def test_leaving_one_target_out_is_the_summary_of_the_others():
    effects = target_effects(contrasts(study(BOUNDARIES, GAINS)))
    row = over_targets(effects).iloc[-1]
    values, errors = effects["difference"].to_numpy(), effects["se"].to_numpy()
    others = [random_effects(np.delete(values, i), np.delete(errors, i)).estimate for i in range(3)]
    assert (row["without_low"], row["without_high"]) == pytest.approx((min(others), max(others)))


def test_standard_errors_are_those_of_the_test_and_of_the_interval_where_t_is_zero():
    table = contrasts(study(BOUNDARIES, GAINS))
    half = (table["ci_high"] - table["ci_low"]) / 2
    expected = half / stats.t.ppf(1 - table["level"] / 2, table["df"])
    assert standard_errors(table) == pytest.approx(expected)
    zero = table.assign(t=0.0, difference=0.0, confidence=0.99, ci_low=-expected * stats.t.ppf(0.995, table["df"]))
    zero["ci_high"] = -zero["ci_low"]
    assert standard_errors(zero) == pytest.approx(expected)


def test_label_fractions_of_a_target_are_averaged_and_do_not_count_as_targets():
    table = contrasts(study(BOUNDARIES, GAINS, fractions=(0.1, 1.0)))
    effects = target_effects(table)
    assert effects["fractions"].tolist() == [2, 2, 2]
    ct = table[table["task"] == "ct"]
    row = effects[effects["task"] == "ct"].iloc[0]
    assert row["difference"] == pytest.approx(ct["difference"].mean())
    assert row["se"] == pytest.approx((ct["difference"] / ct["t"]).mean())


def test_contrasts_that_cannot_be_tested_have_no_effect():
    effects = target_effects(contrasts(study(BOUNDARIES, GAINS, seeds=1)))
    assert not len(effects) and not len(over_targets(effects))
