"""Seeds within seeds and cases within patients: bootstraps agree with plain loops and cover the truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ssl_transfer.errors import RunError
from ssl_transfer.study.statistics.nested import nested_bootstrap, patient_bootstrap


def nested_values(ratio: float, shape: tuple, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.8 + scale * (ratio * rng.normal(size=(*shape[:2], 1)) + rng.normal(size=shape))


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
