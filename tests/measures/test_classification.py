"""Metrics against scikit-learn and naive references; intervals that cover."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss, f1_score, roc_auc_score
from torchmetrics.classification import MulticlassCalibrationError, MultilabelAUROC, MultilabelF1Score

from ssl_transfer.measures import resampling
from ssl_transfer.measures.metrics import (
    classification_intervals,
    classification_metrics,
    metric_sign,
    metrics_of,
    weighted_metrics,
)

NAMES = ("head", "chest", "abdomen", "pelvis")


def judge(labels, scores, averaging="macro"):
    return classification_metrics(labels, scores, averaging, NAMES[: scores.shape[1]])


def predictions(seed, images=200, classes=4, coarse=False):
    draw = np.random.default_rng(seed)
    labels = draw.choice(classes, images, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = draw.normal(size=(images, classes)) + 1.2 * np.eye(classes)[labels]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, np.round(scores * 8) / 8 if coarse else scores  # coarse: many ties


def label_predictions(seed, images=200, unknown=0.2, coarse=False):
    """Four labels of growing frequency, a share of the entries unknown."""
    draw = np.random.default_rng(seed)
    labels = (draw.random((images, 4)) < (0.1, 0.2, 0.4, 0.7)).astype(int)
    scores = 1 / (1 + np.exp(-(draw.normal(size=(images, 4)) + 1.5 * (labels - 0.5))))
    labels[draw.random((images, 4)) < unknown] = -1
    return labels, np.round(scores * 8) / 8 if coarse else scores


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("averaging", ["macro", "weighted"])
@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_scikit_learn_s(classes, averaging, coarse):
    labels, scores = predictions(classes, classes=classes, coarse=coarse)
    found, guess = judge(labels, scores, averaging), scores.argmax(1)
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
    assert judge(labels, scores)["auroc"] == pytest.approx(expected)


def test_the_calibration_error_is_the_naive_one():
    """Guo et al. 2017, equation 3: Σ_b |B_b| / n · |acc(B_b) − conf(B_b)| over 15 bins of the top class."""
    labels, scores = predictions(2)
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(len(labels)) if b / 15 <= scores[i].max() < (b + 1) / 15]
        if inside:
            right = np.mean([scores[i].argmax() == labels[i] for i in inside])
            expected += len(inside) / len(labels) * abs(right - np.mean([scores[i].max() for i in inside]))
    assert judge(labels, scores)["ece"] == pytest.approx(expected)


def test_a_confident_and_correct_classifier_is_perfect():
    labels = np.array([0, 1, 2, 1])
    found = judge(labels, np.eye(3)[labels])
    by_class = [name for name, metric in metrics_of("classification").items() if metric.per_class]
    areas = {f"{metric}_{name}": 1 for metric in by_class for name in NAMES[:3]}
    expected = {"accuracy": 1, "balanced_accuracy": 1, "f1": 1, "mcc": 1, "ece": 0, "brier": 0}
    assert found == pytest.approx(expected | dict.fromkeys(by_class, 1) | areas)


def test_a_class_without_an_image_is_left_out():
    labels, scores = predictions(3, classes=3)
    kept = labels != 2
    found = judge(labels[kept], scores[kept])
    recalls = [np.mean(scores[kept].argmax(1)[labels[kept] == c] == c) for c in (0, 1)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["auroc"] == pytest.approx(
        np.mean([roc_auc_score(labels[kept] == c, scores[kept][:, c]) for c in (0, 1)])
    )


def test_with_a_single_class_there_is_no_auroc():
    labels, (_, scores) = np.zeros(4, int), predictions(0, 4, 2)
    assert np.isnan(judge(labels, scores)["auroc"])
    assert "auroc" not in classification_intervals(labels, scores, np.arange(4), "macro", NAMES[:2], 20, 0)


def test_an_interval_is_the_percentiles_of_resampled_patients():
    """Against a naive bootstrap that concatenates the images of drawn patients."""
    labels, scores = predictions(4, images=120)
    patients = np.repeat(np.arange(30), 4)
    found = classification_intervals(labels, scores, patients, "macro", NAMES, 4000, 0)
    draw, samples = np.random.default_rng(1), []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(patients == p) for p in draw.integers(30, size=30)])
        samples.append(judge(labels[rows], scores[rows]))
    assert set(found) == set(samples[0])
    for metric in found:
        expected = np.percentile([sample[metric] for sample in samples], [2.5, 97.5])
        assert found[metric] == pytest.approx(expected, abs=0.04), metric  # steps of metrics at an operating point


def test_patient_intervals_cover_the_truth_where_image_intervals_do_not():
    """Images of one patient are right or wrong together; the truth is an accuracy of 0.7."""
    covered = {"patient": 0, "image": 0}
    for trial in range(100):
        right = np.repeat(np.random.default_rng(trial).random(60) < 0.7, 10).astype(int)
        scores = np.stack([1 - right, right], 1) * 0.8 + 0.1
        for unit, groups in (("patient", np.repeat(np.arange(60), 10)), ("image", np.arange(600))):
            low, high = classification_intervals(np.ones(600, int), scores, groups, "macro", NAMES[:2], 200, trial)[
                "accuracy"
            ]
            covered[unit] += low <= 0.7 <= high
    assert covered["patient"] >= 88 and covered["image"] < 70


def test_intervals_belong_to_their_seed_and_can_be_left_out():
    labels, scores = predictions(5)
    one, same, other = (
        classification_intervals(labels, scores, np.arange(200), "macro", NAMES, 50, seed) for seed in (0, 0, 1)
    )
    assert one == same != other
    assert classification_intervals(labels, scores, np.arange(200), "macro", NAMES, 0, 0) == {}


@pytest.mark.parametrize("classes", [3, 4])
def test_each_class_has_its_auroc_against_the_rest_and_auroc_is_their_mean(classes):
    labels, scores = predictions(6, classes=classes)
    found = judge(labels, scores)
    areas = [roc_auc_score(labels == c, scores[:, c]) for c in range(classes)]
    assert [found[f"auroc_{name}"] for name in NAMES[:classes]] == pytest.approx(areas)
    assert found["auroc"] == pytest.approx(np.mean(areas))


def test_with_two_classes_auroc_is_that_of_the_second_and_there_is_none_per_class():
    labels, scores = predictions(7, classes=2)
    found = judge(labels, scores)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores[:, 1]))
    assert [name for name in found if name.startswith("auroc")] == ["auroc"]


def test_a_class_without_an_image_has_no_auroc_and_no_interval_of_it():
    labels, scores = predictions(3, classes=3)
    kept = labels != 2
    assert np.isnan(judge(labels[kept], scores[kept])["auroc_abdomen"])
    intervals = classification_intervals(labels[kept], scores[kept], np.flatnonzero(kept), "macro", NAMES[:3], 20, 0)
    assert "auroc_abdomen" not in intervals and "auroc_head" in intervals


@pytest.mark.parametrize("classes", [2, 4])
def test_the_brier_score_is_scikit_learn_s(classes):
    """Of two classes that of the second's probability, otherwise summed over classes."""
    labels, scores = predictions(8, classes=classes)
    expected = (
        brier_score_loss(labels, scores[:, 1])
        if classes == 2
        else brier_score_loss(labels, scores, scale_by_half=False, labels=range(classes))
    )
    assert judge(labels, scores)["brier"] == pytest.approx(expected)


