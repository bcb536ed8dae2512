"""Curves and confusion matrices of a result and of the arms of a study."""

import re
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, confusion_matrix, precision_recall_curve, roc_auc_score, roc_curve
from support.pages import build, predictions, study

from ssl_transfer.evaluation.pictures import confusion_svg, curves_svg, write_pictures
from ssl_transfer.measures.case_curves import MOST_POINTS, confusion, curves
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.study.statistics import PredictedRun, arm_curves

NAMES = ("none", "mild & more", "<severe>")


def cases(seed=0, count=200, names=NAMES):
    draw = np.random.default_rng(seed)
    labels = draw.integers(len(names), size=count)
    scores = np.exp(draw.normal(size=(count, len(names))) + np.eye(len(names))[labels])
    scores /= scores.sum(1, keepdims=True)
    columns = {f"score_{name}": scores[:, code] for code, name in enumerate(names)}
    return CasePredictions(
        pd.DataFrame({"row": range(count), "patient": None, "label": np.array(names)[labels], **columns})
    )


def test_the_confusion_matrix_is_scikit_learn_s():
    given = cases()
    expected = confusion_matrix(given.truth, given.predicted.argmax(1))
    assert np.array_equal(confusion(given).drop(columns="true"), expected)


def test_the_counts_of_labels_add_up_to_the_known_entries():
    draw = np.random.default_rng(0)
    table = {"row": range(50), "patient": None}
    for name in ("Mass", "Edema"):
        table |= {f"label_{name}": draw.integers(-1, 2, 50), f"score_{name}": draw.random(50)}
    counts = confusion(CasePredictions(pd.DataFrame(table))).set_index("label")
    for name in ("Mass", "Edema"):
        known = table[f"label_{name}"] >= 0
        truth, above = table[f"label_{name}"][known], table[f"score_{name}"][known] > 0.5
        assert counts.loc[name].tolist() == confusion_matrix(truth, above).ravel().tolist()


@pytest.mark.parametrize("names", [NAMES, NAMES[:2]], ids=["three", "two"])
def test_the_curves_are_scikit_learn_s(names):
    given = cases(names=names)
    points = curves(given)
    assert list(dict.fromkeys(points["class"])) == list(names if len(names) > 2 else names[1:])
    for name, of_class in points.groupby("class"):
        truth, score = given.truth == names.index(name), given.predicted[:, names.index(name)]
        rates, sensitivities, _ = roc_curve(truth, score, drop_intermediate=False)
        assert of_class["false_positive_rate"].tolist() == pytest.approx(rates[1:])
        assert of_class["sensitivity"].tolist() == pytest.approx(sensitivities[1:])
        precision, _, _ = precision_recall_curve(truth, score)
        assert of_class["precision"].tolist() == pytest.approx(precision[:-1][::-1])


def test_long_curves_are_thinned_and_keep_their_area():
    given = cases(count=8000, names=NAMES[:2])
    points = curves(given)
    expected = roc_auc_score(given.truth, given.predicted[:, 1])
    assert len(points) == MOST_POINTS
    area = auc(np.append(0, points["false_positive_rate"]), np.append(0, points["sensitivity"]))
    assert area == pytest.approx(expected, abs=1e-3)


def test_pictures_have_every_number_and_no_name_becomes_markup():
    given = cases()
    matrix, lines = confusion_svg(confusion(given)), curves_svg(curves(given))
    for count in confusion(given).drop(columns="true").to_numpy().ravel():
        assert f">{count}</text>" in matrix
    for svg in (matrix, lines):
        assert "&lt;severe&gt;" in svg and "<severe>" not in svg and "prefers-color-scheme:dark" in svg
        ElementTree.fromstring(svg)  # well-formed
    assert len(re.findall('class="c" stroke="#[0-9a-f]+" d="M[^"]*L', lines)) == 6  # three classes in two panels


def test_numbers_and_masks_have_no_pictures(tmp_path):
    table = pd.DataFrame({"row": [0, 1], "patient": None, "label": [1.0, 2.0], "predicted": [1.1, 2.2]})
    assert write_pictures(tmp_path, CasePredictions(table)) == () and not list(tmp_path.iterdir())


def test_the_mean_curve_of_an_arm_has_the_mean_area_of_its_runs():
    def runs(cell):
        return [PredictedRun(seed, 0, partial(cases, seed, 4000, NAMES[:2])) for seed in range(3)]

    points, cells = arm_curves({"task": "x"}, ["a"], runs)
    roc = points[points["curve"] == "roc"]
    areas = [
        roc_auc_score(given.truth, given.predicted[:, 1])
        for given in (cases(seed, 4000, NAMES[:2]) for seed in range(3))
    ]
    assert auc(roc["x"], roc["y"]) == pytest.approx(np.mean(areas), abs=0.005)
    assert cells.groupby("true")["share"].sum().tolist() == pytest.approx([1, 1]) and set(cells["runs"]) == {3}


def test_the_report_has_curves_and_matrices_of_its_arms_as_figures_and_tables(tmp_path):
    frame = study({"in-domain CT": 0.2, "photographs": 0.1, "scratch": 0.0})
    page = build(tmp_path, frame, predictions=predictions).read_text()
    assert "Curves and confusion" in page
    for kind in ("curves", "confusion"):
        assert list((tmp_path / "figures").glob(f"{kind}_*.svg")) and list((tmp_path / "figures").glob(f"{kind}_*.png"))
        assert set(pd.read_csv(tmp_path / "tables" / f"{kind}.csv")["pretraining"]) == set(frame["pretraining"])
