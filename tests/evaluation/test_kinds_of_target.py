"""Targets that are not classes: grades, numbers and survival, by every protocol that scores them."""

import numpy as np
import pandas
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import cohen_kappa_score
from sklearn.neighbors import KNeighborsRegressor
from support.families import family_backbone
from support.tiny_tasks import judge, spots, write_task

from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import RecipeError, TaskError
from ssl_transfer.evaluation.knn import knn
from ssl_transfer.evaluation.linear_probe import linear_probe
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.prediction.stage import predict
from ssl_transfer.recipe import parse_overrides

pytestmark = pytest.mark.usefixtures("one_thread")
COUNT = 60
GRADES = ("none", "mild", "severe")
CARDS = {
    "ordinal": {"target": "ordinal", "column": "grade", "order": list(GRADES), "metric": "quadratic_kappa"},
    "regression": {"target": "regression", "column": "age", "metric": "mae"},
    "survival": {"target": "survival", "time": "days", "event": "died", "metric": "c_index"},
}
METRICS = {
    "ordinal": {"quadratic_kappa", "mae", "accuracy", "auroc"},
    "regression": {"mae", "rmse", "r2", "spearman"},
    "survival": {"c_index"},
}
PROTOCOLS = {
    "linear_probe": ("strengths=[0.01,1]",),
    "knn": ("k=[1,5]",),
    "finetune": ("train.steps=20", "train.check_every_steps=5", "optimizer={name: adamw, lr: 0.01}"),
}
SCORED = [(kind, protocol) for kind in ("ordinal", "regression") for protocol in PROTOCOLS] + [
    ("survival", "linear_probe")
]


def task_of(folder, kind, seed=0, prefix="p", **card):
    """Images that are the brighter the higher the grade, the older and the sooner dead; a patient each."""
    draw = np.random.default_rng(seed)
    level = draw.random(COUNT) * 2
    images = 40 + 80 * level[:, None, None, None] + 20 * draw.random((COUNT, 1, 32, 32))
    days = np.round(draw.exponential(100 * np.exp(-3 * level)), 1)
    columns = {
        "grade": np.array(GRADES)[np.floor(level * 1.5).astype(int)],
        "age": np.round(30 + 20 * level, 1),
        "days": np.minimum(days, 100),
        "died": np.where(days <= 100, "yes", "no"),
        "patient": [f"{prefix}{n:03d}" for n in range(COUNT)],
    }
    splits = np.resize(["train", "train", "val", "test"], COUNT)
    return write_task(folder, images.astype(np.uint8), splits, columns, **{**CARDS[kind], **card})


def evaluated(kind, protocol, folder, *overrides, **card):
    settings, task = ("resamples=20", *PROTOCOLS[protocol], *overrides), task_of(folder, kind, **card)
    if protocol == "finetune":
        return judge(protocol, family_backbone("resnet"), task, folder / "r", *settings)
    return evaluate(
        protocol, family_backbone("resnet", id="made up"), task, folder / "r", folder / "f", **parse_overrides(settings)
    )


@pytest.mark.parametrize(("kind", "protocol"), SCORED)
def test_a_result_has_the_metrics_of_its_kind_and_those_of_its_predictions(kind, protocol, tmp_path):
    result = evaluated(kind, protocol, tmp_path)
    table = pandas.read_parquet(tmp_path / "r/predictions.parquet")
    found = CasePredictions(table, Scoring(temperature=result.temperature))
    values = found.metrics(np.ones((len(table), 1)))
    assert found.kind == kind and METRICS[kind] <= set(values)
    expected = {name: value[0] for name, value in values.items()}
    assert result.metrics["test"] == pytest.approx(expected, abs=2e-6, nan_ok=True)
    metric = CARDS[kind]["metric"]
    assert result.intervals[metric][0] <= result.metrics["test"][metric] <= result.intervals[metric][1]


@pytest.mark.parametrize(("kind", "protocol"), [pair for pair in SCORED if pair[1] != "finetune"])
def test_what_brightness_tells_is_learnt(kind, protocol, tmp_path):
    test = evaluated(kind, protocol, tmp_path).metrics["test"]
    assert {"ordinal": "quadratic_kappa", "regression": "r2", "survival": "c_index"}[kind] in test
    assert test[{"ordinal": "quadratic_kappa", "regression": "r2", "survival": "c_index"}[kind]] > 0.6


