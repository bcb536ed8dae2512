"""Correlations of scores and quality: those of SciPy, ties and all."""

import numpy as np
import pytest
from scipy.stats import weightedtau
from support.correlations import PUBLISHED

from ssl_transfer.measures.agreement import COEFFICIENTS, agreement, resampled_backbones


def test_there_are_four_coefficients():
    assert set(COEFFICIENTS) == set(PUBLISHED) == set(agreement([1.0, 2.0, 4.0], [2.0, 1.0, 3.0]))


@pytest.mark.parametrize("values", ["all different", "some ties", "many ties"])
@pytest.mark.parametrize("backbones", [3, 5, 17])
def test_coefficients_are_scipy_s(backbones, values):
    draw = np.random.default_rng(backbones)
    for _ in range(25):
        pair = draw.normal(size=(2, backbones))
        if values != "all different":
            pair = draw.integers(0, backbones if values == "some ties" else 2, (2, backbones)).astype(float)
        if (np.ptp(pair, axis=1) == 0).any():
            continue
        coefficients = agreement(*pair)
        for name, published in PUBLISHED.items():
            assert coefficients[name] == pytest.approx(published(*pair), abs=1e-12), (name, pair)


def test_weighted_kendall_is_the_mean_of_ranking_by_one_and_by_the_other():
    one, other = np.array([3.0, 3.0, 1.0, 7.0, 2.0]), np.array([1.0, 2.0, 2.0, 9.0, 5.0])

    def ranked_by(first, second):
        place = np.empty(len(first), int)
        place[np.lexsort((second, first))[::-1]] = np.arange(len(first))
        return weightedtau(one, other, rank=place).statistic

    expected = (ranked_by(one, other) + ranked_by(other, one)) / 2
    assert ranked_by(one, other) != pytest.approx(ranked_by(other, one))
    assert agreement(one, other)["weighted_kendall"] == pytest.approx(expected, abs=1e-12)
    assert agreement(other, one)["weighted_kendall"] == pytest.approx(expected, abs=1e-12)


def test_the_same_order_has_correlation_1_and_the_reverse_order_minus_1():
    quality = np.array([0.1, 0.4, 0.5, 0.8])
    same, reverse = agreement(3 * quality - 7, quality), agreement(-quality, quality)
    assert [same[name] for name in COEFFICIENTS] == pytest.approx([1, 1, 1, 1], abs=1e-12)
    assert [reverse[name] for name in COEFFICIENTS] == pytest.approx([-1, -1, -1, -1], abs=1e-12)


def test_swapping_the_best_costs_more_than_swapping_the_worst():
    quality = np.arange(6.0)
    best, worst = agreement([0, 1, 2, 3, 5, 4], quality), agreement([1, 0, 2, 3, 4, 5], quality)
    assert best["kendall"] == worst["kendall"] and best["weighted_kendall"] < worst["weighted_kendall"]


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_constant_has_no_correlation(name):
    assert np.isnan(agreement([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])[name])
    assert np.isnan(agreement([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])[name])


def test_many_correlations_are_computed_at_once_along_the_last_axis():
    draw = np.random.default_rng(0)
    scores, quality = draw.integers(0, 4, (6, 2, 5)).astype(float), draw.normal(size=5)
    coefficients = agreement(scores, quality)
    for name in COEFFICIENTS:
        assert coefficients[name].shape == (6, 2)
        one_by_one = [agreement(one, quality)[name] for one in scores.reshape(12, 5)]
        assert np.allclose(coefficients[name].ravel(), one_by_one, atol=1e-12, equal_nan=True)


def test_resampled_backbones_are_at_least_three_different_ones_and_the_same_for_a_seed():
    drawn = resampled_backbones(4, 300, seed=1)
    assert drawn.shape == (300, 4) and drawn.min() == 0 and drawn.max() == 3
    assert min(len(set(row)) for row in drawn.tolist()) == 3
    assert np.array_equal(drawn, resampled_backbones(4, 300, seed=1))
    assert not np.array_equal(drawn, resampled_backbones(4, 300, seed=2))
