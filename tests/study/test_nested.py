"""Seeds within seeds and cases within patients: closed forms, mixed models and bootstraps agree and cover the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.optimize import minimize_scalar
from statsmodels.regression.mixed_linear_model import MixedLM

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics.nested import (
    VARIANCE_COLUMNS,
    nested_bootstrap,
    patient_bootstrap,
    variance_components,
)


def cell(values, drop=(), **columns) -> pd.DataFrame:
    """A tidy frame from values of shape (arms, pretraining seeds, fine-tuning seeds), less some rows by number."""
    values = np.asarray(values, float)
    names = ["pretraining", "pretraining_seed", "seed"]
    levels = [[f"arm {i}" for i in range(len(values))], *map(range, values.shape[1:])]
    frame = pd.DataFrame({"value": values.ravel()}, index=pd.MultiIndex.from_product(levels, names=names)).reset_index()
    shared = {"protocol": "knn", "task": "t", "strategy": None, "fraction": 1.0, "metric": "accuracy"}
    frame = frame.assign(**{**shared, **columns}).drop(index=list(drop))
    return frame.astype({"pretraining_seed": "Int64", "seed": "Int64"})


def nested_values(ratio: float, shape: tuple, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.8 + scale * (ratio * rng.normal(size=(*shape[:2], 1)) + rng.normal(size=shape))


def estimate(frame: pd.DataFrame) -> pd.Series:
    return variance_components(frame).iloc[0]


# --- variance components ---


def test_the_components_of_a_balanced_cell_agree_with_paper_arithmetic():
    # within: (0, 2) and (4, 8): squares 2 + 8 on 1 + 1 degrees of freedom, so MSW = 5;
    # means 1 and 6: variance 12.5, so sd_pretraining² = 12.5 − 5/2 = 10
    row = estimate(cell([[[0, 2], [4, 8]]]))
    assert (row.sd_pretraining**2, row.sd_seed**2, row.share) == pytest.approx((10, 5, 10 / 15))
    assert (row.n_arms, row.n_pretraining_seeds, row.n_runs, row.method) == (1, 2, 4, "anova")


@pytest.mark.parametrize("seed", range(4))
def test_the_closed_form_of_balanced_cells_agrees_with_a_mixed_model(seed):
    values = nested_values(2.0, (3, 4, 3), seed)
    row, frame = estimate(cell(values)), cell(values)
    arms = pd.get_dummies(frame["pretraining"]).to_numpy(float)
    groups = frame["pretraining"] + frame["pretraining_seed"].astype(str)
    fit = MixedLM(frame["value"].to_numpy(), arms, groups=groups.to_numpy()).fit(reml=True)
    assert row.method == "anova"
    assert (row.sd_pretraining, row.sd_seed) == pytest.approx((fit.cov_re[0, 0] ** 0.5, fit.scale**0.5), rel=1e-3)


def reml(frame: pd.DataFrame) -> tuple[float, float]:
    """Both standard deviations where the restricted likelihood is highest, by search over the ratio of variances."""
    arms = pd.get_dummies(frame["pretraining"]).to_numpy(float)
    seeds = pd.get_dummies(frame["pretraining"] + frame["pretraining_seed"].astype(str)).to_numpy(float)
    value = frame["value"].to_numpy()

    def fit(ratio):
        shape = np.eye(len(value)) + ratio * seeds @ seeds.T
        inverse = np.linalg.inv(shape)
        normal = arms.T @ inverse @ arms
        rest = value - arms @ np.linalg.solve(normal, arms.T @ inverse @ value)
        variance = rest @ inverse @ rest / (len(value) - arms.shape[1])
        loss = (len(value) - arms.shape[1]) * math.log(variance) + np.linalg.slogdet(shape)[1]
        return loss + np.linalg.slogdet(normal)[1], variance

    grid = np.linspace(-12, 8, 60)
    best = grid[np.argmin([fit(math.exp(x))[0] for x in grid])]
    found = minimize_scalar(lambda x: fit(math.exp(x))[0], bounds=(best - 0.4, best + 0.4), method="bounded")
    ratio = math.exp(found.x) if found.fun < fit(0)[0] else 0.0
    return math.sqrt(ratio * fit(ratio)[1]), math.sqrt(fit(ratio)[1])


@pytest.mark.parametrize("lost", [[], [0], [1, 13, 35]], ids=["balanced", "one run lost", "three runs lost"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("scale", [1.0, 0.001])
def test_every_design_has_the_components_of_highest_restricted_likelihood(lost, ratio, scale):
    for seed in range(2):
        frame = cell(nested_values(ratio, (3, 4, 3), seed, scale), lost)
        row, expected = estimate(frame), reml(frame)
        assert (row.sd_pretraining, row.sd_seed) == pytest.approx(expected, abs=1e-3 * math.hypot(*expected))
        assert row.method == ("reml" if lost else "anova")


def test_components_of_a_large_study_are_recovered():
    row = estimate(cell(nested_values(2.0, (4, 300, 3))))
    assert (row.sd_pretraining, row.sd_seed, row.share) == pytest.approx((2.0, 1.0, 0.8), rel=0.05)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_the_components_of_small_studies_are_right_on_average(ratio):
    frames = [cell(nested_values(ratio, (3, 4, 3), seed), task=str(seed)) for seed in range(300)]
    found = np.square(variance_components(pd.concat(frames))[["sd_pretraining", "sd_seed"]]).mean()
    assert found["sd_seed"] == pytest.approx(1.0, abs=0.05)
    assert found["sd_pretraining"] == pytest.approx(ratio**2, abs=0.12 * (ratio**2 + 0.5))  # a little up: cut at 0


def test_pretraining_that_varies_less_than_chance_has_no_variance():
    row = estimate(cell([[[0, 2], [2, 0]], [[5, 7], [7, 5]]]))
    assert (row.sd_pretraining, row.share) == (0, 0)
    assert row.sd_seed == pytest.approx(math.sqrt(8 / 6))  # all squares within arms, 8, on 8 − 2 degrees of freedom


@pytest.mark.parametrize("lost", [[], [0]])
def test_an_arm_of_one_pretraining_estimates_the_variance_of_fine_tuning_alone(lost):
    nested = cell(nested_values(1.0, (2, 4, 3)), lost)
    public = cell(nested_values(0.0, (1, 1, 6), 5) + 9).assign(pretraining="public", pretraining_seed=pd.NA)
    row, expected = (
        estimate(pd.concat([nested, public])),
        reml(pd.concat([nested, public]).fillna({"pretraining_seed": 0})),
    )
    assert (row.sd_pretraining, row.sd_seed) == pytest.approx(expected, rel=2e-3)
    assert (row.n_arms, row.n_pretraining_seeds, row.n_runs) == (3, 9, 30 - len(lost))


def test_one_run_per_pretraining_seed_gives_the_variance_of_both():
    row = estimate(cell([[[1], [2], [3]], [[5], [7], [9]]]))
    assert row.sd_pretraining == pytest.approx(
        math.sqrt((2 + 8) / 4)
    )  # squares of both arms on 2 + 2 degrees of freedom
    assert (math.isnan(row.sd_seed), math.isnan(row.share), row.method) == (True, True, "total")


def test_one_pretraining_seed_per_arm_gives_the_variance_of_fine_tuning_alone():
    row = estimate(cell([[[1, 2, 3]], [[5, 7, 9]]]))
    assert row.sd_seed == pytest.approx(math.sqrt(10 / 4))
    assert (math.isnan(row.sd_pretraining), math.isnan(row.share), row.method) == (True, True, "seeds only")


@pytest.mark.parametrize("values", [[[[0.5]]], [[[0.5]], [[0.7]]], [[[math.nan]]]])
def test_single_runs_have_no_components(values):
    row = estimate(cell(values))
    assert (math.isnan(row.sd_pretraining), math.isnan(row.sd_seed), row.method) == (True, True, "not estimable")


@pytest.mark.parametrize("lost", [[], [0]])
def test_runs_that_never_differ_have_no_share(lost):
    row = estimate(cell(np.full((2, 3, 2), 0.1 + 0.2), lost))
    assert (row.sd_pretraining, row.sd_seed, math.isnan(row.share)) == (0, 0, True)


@pytest.mark.parametrize("lost", [[], [0]])
def test_fine_tuning_that_never_differs_leaves_all_to_pretraining(lost):
    values = np.repeat(nested_values(0.0, (2, 4, 1)), 3, axis=2)
    row = estimate(cell(values, lost))
    assert row.sd_pretraining == pytest.approx(math.sqrt(np.mean(np.var(values[..., 0], axis=1, ddof=1))))
    assert (row.sd_seed, row.share) == (0, 1)


def test_fine_tuning_that_hardly_differs_hardly_matters():
    values = nested_values(1e6, (3, 4, 3))
    row = estimate(cell(values, [0, 5]))
    assert row.sd_pretraining == pytest.approx(math.sqrt(np.mean(np.var(values.mean(2), axis=1, ddof=1))), rel=1e-4)
    assert 0.5 < row.sd_seed < 1.5


def test_a_fit_that_fails_says_so(monkeypatch):
    def fail(*args, **options):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(MixedLM, "fit", fail)
    row = estimate(cell(nested_values(2.0, (3, 4, 3)), [0]))
    assert (math.isnan(row.sd_pretraining), math.isnan(row.sd_seed), row.method) == (True, True, "reml failed")


def test_a_run_without_a_value_does_not_enter():
    values = nested_values(1.0, (2, 4, 3))
    values[0, 0, 0] = math.nan
    pd.testing.assert_frame_equal(variance_components(cell(values)), variance_components(cell(values, [0])))


def test_every_cell_has_a_row_of_the_documented_columns():
    frames = [cell(nested_values(1.0, (2, 4, 2)), task=task, fraction=f) for task in "ab" for f in (0.1, np.nan)]
    table = variance_components(pd.concat(frames))
    assert list(table.columns) == VARIANCE_COLUMNS
    assert len(table) == 4
    assert list(variance_components(frames[0].iloc[:0]).columns) == VARIANCE_COLUMNS


# --- seeds within seeds ---


def test_the_nested_bootstrap_of_single_runs_is_the_bootstrap_of_their_means():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, 12), rng.normal(0, 2, 9)
    ours = nested_bootstrap([[x] for x in a], [[x] for x in b])
    theirs = stats.bootstrap((a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), method="percentile", rng=rng)
    assert ours.difference == pytest.approx(a.mean() - b.mean())
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.08)


def test_the_nested_bootstrap_agrees_with_a_plain_loop_over_uneven_seeds():
    rng = np.random.default_rng(0)
    a, b = ([rng.normal(level + rng.normal(), 1, n) for n in (1, 2, 5, 3)] for level in (1, 0))

    def mean(side):
        return np.mean([rng.choice(side[i], len(side[i])).mean() for i in rng.integers(len(side), size=len(side))])

    low, high = np.quantile([mean(a) - mean(b) for _ in range(3000)], [0.025, 0.975])
    ours = nested_bootstrap(a, b)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((low, high), abs=0.15)
    assert (ours.n_a, ours.n_b, ours.resamples) == (4, 4, 10_000)


@pytest.mark.parametrize(("ratio", "covered"), [(0.5, 0.95), (2.0, 0.88), (8.0, 0.87)])
def test_with_four_pretraining_seeds_the_nested_bootstrap_covers_as_seldom_as_its_docstring_says(ratio, covered):
    studies = nested_values(ratio, (1000 * 2, 4, 3)).reshape(1000, 2, 4, 3)
    tests = [nested_bootstrap(a, b, resamples=1000, seed=i) for i, (a, b) in enumerate(studies)]
    found = np.mean([test.ci_low <= 0 <= test.ci_high for test in tests])
    assert found == pytest.approx(covered, abs=3 * math.sqrt(covered * (1 - covered) / 1000))


def test_the_same_seed_draws_the_same_interval_and_another_one_another():
    a, b = nested_values(1.0, (2, 4, 3))
    assert nested_bootstrap(a, b) == nested_bootstrap(a, b)
    assert nested_bootstrap(a, b) != nested_bootstrap(a, b, seed=1)


@pytest.mark.parametrize(("a", "b"), [([[1, 2, 3]], [[1, 2], [3, 4]]), ([[1, np.nan], [1, 2]], [[1, 2], [3, 4]])])
def test_one_pretraining_seed_or_a_missing_value_has_no_interval(a, b):
    assert math.isnan(nested_bootstrap(a, b).ci_low)


@pytest.mark.parametrize("a", [[], [[1.0], []]])
def test_a_pretraining_seed_without_values_is_refused(a):
    with pytest.raises(RunError, match="side a has a pretraining seed without a value"):
        nested_bootstrap(a, [[1, 2], [3, 4]])


# --- cases within patients ---


def cohort(patients: int, seed: int, spread: float = 1.0) -> pd.DataFrame:
    """Cases of patients who have one to eight each; arm a is better by 0.5, and each patient has a leaning of its own."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 9, patients))
    b = rng.normal(size=len(patient))
    leaning = spread * rng.normal(size=patients)[patient]
    return pd.DataFrame({"patient": patient, "a": b + 0.5 + leaning + 0.5 * rng.normal(size=len(patient)), "b": b})