def test_a_fine_tune_to_a_number_learns_in_its_unit(tmp_path):
    result = evaluated("regression", "finetune", tmp_path, "train.steps=60")
    table = pandas.read_parquet(tmp_path / "r/predictions.parquet")
    assert 40 < table["predicted"].mean() < 60 and result.metrics["test"]["r2"] > 0.3


def test_the_step_with_the_smallest_error_is_selected(tmp_path):
    result = evaluated("regression", "finetune", tmp_path)
    lines = pandas.read_json(tmp_path / "r/log.jsonl", lines=True)["val_mae"].dropna()
    assert result.metrics["val"]["mae"] == pytest.approx(lines.min(), abs=1e-6)


def test_the_predicted_grades_of_the_file_are_those_that_kappa_is_of(tmp_path):
    result = evaluated("ordinal", "linear_probe", tmp_path)
    table = pandas.read_parquet(tmp_path / "r/predictions.parquet")
    pair = (table[name].map(GRADES.index) for name in ("label", "predicted"))
    expected = cohen_kappa_score(*pair, weights="quadratic")
    assert result.metrics["test"]["quadratic_kappa"] == pytest.approx(expected, abs=1e-6)


def features(count=80, columns=12):
    draw = np.random.default_rng(0)
    x = draw.normal(2, 3, (count, columns)).astype(np.float32)
    return x, x @ draw.normal(size=columns) + draw.normal(0, 5, count)


@pytest.mark.parametrize("columns", [12, 100], ids=["more images", "more features"])
def test_the_probe_of_a_number_is_ridge_regression_of_standardised_features(columns):
    x, y = features(columns=columns)
    scaled = (x - x[:60].mean(0, dtype=np.float64)) / x[:60].std(0, dtype=np.float64)
    for setting, scores, model in linear_probe(
        x[:60], y[:60], {"val": x[60:]}, 0, 0, "regression", strengths=(0.01, 1.0)
    ):
        expected = Ridge(alpha=1 / setting["C"]).fit(scaled[:60], y[:60]).predict(scaled[60:])
        assert scores["val"] == pytest.approx(expected, rel=1e-5)
        assert model(x[60:]) == pytest.approx(expected, rel=1e-5)


def test_the_mean_of_neighbours_is_that_of_scikit_learn():
    x, y = features()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    (_, scores, _), *_ = knn(x[:60], y[:60], {"val": x[60:]}, 0, 0, "regression", k=(5,), votes=("plain",))
    expected = KNeighborsRegressor(5).fit(unit[:60], y[:60]).predict(unit[60:])
    assert scores["val"] == pytest.approx(expected)


def test_survival_is_scored_by_linear_probes_alone(tmp_path):
    task = task_of(tmp_path, "survival")
    for protocol in ("knn", "finetune", "segment"):
        with pytest.raises(TaskError, match=rf"it is survival, which {protocol} cannot score. Take linear_probe"):
            evaluate(protocol, family_backbone("resnet"), task, tmp_path / "r")


@pytest.mark.parametrize("option", ["solver=sgd", "class_weight=balanced"])
def test_options_of_classifiers_are_refused_for_numbers(option, tmp_path):
    with pytest.raises(RecipeError, match=f"{option} is not for regression tasks"):
        evaluated("regression", "linear_probe", tmp_path, option)


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_grades_are_balanced_and_numbers_are_not(balance, tmp_path):
    evaluated("ordinal", "finetune", tmp_path / "a", f"train.balance={balance}")
    with pytest.raises(RecipeError, match=f"{balance} is not for regression tasks; leave it out"):
        evaluated("regression", "finetune", tmp_path / "b", f"train.balance={balance}")


def test_a_fraction_has_numbers_from_all_fifths(tmp_path):
    task = task_of(tmp_path, "regression")
    every, few = (task.labels[task.rows("train", fraction, 3)] for fraction in (1, 0.34))
    fifths = np.quantile(task.labels, [0.2, 0.4, 0.6, 0.8])
    assert len(few) < len(every) / 2 and len(set(np.searchsorted(fifths, few))) == 5