def test_the_calibration_error_is_torchmetrics_s():
    labels, scores = predictions(9)
    peer = MulticlassCalibrationError(4, n_bins=15)(torch.from_numpy(scores), torch.from_numpy(labels))
    assert judge(labels, scores)["ece"] == pytest.approx(peer.item(), abs=1e-5)


@pytest.mark.parametrize("coarse", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize("averaging", ["macro", "weighted"])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_metrics_of_several_labels_are_scikit_learn_s_on_the_known_entries(unknown, averaging, coarse):
    labels, scores = label_predictions(0, unknown=unknown, coarse=coarse)
    found = judge(labels, scores, averaging)
    known = [(labels[at, c], scores[at, c]) for c, at in enumerate((labels >= 0).T)]
    shares = [truth.sum() for truth, _ in known] if averaging == "weighted" else None
    for name, measure, weights in (
        ("accuracy", lambda truth, p: accuracy_score(truth, p > 0.5), None),
        ("balanced_accuracy", lambda truth, p: balanced_accuracy_score(truth, p > 0.5), None),
        ("f1", lambda truth, p: f1_score(truth, p > 0.5), shares),
        ("auroc", roc_auc_score, shares),
        ("brier", brier_score_loss, None),
    ):
        assert found[name] == pytest.approx(np.average([measure(*pair) for pair in known], weights=weights)), name
    areas = [roc_auc_score(*pair) for pair in known]
    assert [found[f"auroc_{name}"] for name in NAMES] == pytest.approx(areas)


@pytest.mark.parametrize("averaging", ["macro", "weighted"])
def test_metrics_of_several_labels_are_torchmetrics_s(averaging):
    labels, scores = label_predictions(1)
    pair = torch.from_numpy(scores), torch.from_numpy(labels)
    found = judge(labels, scores, averaging)
    assert found["auroc"] == pytest.approx(MultilabelAUROC(4, averaging, ignore_index=-1)(*pair).item(), abs=1e-5)
    peer = MultilabelF1Score(4, average=averaging, ignore_index=-1)(*pair)
    assert found["f1"] == pytest.approx(peer.item(), abs=1e-5)


def test_the_calibration_error_of_several_labels_is_the_naive_mean_over_labels():
    labels, scores = label_predictions(2)
    errors = []
    for c in range(4):
        at = labels[:, c] >= 0
        truth, p = labels[at, c], scores[at, c]
        bins = np.minimum((p * 15).astype(int), 14)
        errors.append(sum(np.mean(bins == b) * abs(np.mean((truth - p)[bins == b])) for b in set(bins)))
    assert judge(labels, scores)["ece"] == pytest.approx(np.mean(errors))


@pytest.mark.parametrize("outcome", [0, 1, -1], ids=["never", "always", "unknown"])
def test_a_label_without_both_outcomes_is_left_out_of_the_averages_and_has_no_auroc(outcome):
    labels, scores = label_predictions(3)
    labels[:, 1] = outcome
    kept = [0, 2, 3]
    found = judge(labels, scores)
    expected = classification_metrics(labels[:, kept], scores[:, kept], "macro", [NAMES[c] for c in kept])
    assert np.isnan(found["auroc_chest"])
    for name in ("auroc", "f1", "balanced_accuracy"):
        assert found[name] == pytest.approx(expected[name])
    whole = np.mean((scores[:, 1] > 0.5) == outcome)
    accuracy = expected["accuracy"] if outcome < 0 else (3 * expected["accuracy"] + whole) / 4
    assert found["accuracy"] == pytest.approx(accuracy)


def test_without_any_known_entry_there_is_no_metric():
    found = judge(np.full((5, 2), -1), np.full((5, 2), 0.3))
    assert np.isnan(list(found.values())).all()
    assert (
        classification_intervals(np.full((5, 2), -1), np.full((5, 2), 0.3), np.arange(5), "macro", NAMES[:2], 9, 0)
        == {}
    )


@pytest.mark.parametrize("averaging", ["macro", "weighted"])
@pytest.mark.parametrize("make", [predictions, label_predictions], ids=["classes", "labels"])
def test_a_weight_counts_as_that_many_copies(make, averaging):
    labels, scores = make(10, images=60, coarse=True)
    times = np.random.default_rng(0).poisson(1.0, (60, 8))
    found = weighted_metrics(labels, scores, averaging, NAMES, times.astype(float))
    for sample in range(8):
        rows = np.repeat(np.arange(60), times[:, sample])
        expected = judge(labels[rows], scores[rows], averaging)
        assert {name: values[sample] for name, values in found.items()} == pytest.approx(expected, nan_ok=True)


def test_intervals_do_not_depend_on_how_many_samples_are_held_at_once(monkeypatch):
    labels, scores = label_predictions(11)
    one = classification_intervals(labels, scores, np.arange(200) // 4, "macro", NAMES, 50, 0)
    monkeypatch.setattr(resampling, "DRAWN_AT_ONCE", 7 * 200)
    other = classification_intervals(labels, scores, np.arange(200) // 4, "macro", NAMES, 50, 0)
    assert list(other) == list(one) and np.allclose(list(other.values()), list(one.values()))


def test_a_wrong_number_of_names_is_refused():
    labels, scores = predictions(0)
    with pytest.raises(ValueError, match="scores of 4 classes, names of 3"):
        classification_metrics(labels, scores, "macro", NAMES[:3])


@pytest.mark.parametrize(("metric", "sign"), [("ece", -1), ("brier", -1), ("auroc", 1), ("auroc_ece", 1), ("f1", 1)])
def test_the_sign_of_a_metric_is_minus_one_if_less_is_better(metric, sign):
    assert metric_sign(metric) == sign
