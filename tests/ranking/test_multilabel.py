"""Ranking for tasks of several labels, and metrics that a fold cannot have."""

import numpy as np
import pytest
from support.rankings import CLASSES, CLEAR, THREE, cohort, criteria_of, ranked, reader, train_and_val_rows

from ssl_transfer.errors import SslTransferError, UsageError
from ssl_transfer.features import extract_features
from ssl_transfer.measures import transferability

# several labels


@pytest.fixture
def multilabel(workdir):
    draw = np.random.default_rng(0)
    bright = (np.arange(60) % CLASSES == 0).astype(int).astype(str)
    dark = np.where(draw.random(60) < 0.2, "unknown", (np.arange(60) % CLASSES == 2).astype(int).astype(str))
    return cohort(workdir / "several", {"bright": bright, "dark": dark}, target=["bright", "dark"], metric="auroc")


def test_multi_label_tasks_have_logme_and_the_probes_and_a_caveat_says_so(workdir, multilabel):
    answer = ranked(multilabel, THREE, workdir / "out")
    for one in answer["backbones"]:
        assert {name for name, value in criteria_of(answer, one["name"]).items() if value is not None} == {
            "logme",
            "knn",
            "linear_probe",
        }
        assert set(one["intervals"]) == {"logme", "knn", "linear_probe"}
    assert answer["order"][0] == "clear"
    assert any("LogME" in said and "multi-label" in said for said in answer["caveats"])


def test_logme_of_several_labels_is_the_mean_over_labels_where_they_are_known(workdir, multilabel):
    rows = train_and_val_rows(multilabel)
    features, labels = extract_features(reader(*CLEAR), multilabel.store).values[rows], multilabel.labels[rows]
    assert (labels < 0).any()
    each = [
        transferability.logme(features[column >= 0], column[column >= 0], target="multilabel") for column in labels.T
    ]
    value = criteria_of(ranked(multilabel, {"it": CLEAR}, workdir / "out", resamples=0), "it")["logme"]
    assert value == pytest.approx(np.mean(each), rel=1e-9)


def test_a_score_of_classes_cannot_order_backbones_for_several_labels(workdir, multilabel):
    with pytest.raises(UsageError, match=r"by=gbc.*linear_probe"):
        ranked(multilabel, {"it": CLEAR}, workdir / "out", by="gbc", resamples=0)


@pytest.mark.parametrize("labelled", ["everywhere", "for a few"])
def test_a_label_so_rare_that_some_resamples_lack_it_can_be_ranked(workdir, labelled):
    """Seventeen patients: a resample leaves out any two of them one time in eight."""
    rare = np.array(["0"] * 60, object)
    rare[[3, 30]] = "1"
    if labelled == "for a few":
        rare[[n for n in range(60) if n % 12 and n not in (3, 30)]] = None
    task = cohort(workdir / "task", {"rare": rare}, target=["rare"], metric="accuracy")
    answer = ranked(task, {"it": CLEAR}, workdir / "out", resamples=100)
    low, high = answer["backbones"][0]["intervals"]["logme"]
    assert low - 1e-9 <= criteria_of(answer, "it")["logme"] <= high + 1e-9


def test_an_auroc_that_no_fold_can_have_is_refused_with_a_reason(workdir):
    """Patients of one class each, and a fold for each patient."""
    who = np.repeat(np.arange(20) % 2, 3).astype(str)
    task = cohort(workdir / "task", {"label": who}, metric="auroc")
    with pytest.raises(SslTransferError):
        ranked(task, {"it": CLEAR}, workdir / "out", folds=17, resamples=5)
    assert not (workdir / "out").exists()


def test_a_metric_that_is_undefined_is_refused_with_a_reason(workdir):
    never = {"a": ["0"] * 60, "b": ["0"] * 60}
    task = cohort(workdir / "never", never, target=["a", "b"], metric="auroc")
    with pytest.raises(SslTransferError):
        ranked(task, {"it": CLEAR}, workdir / "out", resamples=5)
