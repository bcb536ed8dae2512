"""Metrics read from curves, and MCC: scikit-learn's, weights included."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_curve

from ssl_transfer.measures.curves import RankedCounts
from ssl_transfer.measures.metrics import classification_metrics, weighted_metrics

NAMES = ("head", "chest", "abdomen", "pelvis")


def images(seed, classes=4, coarse=False, count=150):
    """Labels, scores and whole weights of some images."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=count)
    logits = draw.normal(size=(count, classes)) + np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, np.round(scores * 8) / 8 if coarse else scores, draw.poisson(1.0, count).astype(float)


def weighted(labels, scores, weights, **options):
    values = weighted_metrics(labels, scores, "macro", NAMES[: scores.shape[1]], weights[:, None], **options)
    return {name: value[0] for name, value in values.items()}


def sensitivity(truth, score, weights, specificity):
    fpr, tpr, _ = roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
    return tpr[1 - fpr >= specificity - 1e-12].max()


def specificity(truth, score, weights, sensitivity):
    fpr, tpr, _ = roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
    return (1 - fpr[tpr >= sensitivity - 1e-12]).max()


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("classes", [2, 4])
def test_values_per_class_and_their_mean_are_scikit_learn_s_with_weights(classes, coarse):
    labels, scores, weights = images(classes, classes, coarse)
    found = weighted(labels, scores, weights, operating_point=0.8)
    for name, measure in (
        ("average_precision", lambda *pair: average_precision_score(*pair, sample_weight=weights)),
        ("sensitivity_at_specificity", lambda *pair: sensitivity(*pair, weights, 0.8)),
        ("specificity_at_sensitivity", lambda *pair: specificity(*pair, weights, 0.8)),
    ):
        expected = [measure(labels == c, scores[:, c]) for c in range(classes)]
        if classes > 2:
            assert [found[f"{name}_{one}"] for one in NAMES] == pytest.approx(expected, abs=1e-9), name
            assert found[name] == pytest.approx(np.mean(expected), abs=1e-9), name
        else:
            assert found[name] == pytest.approx(expected[1], abs=1e-9), name
            assert f"{name}_head" not in found


@pytest.mark.parametrize("classes", [2, 4])
def test_mcc_is_scikit_learn_s_with_weights(classes):
    labels, scores, weights = images(classes, classes)
    expected = matthews_corrcoef(labels, scores.argmax(1), sample_weight=weights)
    assert weighted(labels, scores, weights)["mcc"] == pytest.approx(expected, abs=1e-9)


def test_metrics_of_several_labels_are_scikit_learn_s_means_over_the_known_entries():
    draw = np.random.default_rng(0)
    labels = (draw.random((150, 4)) < (0.1, 0.2, 0.4, 0.7)).astype(int)
    scores = 1 / (1 + np.exp(-(draw.normal(size=(150, 4)) + 1.5 * (labels - 0.5))))
    labels[draw.random((150, 4)) < 0.2] = -1
    weights = draw.poisson(1.0, 150).astype(float)
    found = weighted(labels, scores, weights)
    known = [(labels[at, c], scores[at, c], weights[at]) for c, at in enumerate((labels >= 0).T)]
    for name, measure in (
        ("average_precision", lambda truth, p, w: average_precision_score(truth, p, sample_weight=w)),
        ("sensitivity_at_specificity", lambda truth, p, w: sensitivity(truth, p, w, 0.95)),
        ("specificity_at_sensitivity", lambda truth, p, w: specificity(truth, p, w, 0.95)),
        ("mcc", lambda truth, p, w: matthews_corrcoef(truth, p > 0.5, sample_weight=w)),
    ):
        assert found[name] == pytest.approx(np.mean([measure(*each) for each in known]), abs=1e-9), name


def test_mcc_is_zero_where_one_class_is_predicted_and_nan_where_one_is_true():
    scores = np.tile([0.9, 0.1], (6, 1))
    assert classification_metrics(np.array([0, 1] * 3), scores, "macro", NAMES[:2])["mcc"] == 0
    assert np.isnan(classification_metrics(np.zeros(6, int), scores, "macro", NAMES[:2])["mcc"])


def test_without_both_outcomes_there_is_no_operating_point_and_without_a_positive_no_average_precision():
    scores = np.random.default_rng(0).random((6, 2))
    found = classification_metrics(np.zeros(6, int), scores, "macro", NAMES[:2])
    undefined = ("sensitivity_at_specificity", "specificity_at_sensitivity", "average_precision")
    assert np.isnan([found[name] for name in undefined]).all()


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
def test_the_scores_of_positives_are_thresholds_enough(coarse):
    labels, scores, _ = images(5, 2, coarse)
    weights = np.random.default_rng(6).poisson(1.0, (len(labels), 20)).astype(float)
    given = labels == 1, labels == 0, scores[:, 1], weights
    few, every = (RankedCounts.of(*given, at_positives=at_positives) for at_positives in (True, False))
    assert coarse or len(few.thresholds) < len(every.thresholds)
    assert np.allclose(few.average_precision(), every.average_precision(), rtol=0, atol=1e-12)
    for at in (0.5, 0.9):
        assert np.array_equal(few.sensitivity_at(at), every.sensitivity_at(at))
        assert np.array_equal(few.specificity_at(at), every.specificity_at(at))


@pytest.mark.parametrize("point", [0.5, 0.9, 0.99])
def test_a_stricter_specificity_never_gives_more_sensitivity(point):
    labels, scores, weights = images(3)
    strict, loose = (
        weighted(labels, scores, weights, operating_point=at)["sensitivity_at_specificity"] for at in (point, point / 2)
    )
    assert strict <= loose
