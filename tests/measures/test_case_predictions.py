"""Any metric of stored predictions under weights of the cases: the metric of cases that are repeated as often."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from ssl_transfer.measures.case_predictions import CasePredictions

CLASSES = ["neck", "thorax", "pelvis"]


@pytest.fixture
def weights() -> np.ndarray:
    """How often each of 60 cases is drawn in four resamples; every case at least once in the first."""
    drawn = np.random.default_rng(1).integers(0, 3, (60, 4))
    drawn[:, 0] = 1
    return drawn


def multiclass() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    scores = rng.dirichlet(np.ones(3), 60) + 0.5 * np.eye(3)[truth]
    scores /= scores.sum(1, keepdims=True)
    columns = {f"score_{name}": scores[:, c] for c, name in enumerate(CLASSES)}
    return pd.DataFrame({"row": np.arange(60), "patient": None, "label": np.array(CLASSES)[truth], **columns})


def multilabel() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (60, 3))
    scores = np.clip(0.5 + 0.2 * (2 * truth - 1) + rng.normal(0, 0.2, (60, 3)), 0, 1)
    labels = {f"label_{name}": truth[:, c] for c, name in enumerate(CLASSES)}
    columns = {f"score_{name}": scores[:, c] for c, name in enumerate(CLASSES)}
    return pd.DataFrame({"row": np.arange(60), "patient": np.arange(60) // 3, **labels, **columns})


def segmentation() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    cases = [(f"case {i // 2}", f"p{i // 8}", ["liver", "tumour"][i % 2]) for i in range(60)]
    table = pd.DataFrame(cases, columns=["case", "patient", "class"])
    return table.assign(dice=rng.random(60), hd95=rng.random(60), truth_voxels=rng.integers(0, 3, 60), found_voxels=1)


def repeated(table: pd.DataFrame, weights: np.ndarray) -> list[pd.DataFrame]:
    return [table.iloc[np.repeat(np.arange(len(table)), column)] for column in weights.T]


def one_vs_rest(table: pd.DataFrame) -> float:
    scores = table[[f"score_{name}" for name in CLASSES]].to_numpy()
    truth = [CLASSES.index(name) for name in table["label"]]
    return roc_auc_score(truth, scores, multi_class="ovr", average="macro")


def found(table: pd.DataFrame) -> np.ndarray:
    return np.array(CLASSES)[table[[f"score_{name}" for name in CLASSES]].to_numpy().argmax(1)]


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", lambda table: accuracy_score(table["label"], found(table))),
        ("balanced_accuracy", lambda table: balanced_accuracy_score(table["label"], found(table))),
        ("f1", lambda table: f1_score(table["label"], found(table), average="macro")),
        ("auroc", one_vs_rest),
        ("auroc_neck", lambda table: roc_auc_score(table["label"] == "neck", table["score_neck"])),
    ],
)
def test_multiclass_metrics_of_a_resample_are_those_of_scikit_learn(metric, reference, weights):
    table = multiclass()
    ours = CasePredictions(table).metric(metric, weights)
    assert ours == pytest.approx([reference(resample) for resample in repeated(table, weights)])


def test_multilabel_auroc_and_f1_of_a_resample_are_those_of_scikit_learn(weights):
    table = multilabel()
    predictions, truth, scores = CasePredictions(table), table.filter(like="label_"), table.filter(like="score_")
    resamples = list(zip(repeated(truth, weights), repeated(scores, weights), strict=True))
    assert predictions.metric("auroc", weights) == pytest.approx(
        [roc_auc_score(y, s, average="macro") for y, s in resamples]
    )
    expected = [f1_score(y, s.to_numpy() > 0.5, average="macro") for y, s in resamples]
    assert predictions.metric("f1", weights) == pytest.approx(expected)


def test_dice_of_a_resample_is_the_mean_over_cases_and_then_over_classes(weights):
    table = segmentation()
    predictions, resamples = CasePredictions(table), repeated(table, weights)
    by_class = [resample.groupby("class")["dice"].mean() for resample in resamples]
    assert predictions.metric("dice", weights) == pytest.approx([means.mean() for means in by_class])
    assert predictions.metric("dice_liver", weights) == pytest.approx([means["liver"] for means in by_class])
    present = [resample[resample["truth_voxels"] > 0].groupby("class")["dice"].mean().mean() for resample in resamples]
    assert predictions.metric("dice_present", weights) == pytest.approx(present)


def test_resamples_in_parts_give_the_same_numbers(weights, monkeypatch):
    predictions = CasePredictions(multiclass())
    whole = predictions.metric("auroc", weights)
    monkeypatch.setattr("ssl_transfer.measures.case_predictions.DRAWN_AT_ONCE", 100)
    assert predictions.metric("auroc", weights) == pytest.approx(whole)


def test_a_case_without_a_patient_is_a_patient_of_its_own():
    assert len(set(CasePredictions(multiclass()).patients)) == 60
    assert len(set(CasePredictions(multilabel()).patients)) == 20
    assert len(set(CasePredictions(segmentation().assign(patient=None)).patients)) == 30


@pytest.mark.parametrize("metric", ["dice", "auroc_liver", "loss", "nonsense"])
def test_a_metric_that_these_predictions_do_not_have_is_an_error(metric):
    with pytest.raises(KeyError):
        CasePredictions(multiclass()).metric(metric, np.ones((60, 1)))
