"""Subgroups: metrics of each group, the worst one, and a gap that chance does not explain."""

from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from sklearn.metrics import roc_auc_score
from support.tiny_tasks import spots, write_task

from ssl_transfer.cli.evaluate import as_text
from ssl_transfer.data.subgroups import subgroup_names
from ssl_transfer.errors import TaskError
from ssl_transfer.evaluation.contamination import case_positions
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.evaluation.subgroups import FEWEST_PATIENTS, compare_groups, subgroup_metrics
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.recipe import EvaluateRecipe
from ssl_transfer.result import EvalResult


def made_cases(groups, separation, seed=0, images=2):
    """Binary predictions of a patient per entry of `groups`, whose score separates the classes by `separation[group]` SD."""
    random = np.random.default_rng(seed)
    names = np.repeat(np.array(groups, object), images)
    patients = np.repeat([f"p{number}" for number in range(len(groups))], images)
    labels = np.repeat(random.permutation(np.arange(len(groups)) % 2), images)
    logit = random.normal(size=len(names)) + np.array([separation[name] for name in names]) * labels
    positive = 1 / (1 + np.exp(-logit))
    table = pandas.DataFrame(
        {"row": range(len(names)), "patient": patients, "label": np.array(["ill", "well"])[labels]}
    )
    return CasePredictions(table.assign(score_ill=1 - positive, score_well=positive)), names


def compared(groups, separation, resamples=200, **options):
    cases, names = made_cases(groups, separation, **options)
    return cases, names, compare_groups(cases, names, "auroc", ("auroc", "accuracy"), resamples, seed=0)


def test_each_group_has_its_own_metrics():
    cases, names, found = compared(["F"] * 40 + ["M"] * 40, {"F": 1.0, "M": 1.0}, resamples=0)
    for entry in found["groups"]:
        of_group = cases.table[names == entry["value"]]
        expected = roc_auc_score(of_group["label"] == "well", of_group["score_well"])
        assert entry["metrics"]["auroc"] == pytest.approx(expected, abs=1e-6)
        assert (entry["cases"], entry["patients"]) == (80, 40) and entry["interval"] is None


def test_a_planted_gap_is_found_with_its_groups():
    _, _, found = compared(["F"] * 60 + ["M"] * 60, {"F": 3.0, "M": 0.2})
    assert (found["worst"], found["best"]) == ("M", "F") and found["p"] <= 0.01
    low, high = found["gap_interval"]
    assert 0 < low < found["gap"] < high and found["gap"] > found["gap_by_chance"]


def test_without_a_difference_gaps_beyond_chance_are_as_rare_as_stated():
    groups = ["a", "b", "c", "d"] * 15
    found = [compared(groups, dict.fromkeys("abcd", 1.0), resamples=1, seed=seed)[2] for seed in range(40)]
    assert sum(each["p"] <= 0.05 for each in found) <= 6  # P(more) < 1 % at a level of 5 %
    assert min(each["gap"] for each in found) > 0  # and yet there is a gap in every one


def test_a_metric_of_which_less_is_better_has_its_worst_group_at_the_top():
    cases, names = made_cases(["F"] * 40 + ["M"] * 40, {"F": 4.0, "M": 0.0})
    found = compare_groups(cases, names, "brier", ("brier",), 0, seed=0)
    scores = {entry["value"]: entry["metrics"]["brier"] for entry in found["groups"]}
    assert scores["M"] > scores["F"] and found["worst"] == "M"
    assert found["gap"] == pytest.approx(scores["M"] - scores["F"], abs=1e-5)


def test_small_groups_and_groups_of_one_class_say_so():
    groups = ["F"] * 40 + ["M"] * 40 + ["O"] * (FEWEST_PATIENTS - 1)
    cases, names = made_cases(groups, dict.fromkeys("FMO", 1.0))
    one_class = (names == "M") & (cases.table["label"] == "ill").to_numpy()
    kept = (names != "M") | one_class
    found = compare_groups(CasePredictions(cases.table[kept]), names[kept], "auroc", ("auroc",), 20, seed=0)
    reasons = {entry["value"]: entry.get("reason") for entry in found["groups"]}
    assert reasons == {"F": None, "M": "all its cases are ill", "O": "9 patients, fewer than 10"}
    assert found["gap"] is found["worst"] is found["p"] is None


def test_a_group_without_a_class_says_so():
    cases, names = made_cases(["F"] * 30 + ["M"] * 30, {"F": 1.0, "M": 1.0})
    table = cases.table.assign(score_other=0.0)
    table.loc[(names == "M") & (np.arange(120) % 4 == 0), "label"] = "other"
    found = compare_groups(CasePredictions(table), names, "auroc", ("auroc",), 0, seed=0)
    assert [entry.get("without") for entry in found["groups"]] == [["other"], None]


def test_groups_are_in_the_order_of_their_numbers():
    cases, names = made_cases(
        ["120", "80", "5 to 9", "10 to 14"] * 3, dict.fromkeys(["120", "80", "5 to 9", "10 to 14"], 1.0)
    )
    found = compare_groups(cases, names, "auroc", ("auroc",), 0, seed=0)
    assert [entry["value"] for entry in found["groups"]] == ["5 to 9", "10 to 14", "80", "120"]


