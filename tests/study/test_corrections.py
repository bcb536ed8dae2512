"""Corrections for many tests agree with statsmodels and paper arithmetic, and count tests that are planned."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from ssl_transfer.study.statistics import benjamini_hochberg, benjamini_hochberg_decisions, holm, holm_decisions


def test_holm_agrees_with_hand_computation_and_leaves_nan_out_of_the_family():
    corrected = holm([0.01, np.nan, 0.04, 0.03, np.nan, 0.2])
    np.testing.assert_allclose(corrected, [0.04, np.nan, 0.09, 0.09, np.nan, 0.2])


def test_benjamini_hochberg_agrees_with_hand_computation_and_leaves_nan_out_of_the_family():
    # 4 tests: 4/1 · .01 = .04, 4/2 · .03 = .06, 4/3 · .04 = .0533, 4/4 · .2 = .2; then the least from the top down
    corrected = benjamini_hochberg([0.01, np.nan, 0.04, 0.03, np.nan, 0.2])
    np.testing.assert_allclose(corrected, [0.04, np.nan, 0.16 / 3, 0.16 / 3, np.nan, 0.2])


@pytest.mark.parametrize(("correct", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_corrections_agree_with_statsmodels(correct, method, n):
    p = np.random.default_rng(n).uniform(0, 0.4, n).round(2)  # with ties
    np.testing.assert_allclose(correct(p), multipletests(p, method=method)[1])


@pytest.mark.parametrize("seed", range(5))
def test_benjamini_hochberg_lies_between_the_plain_p_and_holms(seed):
    p = np.random.default_rng(seed).uniform(0, 0.2, 20)
    assert (p <= benjamini_hochberg(p)).all()
    assert (benjamini_hochberg(p) <= holm(p)).all()


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_a_correction_of_no_p_values_is_empty(correct):
    assert correct([]).size == 0
    assert np.isnan(correct([np.nan])).all()


# --- planned tests, and the level of each ---


@pytest.mark.parametrize(("correct", "method"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
@pytest.mark.parametrize("planned", [3, 6, 11])
def test_planned_tests_count_as_if_their_p_were_one(correct, method, planned):
    p = np.array([0.004, 0.03, 0.012, np.nan, 0.6, 0.2])
    finite = np.isfinite(p)
    whole = np.append(p[finite], np.ones(max(planned - finite.sum(), 0)))
    np.testing.assert_allclose(correct(p, planned)[finite], multipletests(whole, method=method)[1][: finite.sum()])


def test_holm_decides_the_smallest_p_at_alpha_over_all_and_leaves_the_rest_open_at_what_is_left():
    rejected, level = holm_decisions([0.2, 0.011, 0.004, np.nan], tests=5)
    assert rejected.tolist() == [False, True, True, False]  # .004 ≤ .01 and .011 ≤ .0125
    assert level.tolist() == pytest.approx([0.05 / 3, 0.0125, 0.01, 0.05 / 3])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("decide", "correct"), [(holm_decisions, holm), (benjamini_hochberg_decisions, benjamini_hochberg)]
)
def test_a_test_is_rejected_exactly_if_its_p_is_at_most_its_level(decide, correct, seed):
    rng = np.random.default_rng(seed)
    p = np.concatenate([rng.uniform(0, 1, 6), rng.uniform(0, 0.01, 6)])
    rejected, level = decide(p, 15)
    np.testing.assert_array_equal(rejected, p <= level)
    np.testing.assert_array_equal(rejected, correct(p, 15) <= 0.05)


def test_benjamini_and_hochberg_decide_all_at_one_level():
    rejected, level = benjamini_hochberg_decisions([0.01, 0.02, 0.5, 0.9])  # .02 ≤ 2/4 · .05
    assert rejected.tolist() == [True, True, False, False]
    assert level.tolist() == pytest.approx([0.025] * 4)
    assert benjamini_hochberg_decisions([0.5, 0.9])[1].tolist() == pytest.approx([0.025] * 2)


@pytest.mark.parametrize("decide", [holm_decisions, benjamini_hochberg_decisions])
def test_a_family_without_any_p_value_is_open_at_its_planned_level(decide):
    rejected, level = decide([np.nan, np.nan], tests=4)
    assert rejected.tolist() == [False, False]
    assert level.tolist() == pytest.approx([0.0125] * 2)
    assert decide([])[0].size == 0