def test_the_patient_bootstrap_agrees_with_a_plain_loop():
    cases, rng = cohort(15, 0), np.random.default_rng(0)
    own = [group["a"].to_numpy() - group["b"].to_numpy() for _, group in cases.groupby("patient")]
    drawn = [np.concatenate([own[i] for i in rng.integers(15, size=15)]).mean() for _ in range(4000)]
    ours = patient_bootstrap(cases, resamples=4000)
    assert ours.difference == pytest.approx((cases["a"] - cases["b"]).mean())
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.05)
    assert (ours.n_cases, ours.n_patients, ours.n_dropped) == (len(cases), 15, 0)


@pytest.mark.parametrize(("unit", "least", "most"), [("patient", 0.92, 0.98), ("case", 0.5, 0.8)])
def test_patients_cover_the_truth_and_cases_as_if_they_were_patients_do_not(unit, least, most):
    studies = [cohort(50, seed).assign(case=lambda cases: cases.index) for seed in range(600)]
    tests = [patient_bootstrap(cases.assign(patient=cases[unit]), resamples=500) for cases in studies]
    assert least < np.mean([test.ci_low <= 0.5 <= test.ci_high for test in tests]) < most


def test_a_case_that_lacks_a_score_or_a_patient_is_dropped_on_both_sides_and_counted():
    cases = cohort(10, 0).astype({"patient": "Int64"})
    cases.loc[0, "a"], cases.loc[1, "b"], cases.loc[2, "patient"] = np.nan, np.nan, pd.NA
    assert patient_bootstrap(cases) == replace(patient_bootstrap(cases.iloc[3:]), n_dropped=3)


@pytest.mark.parametrize("cases", [cohort(1, 0), cohort(3, 0).iloc[:0]])
def test_fewer_than_two_patients_have_no_interval(cases):
    assert math.isnan(patient_bootstrap(cases).ci_low)


def test_cases_without_patients_are_refused():
    with pytest.raises(RunError, match="no column patient"):
        patient_bootstrap(cohort(3, 0).drop(columns="patient"))


def test_resamples_drawn_in_blocks_are_the_same_resamples(monkeypatch):
    whole = patient_bootstrap(cohort(20, 0), resamples=999)
    monkeypatch.setattr("ssl_transfer.study.statistics.nested.BLOCK", 200)
    assert patient_bootstrap(cohort(20, 0), resamples=999) == whole
