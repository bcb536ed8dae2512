"""Variance components: equal to the analysis of variance where there is one, to a mixed model in large studies, and unbiased."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from ssl_transfer.study.statistics import contrasts, detectable_differences, summary
from ssl_transfer.study.statistics.variance import COMPONENTS, VARIANCE_COLUMNS, variance_components


def cell(values, own=False, drop=(), **columns) -> pd.DataFrame:
    """A tidy frame from values of shape (arms, pretraining seeds, evaluation seeds), less some rows by number.

    `own`: each pretraining seed has label subsets of its own, the same for all arms.
    """
    values = np.asarray(values, float)
    names = ["pretraining", "pretraining_seed", "seed"]
    levels = [[f"arm {i}" for i in range(len(values))], *map(range, values.shape[1:])]
    frame = pd.DataFrame({"value": values.ravel()}, index=pd.MultiIndex.from_product(levels, names=names)).reset_index()
    shared = {"protocol": "knn", "task": "t", "strategy": None, "fraction": 1.0, "metric": "accuracy"}
    frame = frame.assign(draw=frame["seed"] + 1000 * own * frame["pretraining_seed"])
    frame = frame.assign(**{**shared, **columns}).drop(index=list(drop))
    return frame.astype({"pretraining_seed": "Int64", "seed": "Int64", "draw": "Int64"})


def simulated(shape, own=False, seed=0, **sd) -> np.ndarray:
    """Values of shape (arms, pretraining seeds, evaluation seeds)."""
    rng, (arms, n, m) = np.random.default_rng(seed), shape
    subsets = n if own else 1
    shapes = {
        "pretraining": (arms, n, 1),
        "subset": (1, subsets, m),
        "arm_subset": (arms, subsets, m),
        "residual": shape,
    }
    parts = (sd.get(name, 0.0) * rng.normal(size=size) for name, size in shapes.items())
    return 0.8 + np.arange(arms)[:, None, None] + sum(parts, np.zeros(shape))


def estimate(frame: pd.DataFrame) -> pd.Series:
    return variance_components(frame).iloc[0]


def variances(row: pd.Series) -> list[float]:
    return [row[f"sd_{name}"] ** 2 for name in COMPONENTS]


# --- designs with an analysis of variance ---


def test_nested_runs_agree_with_paper_arithmetic():
    # within: (0, 2) and (4, 8): squares 2 + 8 on 1 + 1 degrees of freedom, so the residual is 5;
    # means 1 and 6: variance 12.5, so pretraining is 12.5 − 5/2 = 10
    row = estimate(cell([[[0, 2], [4, 8]]], own=True))
    assert (row.sd_pretraining**2, row.sd_residual**2) == pytest.approx((10, 5))
    assert (row.n_arms, row.n_pretraining_seeds, row.n_draws, row.n_runs) == (1, 2, 4, 4)
    assert row.method == "minque; sd_residual includes subset; sd_residual includes arm_subset"


def anova_of_crossed_runs(y: np.ndarray) -> list[float]:
    """Components from the mean squares of arms × pretraining seeds (within arms) × subsets."""
    arms, n, m = y.shape
    mean_s, mean_p = y.mean(1), y.mean(2)  # (arms, subsets), (arms, pretraining seeds)
    each, grand = y.mean((1, 2)), y.mean((0, 1))
    ms_pretraining = m * np.sum((mean_p - each[:, None]) ** 2) / (arms * (n - 1))
    ms_subset = arms * n * np.sum((grand - y.mean()) ** 2) / (m - 1)
    both = mean_s - each[:, None] - grand[None] + y.mean()
    ms_both = n * np.sum(both**2) / ((arms - 1) * (m - 1))
    rest = y - mean_p[:, :, None] - mean_s[:, None, :] + each[:, None, None]
    ms_rest = np.sum(rest**2) / (arms * (n - 1) * (m - 1))
    return [(ms_pretraining - ms_rest) / m, (ms_subset - ms_both) / (arms * n), (ms_both - ms_rest) / n, ms_rest]


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 5, 4), (4, 2, 6)])
def test_crossed_runs_have_the_components_of_the_analysis_of_variance(shape):
    y = simulated(shape, pretraining=2.0, subset=4.0, arm_subset=2.0, residual=0.5)
    assert variances(estimate(cell(y))) == pytest.approx(anova_of_crossed_runs(y), rel=1e-6)
    assert estimate(cell(y)).method == "minque"


def anova_of_own_draws(y: np.ndarray) -> list[float]:
    """Pretraining, and residual with arm × subset: all that differs between arms in mean squares of interactions with arms."""
    arms, n, m = y.shape
    mean_p = y.mean(2)
    both = mean_p - mean_p.mean(1, keepdims=True) - mean_p.mean(0) + mean_p.mean()
    ms_pretraining = m * np.sum(both**2) / ((arms - 1) * (n - 1))
    centred = y - mean_p[:, :, None]
    ms_rest = np.sum((centred - centred.mean(0)) ** 2) / ((arms - 1) * n * (m - 1))
    return [(ms_pretraining - ms_rest) / m, ms_rest]


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 5, 4)])
def test_own_draws_have_the_components_of_the_analysis_of_variance_however_large_the_subsets_are(shape):
    y = simulated(shape, own=True, pretraining=2.0, subset=50.0, residual=0.5)
    row = estimate(cell(y, own=True))
    assert [row.sd_pretraining**2, row.sd_residual**2] == pytest.approx(anova_of_own_draws(y), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_crossed_components_of_large_studies_agree_with_a_mixed_model(seed):
    y = simulated((3, 24, 20), seed=seed, pretraining=1.0, subset=2.0, arm_subset=1.0, residual=1.5)
    frame = cell(y)
    frame = frame.assign(one=1, p=frame["pretraining"] + frame["pretraining_seed"].astype(str))
    frame = frame.assign(d=frame["draw"].astype(str), ad=frame["pretraining"] + " " + frame["draw"].astype(str))
    formula = {"p": "0 + C(p)", "d": "0 + C(d)", "ad": "0 + C(ad)"}
    fit = smf.mixedlm("value ~ C(pretraining)", frame, groups="one", vc_formula=formula, re_formula="0").fit()
    found = dict(zip(COMPONENTS, variances(estimate(frame)), strict=True))
    theirs = dict(zip(sorted(formula), fit.vcomp, strict=True))
    expected = [theirs["p"], theirs["d"], theirs["ad"], fit.scale]
    assert [found[name] for name in COMPONENTS] == pytest.approx(expected, rel=0.02)


# --- unbiased ---

TRUTH = {"pretraining": 1.0, "subset": 1.5, "arm_subset": 1.0, "residual": 1.2}


@pytest.mark.parametrize("lost", [0, 40], ids=["balanced", "runs lost"])
@pytest.mark.parametrize("own", [True, False])
def test_components_are_right_on_average_in_every_design(own, lost):
    shape, frames = (4, 12, 10), []
    for seed in range(150):
        drop = np.random.default_rng(7).choice(math.prod(shape), lost, replace=False)  # the same: one design
        frames.append(cell(simulated(shape, own, seed, **TRUTH), own, drop, task=str(seed)))
    table = variance_components(pd.concat(frames))
    found = table[[f"sd_{name}" for name in COMPONENTS]].to_numpy() ** 2
    expected = [TRUTH[name] ** 2 for name in COMPONENTS]
    if own:  # each arm has every subset once
        assert np.isnan(found[:, 2]).all()
        expected = [*expected[:2], expected[2] + expected[3]]
        found = found[:, [0, 1, 3]]
    error = found.std(0, ddof=1) / math.sqrt(len(found))
    np.testing.assert_array_less(np.abs(found.mean(0) - expected), 3 * error)


def test_a_nested_fit_of_crossed_runs_would_miss_most_of_the_pretraining_variance():
    y = simulated((2, 400, 4), pretraining=0.016, subset=0.049, arm_subset=0.016, residual=0.036)
    assert estimate(cell(y)).sd_pretraining == pytest.approx(0.016, rel=0.15)
    within = y.var(2, ddof=1).mean()
    nested = y.mean(2).var(1, ddof=1).mean() - within / 4
    assert nested < (0.016 / 2) ** 2


# --- what cannot be separated ---


def test_the_residual_includes_arm_and_subset_where_each_arm_has_every_subset_once():
    y = simulated((3, 40, 6), own=True, pretraining=1.0, subset=2.0, arm_subset=1.0, residual=1.0)
    row = estimate(cell(y, own=True))
    assert (math.isnan(row.sd_arm_subset), row.method) == (True, "minque; sd_residual includes arm_subset")
    assert row.sd_residual == pytest.approx(math.sqrt(2.0), rel=0.1)


def test_one_run_per_pretraining_seed_gives_the_variance_of_both():
    row = estimate(cell([[[1], [2], [3]], [[5], [7], [9]]]))
    assert row.sd_residual == pytest.approx(math.sqrt((2 + 8) / 4))  # squares of both arms on 2 + 2 degrees of freedom
    assert (math.isnan(row.sd_pretraining), row.method) == (True, "minque; sd_residual includes pretraining")


def test_one_pretraining_seed_per_arm_gives_no_variance_between_them():
    row = estimate(cell(simulated((2, 1, 200), subset=2.0, residual=1.0)))
    assert math.isnan(row.sd_pretraining)
    assert (row.sd_subset, row.sd_residual) == pytest.approx((2.0, 1.0), rel=0.2)
    assert row.method == "minque; sd_residual includes arm_subset"


def test_subset_and_arm_and_subset_are_one_for_a_single_arm():
    row = estimate(cell(simulated((1, 6, 5), pretraining=1.0, subset=1.0, residual=0.1)))
    assert (row.method, math.isnan(row.sd_arm_subset)) == ("minque; sd_subset includes arm_subset", True)


@pytest.mark.parametrize("values", [[[[0.5]]], [[[0.5]], [[0.7]]], [[[math.nan]]]])
def test_single_runs_have_no_components(values):
    row = estimate(cell(values))
    assert row[[f"sd_{name}" for name in COMPONENTS]].isna().all()
    assert row.method == "not estimable"


@pytest.mark.parametrize("own", [True, False])
def test_runs_that_never_differ_have_no_variance(own):
    row = estimate(cell(np.full((2, 3, 2), 0.1 + 0.2), own))
    assert [row.sd_pretraining, row.sd_subset, row.sd_residual] == [0, 0, 0]


def test_evaluations_that_never_differ_leave_all_to_pretraining():
    y = np.repeat(simulated((2, 4, 1), residual=1.0), 3, axis=2)
    row = estimate(cell(y))
    assert row.sd_pretraining == pytest.approx(math.sqrt(np.mean(np.var(y[..., 0], axis=1, ddof=1))))
    assert row.sd_residual == pytest.approx(0, abs=1e-6)


def test_pretraining_that_varies_less_than_chance_has_no_variance():
    row = estimate(cell([[[0, 2], [2, 0]], [[5, 7], [7, 5]]], own=True))
    assert row.sd_pretraining == 0


def test_a_run_without_a_value_does_not_enter():
    y = simulated((2, 4, 3), pretraining=1.0, residual=1.0)
    y[0, 0, 0] = math.nan
    pd.testing.assert_frame_equal(variance_components(cell(y)), variance_components(cell(y, drop=[0])))


def test_the_evaluation_seed_is_the_subset_where_no_draw_is_recorded():
    frame = cell(simulated((2, 4, 3), pretraining=1.0, subset=1.0, residual=1.0))
    expected = variance_components(frame)
    pd.testing.assert_frame_equal(variance_components(frame.drop(columns="draw")), expected)
    pd.testing.assert_frame_equal(variance_components(frame.assign(draw=pd.array([pd.NA] * 24, "Int64"))), expected)


def test_runs_without_any_seed_are_of_different_subsets():
    frame = cell(simulated((2, 6, 1), residual=1.0)).drop(columns="draw").assign(seed=pd.array([pd.NA] * 12, "Int64"))
    assert estimate(frame).n_draws == 12


def test_every_cell_has_a_row_of_the_documented_columns():
    frames = [cell(simulated((2, 4, 2), residual=1.0), task=task, fraction=f) for task in "ab" for f in (0.1, np.nan)]
    table = variance_components(pd.concat(frames))
    assert list(table.columns) == VARIANCE_COLUMNS
    assert len(table) == 4
    assert list(variance_components(frames[0].iloc[:0]).columns) == VARIANCE_COLUMNS


def test_the_order_of_rows_does_not_matter():
    frame = cell(simulated((3, 4, 5), own=True, **TRUTH), own=True, drop=[3, 17])
    pd.testing.assert_frame_equal(variance_components(frame.sample(frac=1, random_state=0)), variance_components(frame))


def test_a_cell_of_four_arms_sixteen_seeds_and_twenty_four_draws_takes_a_fraction_of_a_second():
    frame = cell(simulated((4, 16, 24), own=True, **TRUTH), own=True)
    started = time.perf_counter()
    variance_components(frame)
    assert time.perf_counter() - started < 1


# --- what follows for a contrast ---


def detection(frame: pd.DataFrame, **options) -> pd.Series:
    return detectable_differences(variance_components(frame), summary(frame), contrasts(frame, **options)).iloc[0]


def test_the_variance_of_a_difference_in_pairs_is_that_of_simulated_studies():
    frame = cell(simulated((2, 3000, 4), own=True, **TRUTH), own=True)
    row = detection(frame)
    units = frame.pivot_table("value", "pretraining_seed", "pretraining")
    assert row.sd_difference == pytest.approx((units["arm 0"] - units["arm 1"]).std(), rel=0.05)
    assert row.share_pretraining == pytest.approx(1.0 / (1.0 + (1.0 + 1.2**2) / 4), rel=0.1)
    assert (row.test, row.unit, row.n, row.runs_per_unit) == ("paired", "pretraining_seed", 3000, 4)


def test_without_shared_draws_the_subsets_do_not_cancel():
    frame = cell(simulated((2, 3000, 4), own=True, **TRUTH), own=True)
    row = detection(frame, shared_draws=False)
    units = frame.groupby(["pretraining", "pretraining_seed"])["value"].mean()
    assert row.test == "welch"
    assert row.sd_difference == pytest.approx(math.sqrt(2 * units.groupby("pretraining").var().mean()), rel=0.05)


def test_the_level_is_that_of_the_open_contrasts_of_the_cell():
    frame = cell(simulated((3, 6, 4), own=True, residual=0.1), own=True)
    table = contrasts(frame)
    row = detectable_differences(variance_components(frame), summary(frame), table).iloc[0]
    assert row.level == table["level"].max()
