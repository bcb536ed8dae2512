"""Metrics against scikit-learn and naive references; intervals that cover."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from ssl_transfer.evaluate.metrics import classification_metrics, patient_intervals


def predictions(seed, images=200, classes=4, coarse=False):
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, images, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = draw.normal(size=(images, classes)) + 1.2 * np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, np.round(scores * 8) / 8 if coarse else scores  # coarse: many ties


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("averaging", ["macro", "weighted"])
@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_scikit_learn_s(classes, averaging, coarse):
    labels, scores = predictions(classes, classes=classes, coarse=coarse)
    found, guess = classification_metrics(labels, scores, averaging), scores.argmax(1)
    area = np.average(
        [roc_auc_score(labels == c, scores[:, c]) for c in range(classes)],
        weights=np.bincount(labels) if averaging == "weighted" else None,
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, guess))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, guess))
    assert found["f1"] == pytest.approx(f1_score(labels, guess, average=averaging))
    assert found["auroc"] == pytest.approx(area)


def test_the_macro_auroc_of_several_classes_is_scikit_learn_s_one_against_the_rest():
    labels, scores = predictions(1)
    expected = roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    assert classification_metrics(labels, scores, "macro")["auroc"] == pytest.approx(expected)


def test_the_calibration_error_is_the_naive_one():
    """Guo et al. 2017, equation 3: Σ_b |B_b| / n · |acc(B_b) − conf(B_b)| over 15 bins of the top class."""
    labels, scores = predictions(2)
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(len(labels)) if b / 15 <= scores[i].max() < (b + 1) / 15]
        if inside:
            right = np.mean([scores[i].argmax() == labels[i] for i in inside])
            expected += len(inside) / len(labels) * abs(right - np.mean([scores[i].max() for i in inside]))
    assert classification_metrics(labels, scores, "macro")["ece"] == pytest.approx(expected)


def test_a_sure_and_right_classifier_is_perfect():
    labels = np.array([0, 1, 2, 1])
    found = classification_metrics(labels, np.eye(3)[labels], "macro")
    assert found == pytest.approx({"accuracy": 1, "balanced_accuracy": 1, "auroc": 1, "f1": 1, "ece": 0})


def test_a_class_without_an_image_is_left_out():
    labels, scores = predictions(3, classes=3)
    kept = labels != 2
    found = classification_metrics(labels[kept], scores[kept], "macro")
    recalls = [np.mean(scores[kept].argmax(1)[labels[kept] == c] == c) for c in (0, 1)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["auroc"] == pytest.approx(
        np.mean([roc_auc_score(labels[kept] == c, scores[kept][:, c]) for c in (0, 1)])
    )


def test_with_a_single_class_there_is_no_auroc():
    labels, (_, scores) = np.zeros(4, int), predictions(0, 4, 2)
    assert np.isnan(classification_metrics(labels, scores, "macro")["auroc"])
    assert "auroc" not in patient_intervals(labels, scores, np.arange(4), "macro", 20, 0)


def test_an_interval_is_the_percentiles_of_resampled_patients():
    """Against a naive bootstrap that concatenates the images of drawn patients."""
    labels, scores = predictions(4, images=120)
    patients = np.repeat(np.arange(30), 4)
    found = patient_intervals(labels, scores, patients, "macro", 4000, 0)
    draw, samples = np.random.default_rng(1), []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in draw.integers(30, size=30)])
        samples.append(classification_metrics(labels[rows], scores[rows], "macro"))
    for metric in ("accuracy", "balanced_accuracy", "auroc", "f1", "ece"):
        expected = np.percentile([sample[metric] for sample in samples], [2.5, 97.5])
        assert found[metric] == pytest.approx(expected, abs=0.02), metric


def test_patient_intervals_cover_the_truth_where_image_intervals_do_not():
    """Images of one patient are right or wrong together; the truth is an accuracy of 0.7."""
    covered = {"patient": 0, "image": 0}
    for trial in range(100):
        right = np.repeat(np.random.default_rng(trial).random(60) < 0.7, 10).astype(int)
        scores = np.stack([1 - right, right], 1) * 0.8 + 0.1
        for unit, groups in (("patient", np.repeat(np.arange(60), 10)), ("image", np.arange(600))):
            low, high = patient_intervals(np.ones(600, int), scores, groups, "macro", 200, trial)["accuracy"]
            covered[unit] += low <= 0.7 <= high
    assert covered["patient"] >= 88 and covered["image"] < 70


def test_intervals_belong_to_their_seed_and_can_be_left_out():
    labels, scores = predictions(5)
    one, same, other = (patient_intervals(labels, scores, np.arange(200), "macro", 50, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert patient_intervals(labels, scores, np.arange(200), "macro", 0, 0) == {}
