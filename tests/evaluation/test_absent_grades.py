"""Grades that a store lacks: errors over them count as far as the order of the card says."""

import numpy as np
import pandas
import pytest
from sklearn.metrics import cohen_kappa_score, mean_absolute_error
from support.families import family_backbone
from support.tiny_tasks import write_task

from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.result import EvalResult
from ssl_transfer.study.predictions import StoredPredictions

pytestmark = pytest.mark.usefixtures("one_thread")
ORDER = ["none", "mild", "moderate", "severe"]  # no image is moderate
COUNT = 48


def task_of(folder, words=True, seed=0, prefix="p", grades=(0, 1, 3)):
    """Images that are the brighter the higher the grade, with much noise."""
    draw = np.random.default_rng(seed)
    levels = np.resize(grades, COUNT)
    images = 60 + 25 * levels[:, None, None, None] + 40 * draw.normal(size=(COUNT, 1, 1, 1)) + np.zeros((1, 1, 32, 32))
    names = [ORDER[level] if words else float(level) for level in levels.tolist()]
    card = {"order": ORDER} if words else {}
    columns = {"grade": names, "patient": [f"{prefix}{n}" for n in range(COUNT)]}
    splits = np.repeat(["train", "val", "test"], COUNT // 3)
    images = np.clip(images, 0, 255).astype(np.uint8)
    return write_task(folder, images, splits, columns, target="ordinal", column="grade", metric="mae", **card)


@pytest.mark.parametrize("words", [True, False], ids=["an order of words", "numbers"])
def test_errors_over_an_absent_grade_count_it(words, tmp_path):
    scoring = task_of(tmp_path, words).scoring
    truth, decided = np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])  # grades 0, 1, 3, 3 and 0, 3, 3, 1
    values = scoring.metrics(truth, np.eye(3)[decided])
    assert values["mae"] == (0 + 2 + 0 + 2) / 4
    # Σ of squared errors over their mean under independence: pairs (0, 1), (0, 3), (1, 0), (1, 3), (3, 0) and (3, 1)
    by_chance = (1 * 1 * 1 + 9 * 1 * 2 + 1 * 1 * 1 + 4 * 1 * 2 + 9 * 2 * 1 + 4 * 2 * 1) / 4
    assert values["quadratic_kappa"] == pytest.approx(1 - 8 / by_chance)
    assert values["accuracy"] == 0.5


def measured(table):
    """MAE and kappa of a table of predictions, by scikit-learn with the numbers of the order."""
    truth, decided = (table[name].map(ORDER.index) for name in ("label", "predicted"))
    kappa = cohen_kappa_score(truth, decided, labels=range(len(ORDER)), weights="quadratic")
    return {"mae": mean_absolute_error(truth, decided), "quadratic_kappa": kappa}


def test_a_result_its_external_test_and_a_study_that_reads_it_agree(tmp_path):
    task, other = task_of(tmp_path / "own"), task_of(tmp_path / "other", seed=1, prefix="q", grades=(0, 3))
    settings = {"external": [str(other.store.path)], "resamples": 20, "strengths": (0.1,)}
    folders = [tmp_path / "f", tmp_path / "g"]
    evaluate("linear_probe", family_backbone("resnet", id="a"), task, tmp_path / "r", folders, **settings)
    result = EvalResult.load(tmp_path / "r")
    expected = measured(pandas.read_parquet(tmp_path / "r/predictions.parquet"))
    assert {name: result.metrics["test"][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    wrong = CasePredictions(pandas.read_parquet(tmp_path / "r/predictions.parquet")).metrics(np.ones((COUNT // 3, 1)))
    assert wrong["mae"][0] < expected["mae"]  # some error is over the absent grade
    reader = StoredPredictions({tmp_path / "r": result}, {})
    cell = {"protocol": "linear_probe", "task": "task", "strategy": "", "fraction": 1.0, "noise": "none"}
    (run,) = reader({**cell, "noise_sigma": 0.0, "pretraining": result.backbone["pretraining"]})
    again = run.read().metrics(np.ones((COUNT // 3, 1)))
    assert {name: again[name][0] for name in expected} == pytest.approx(expected, abs=1e-6)
    external = pandas.read_parquet(tmp_path / "r/predictions-store.parquet")
    of_test = result.external["store"]["metrics"]
    assert {name: of_test[name] for name in expected} == pytest.approx(measured(external), abs=1e-6)