@pytest.mark.parametrize("kind", CARDS)
def test_permuted_targets_cannot_be_learnt(kind, tmp_path):
    test = evaluated(kind, "linear_probe", tmp_path, "permute_labels=true").metrics["test"]
    value = {"ordinal": "quadratic_kappa", "regression": "r2", "survival": "c_index"}[kind]
    assert test[value] < {"ordinal": 0.4, "regression": 0.3, "survival": 0.75}[kind]


@pytest.mark.parametrize("kind", CARDS)
def test_an_external_store_is_tested_by_the_same_metrics(kind, tmp_path):
    own, other = task_of(tmp_path / "own", kind), task_of(tmp_path / "other", kind, seed=1, prefix="q")
    settings = {"external": [str(other.store.path)], "resamples": 20, "strengths": (0.1,)}
    folders = [tmp_path / "f", tmp_path / "g"]
    result = evaluate("linear_probe", family_backbone("resnet", id="a"), own, tmp_path / "r", folders, **settings)
    test, metric = result.external["store"], CARDS[kind]["metric"]
    assert test["n"]["images"] == COUNT and metric in test["gap_intervals"]
    assert test["gap"][metric] == pytest.approx(test["metrics"][metric] - test["own"][metric], abs=2e-6)


@pytest.mark.parametrize(
    ("kind", "column"), [("ordinal", "predicted"), ("regression", "predicted"), ("survival", "risk")]
)
def test_a_kept_probe_predicts_what_its_evaluation_did(kind, column, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task, backbone = task_of(tmp_path, kind), family_backbone("resnet", id="made up")
    evaluate("linear_probe", backbone, task, tmp_path / "r", resamples=0)
    monkeypatch.setattr("ssl_transfer.prediction.stage.probe_backbone", lambda *_: backbone)
    predict(tmp_path / "r", task.store.path, tmp_path / "new.parquet")
    new, test = pandas.read_parquet(tmp_path / "new.parquet"), pandas.read_parquet(tmp_path / "r/predictions.parquet")
    images = new.set_index("image").loc[test["row"], column].tolist()
    expected = test[column].tolist()
    assert images == (expected if kind == "ordinal" else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"column": None}, r"`target: regression` needs `column`"),
        ({"time": "days"}, r"`time` is for `target: survival`"),
        ({"order": ["a", "b"]}, r"`order` is for `target: ordinal`"),
        ({"metric": "accuracy"}, r"metric: found 'accuracy'"),
        ({"column": "ago"}, r"has no column 'ago'. Did you mean 'age'"),
        ({"column": "grade"}, r"found '\w+' \(\d+ rows\).*Expected numbers"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_what_to_write(card, said, tmp_path):
    with pytest.raises((RecipeError, TaskError), match=said):
        assert task_of(tmp_path, "regression", **card).labels is None


def test_grades_in_words_need_an_order_and_numbers_have_theirs(tmp_path):
    with pytest.raises(TaskError, match=r"its grades are words.*order: \[none, mild, severe\]"):
        assert task_of(tmp_path / "a", "ordinal", order=None).classes is None
    with pytest.raises(TaskError, match=r"found 'severe' .* which `order` does not have"):
        assert task_of(tmp_path / "b", "ordinal", order=["none", "mild"]).classes is None
    task = write_task(
        tmp_path / "c",
        spots([0, 1] * 6)[0],
        ["train"] * 12,
        {"grade": [10.0, 2.0, np.nan] * 4},
        target="ordinal",
        column="grade",
        metric="mae",
    )
    assert task.classes == ["2", "10"] and task.labels[:3].tolist() == [1, 0, -1]


def test_unknown_numbers_and_events_are_left_out(tmp_path):
    columns = {
        "age": ["41", "", "n/a", "nan"] * 6,
        "days": [1.0, 2.0, np.nan, 4.0] * 6,
        "died": ["yes", "no", "no", ""] * 6,
    }
    splits = np.repeat(["train", "val", "test"], 8)
    task = write_task(tmp_path / "a", spots([1] * 24)[0], splits, columns, **CARDS["regression"])
    assert len(task.rows("train")) == 2
    survival = Task.opened("s", task.card.model_validate({"store": str(task.store.path), **CARDS["survival"]}))
    assert len(survival.rows("train")) == 4