def test_missing_values_are_a_group_of_their_own_which_is_not_compared():
    cases, names = made_cases(["F"] * 30 + ["M"] * 30 + ["?"] * 30, {"F": 1.0, "M": 1.0, "?": 0.0})
    names[names == "?"] = None
    found = compare_groups(cases, names, "auroc", ("auroc",), 0, seed=0)
    assert [entry["value"] for entry in found["groups"]] == ["F", "M", "not stated"]
    assert {found["worst"], found["best"]} == {"F", "M"}


def made_task(folder, **card):
    """60 patients of one image, 40 of them in test; the store has their sex, age and scanner."""
    splits = np.repeat(["train", "val", "test"], [10, 10, 40])
    labels = np.arange(60) % 2
    images, _ = spots(labels)
    columns = {
        "label": labels.astype(str),
        "patient": [f"p{number:02d}" for number in range(60)],
        "sex": [("male", "female")[number // 2 % 2] for number in range(60)],
        "age": [None if number == 59 else 41 + number // 15 for number in range(60)],
        "scanner_model": ["A" if number < 59 else "B" for number in range(60)],
    }
    return write_task(folder, images, splits, columns, **card)


def test_an_evaluation_has_the_groups_that_its_card_names(tmp_path):
    task = made_task(tmp_path, subgroups=["sex", "age", "scanner_model"])
    result = evaluate("knn", "trivial", task, tmp_path / "result", resamples=50)
    columns = EvalResult.load(tmp_path / "result").subgroups["columns"]
    assert columns == result.subgroups["columns"] and result.subgroups["metric"] == "accuracy"
    sizes = {name: {group["value"]: group["cases"] for group in column["groups"]} for name, column in columns.items()}
    assert sizes["sex"] == {"F": 20, "M": 20} and sizes["age"] == {"40-44": 39, "not stated": 1}
    assert columns["scanner_model"]["groups"][1]["reason"] == "1 patient, fewer than 10"
    assert columns["scanner_model"]["gap"] is None
    overall = result.metrics["test"]["accuracy"]
    assert np.mean([group["score"] for group in columns["sex"]["groups"]]) == pytest.approx(overall, abs=1e-6)
    text = as_text(result.to_json() | {"result": "result.json"})
    assert ": 1 case of 1 patient; no score" in text
    assert (
        "accuracy by sex:\n    F: 1.0000" in text and "gap 0.0000" in text and "no gap: fewer than two groups" in text
    )


def test_an_evaluation_without_subgroups_is_the_one_that_it_was(tmp_path):
    task = made_task(tmp_path)
    plain = evaluate("knn", "trivial", task, resamples=0, out=tmp_path / "plain")
    named = evaluate(
        "knn", "trivial", made_task(tmp_path / "b", subgroups=["sex"]), resamples=0, out=tmp_path / "named"
    )
    assert plain.subgroups is None and plain.run_id != named.run_id and plain.metrics == named.metrics


def test_volumes_are_grouped_as_cases(tmp_path):
    splits, volume = np.repeat(["train", "val", "test"], [2, 2, 24]), np.arange(28) // 2
    columns = {
        "patient": [f"p{n:02d}" for n in volume],
        "series": [f"s{n}" for n in volume],
        "slice": np.arange(28) % 2,
    }
    columns["side"] = ["left"] * 28
    images, middle = spots(np.ones(28))
    card = {"target": "mask", "metric": "dice", "subgroups": ["side"]}
    task = write_task(tmp_path, images, splits, columns, [middle] * 28, {"1": "spot"}, **card)
    backbone = SimpleNamespace(card=SimpleNamespace(pretraining_seed=None))
    context = EvalContext(backbone, task, EvaluateRecipe(resamples=0), {"test": task.rows("test")}, "", tmp_path)
    cases = sorted(case_positions(task, context.rows["test"], pandas.DataFrame({"case": []})))
    table = {"case": cases, "patient": cases, "class": "spot", "truth_voxels": 1, "dice": 0.5, "hd95": 1.0}
    measured = ProtocolResult({}, {}, {}, {"dice": 0.5}, {}, pandas.DataFrame(table))
    [entry] = subgroup_metrics(context, measured)["columns"]["side"]["groups"]
    assert (entry["value"], entry["cases"], entry["score"]) == ("left", 12, 0.5)


def test_a_column_that_the_store_lacks_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(
        TaskError, match=r"no column 'gender'.* Its columns are label, sex, age, scanner_model\. Ingest again"
    ):
        made_task(tmp_path, subgroups=["gender"])


@pytest.mark.parametrize(
    "column, values, names",
    [
        ("age", [3, 64.5, 97, np.nan], ["00-04", "60-64", "90+", None]),
        ("age", ["60-64", None], ["60-64", None]),
        ("sex", ["male", "F", "Female"], ["M", "F", "F"]),
        ("sex", ["male", "unclear"], ["male", "unclear"]),
        ("kvp", [120.0, 80.0, 120.0], ["120", "80", "120"]),
        ("dose", np.arange(1.0, 13.0), ["1 to 4.667"] * 4 + ["4.667 to 8.333"] * 4 + ["8.333 to 12"] * 4),
        ("contrast", ["yes", "no"], ["yes", "no"]),
    ],
)
def test_values_become_groups(column, values, names):
    assert subgroup_names(column, np.array(values, object)).tolist() == names
