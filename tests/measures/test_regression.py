"""Metrics of numbers: scikit-learn's and SciPy's, weights included."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, mean_absolute_error, r2_score, root_mean_squared_error

from ssl_transfer.measures.classification import ScoredImages
from ssl_transfer.measures.ordinal import above_thresholds, grade_probabilities, quadratic_kappa
from ssl_transfer.measures.regression import ScoredValues, mae, r2, rmse, spearman


def values(seed, coarse=False, count=120):
    """True and predicted ages, and how often each image was drawn in 12 resamples."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(60, 12, count)
    predicted = truth + draw.normal(0, 8, count)
    if coarse:
        truth, predicted = np.round(truth / 5) * 5, np.round(predicted / 5) * 5
    return truth, predicted, draw.poisson(1.0, (count, 12)).astype(float)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize(
    ("metric", "reference"),
    [(mae, mean_absolute_error), (rmse, root_mean_squared_error), (r2, r2_score)],
    ids=["mae", "rmse", "r2"],
)
def test_errors_are_scikit_learn_s_with_weights(metric, reference, coarse):
    truth, predicted, weights = values(0, coarse)
    expected = [reference(truth, predicted, sample_weight=drawn) for drawn in weights.T]
    assert metric(ScoredValues(truth, predicted, weights)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
def test_spearman_of_a_resample_is_scipy_s_of_its_copies(coarse):
    truth, predicted, weights = values(1, coarse)
    rows = [np.repeat(np.arange(len(truth)), drawn.astype(int)) for drawn in weights.T]
    expected = [spearmanr(truth[at], predicted[at]).statistic for at in rows]
    assert spearman(ScoredValues(truth, predicted, weights)) == pytest.approx(expected, abs=1e-9)


def test_values_far_from_zero_lose_no_digits():
    truth, predicted, weights = values(2)
    near, far = (r2(ScoredValues(truth + shift, predicted + shift, weights)) for shift in (0, 1e6))
    assert far == pytest.approx(near, abs=1e-7)


def test_without_two_true_values_there_is_no_r2_and_no_correlation():
    one = ScoredValues(np.ones(5), np.arange(5.0), np.ones((5, 1)))
    assert np.isnan(r2(one)).all() and np.isnan(spearman(one)).all() and mae(one) == 1.4
    drawn_once = ScoredValues(np.arange(5.0), np.arange(5.0), np.eye(5)[:, :1])
    assert np.isnan(r2(drawn_once)).all()


def grades(seed, classes=5, count=150):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=count)
    above = 1 / (1 + np.exp(-2 * (labels[:, None] - np.arange(classes - 1) - 0.5 + draw.normal(size=(count, 1)))))
    return labels, grade_probabilities(above), draw.poisson(1.0, (count, 12)).astype(float)


def test_kappa_and_mae_of_grades_are_scikit_learn_s_with_weights():
    labels, scores, weights = grades(0)
    images = ScoredImages(labels, scores, "macro", weights, levels=np.arange(5.0))
    decided = (np.cumsum(scores, 1)[:, :-1] < 0.5).sum(1)
    expected = [cohen_kappa_score(labels, decided, weights="quadratic", sample_weight=drawn) for drawn in weights.T]
    assert quadratic_kappa(images) == pytest.approx(expected, abs=1e-9)
    expected = [mean_absolute_error(labels, decided, sample_weight=drawn) for drawn in weights.T]
    assert mae(images) == pytest.approx(expected, abs=1e-9)


def test_kappa_of_one_grade_is_undefined_and_that_of_the_truth_is_one():
    labels, _, weights = grades(1)
    assert np.isnan(
        quadratic_kappa(
            ScoredImages(np.zeros(4, int), np.eye(3)[[0] * 4], "macro", np.ones((4, 1)), levels=np.arange(3.0))
        )
    )
    certain = ScoredImages(labels, np.eye(5)[labels], "macro", weights, levels=np.arange(5.0))
    assert quadratic_kappa(certain) == pytest.approx(np.ones(12))


def test_the_decided_grade_is_the_median_and_not_the_most_probable_one():
    scores = np.array([[0.4, 0.3, 0.3], [0.1, 0.2, 0.7]])
    images = ScoredImages(np.array([0, 2]), scores, "macro", np.ones((2, 1)), levels=np.arange(3.0))
    assert images.decided.tolist() == [1, 2]


def test_thresholds_of_grades_and_their_probabilities_are_inverse_to_each_other():
    assert above_thresholds(np.array([0, 2, 3]), 4).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    labels = np.array([0, 2, 3, 1])
    assert np.array_equal(grade_probabilities(above_thresholds(labels, 4).astype(float)), np.eye(4)[labels])


def test_probabilities_of_grades_are_probabilities_where_thresholds_cross():
    scores = grade_probabilities(np.array([[0.5, 0.8, 0.2]]))
    assert scores == pytest.approx(np.array([[0.5, 0, 0.3, 0.2]]))
