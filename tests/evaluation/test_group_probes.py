"""Probes of groups of images: one prediction per patient from the frozen features of its slices."""

import numpy as np
import pandas
import pytest
from support.families import family_backbone
from support.groups import SLICES, lesion_task
from support.tiny_tasks import judge, write_task

from ssl_transfer.data.groups import Bags
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.bag_heads import bag_heads
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.metrics import classification_metrics
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.fitted_probe import FittedProbe
from ssl_transfer.models.group_probe import BagFeatures

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = {"strengths": (0.01, 1.0)}
UNTRAINED = "scratch:resnet10t,in_channels=1,size=32"  # with an id, which a kept probe states


def probed(task, folder, protocol="linear_probe", backbone=None, **settings):
    settings = {"resamples": 20, **(FEW if protocol == "linear_probe" else {"k": (3,)}), **settings}
    features = [folder / "features", folder / "features-external"]
    return evaluate(protocol, backbone or family_backbone("resnet"), task, folder / "run", features, **settings)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return lesion_task(tmp_path_factory.mktemp("lesions"))


def test_there_is_one_prediction_per_patient_and_metrics_are_of_these(task, tmp_path):
    result = probed(task, tmp_path, backbone=load_backbone(UNTRAINED))
    predictions = pandas.read_parquet(tmp_path / "run/predictions.parquet")
    assert list(predictions["group"]) == sorted({f"p{n:03d}" for n in range(60) if n % 4 == 3})
    assert list(predictions["images"]) == [SLICES] * 15
    codes = (predictions["label"] == "lesion").to_numpy(int)
    scores = predictions[["score_healthy", "score_lesion"]].to_numpy()
    expected = classification_metrics(codes, scores, "macro", task.classes)
    assert {name: result.metrics["test"][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert result.n["test"] == {"images": 15 * SLICES, "patients": 15, "groups": 15}
    assert result.contamination["cases"] == 15
    assert result.selected["group_pool"] in result.settings["group_pool"] == ["mean", "max", "topk", "attention"]
    kept = FittedProbe.load(tmp_path / "run").card
    assert (kept.target_of, kept.group_pool) == ("patient", result.selected["group_pool"])


def test_attention_finds_a_lesion_that_a_mean_over_slices_loses(tmp_path):
    backbone, gains = load_backbone(UNTRAINED), []
    for seed in range(5):  # cohorts of 50 test patients, of which one says little: gains are −.03 to .23
        folder = tmp_path / str(seed)
        task = lesion_task(folder / "task", patients=200, seed=seed)
        mean, attention = (
            probed(task, folder / pooling, backbone=backbone, group_pool=[pooling]).metrics["test"]["auroc"]
            for pooling in ("mean", "attention")
        )
        gains.append(attention - mean)
    assert np.mean(gains) >= 0.05, gains


@pytest.mark.parametrize(
    ("protocol", "pooling"), [("linear_probe", "attention"), ("linear_probe", "mean"), ("knn", "max")]
)
def test_the_order_of_slices_does_not_matter(tmp_path, protocol, pooling):
    scores = []
    for name, shuffled in (("a", None), ("b", 1)):
        shuffled_task = lesion_task(tmp_path / name / "task", patients=24, shuffled=shuffled)
        probed(shuffled_task, tmp_path / name, protocol, group_pool=[pooling], resamples=0)
        scores.append(pandas.read_parquet(tmp_path / name / "run/predictions.parquet")["score_lesion"].to_numpy())
    assert np.abs(scores[0] - scores[1]).max() <= 1e-6


def test_an_external_store_is_tested_by_group(task, tmp_path):
    other = lesion_task(tmp_path / "other", patients=8, seed=3)
    rows = other.store.rows.assign(patient="q" + other.store.rows["patient"])
    columns = rows[["label", "patient"]].to_dict("list")
    write_task(tmp_path / "renamed", other.store.read(np.arange(len(rows))), rows["split"].tolist(), columns)
    result = probed(task, tmp_path, "knn", external=[str(tmp_path / "renamed/store")])
    assert result.external["store"]["n"] == {"images": 8 * SLICES, "patients": 8, "groups": 8}
    predictions = pandas.read_parquet(tmp_path / "run/predictions-store.parquet")
    assert list(predictions["group"]) == [f"qp{n:03d}" for n in range(8)]


def test_every_image_of_an_external_store_without_patients_is_a_case(task, tmp_path):
    other = lesion_task(tmp_path / "other", patients=4, seed=3)
    columns = {"label": other.store.column("label"), "patient": [None] * len(other.store)}
    write_task(
        tmp_path / "unknown", other.store.read(np.arange(len(other.store))), ["test"] * len(other.store), columns
    )
    test = probed(task, tmp_path, "knn", external=[str(tmp_path / "unknown/store")]).external["store"]
    assert test["n"] == {"images": 4 * SLICES, "patients": None, "groups": 4 * SLICES}
    assert "no patient is known: every image is a case of its own" in test["notes"]


def test_what_does_not_fit_groups_is_refused(task, tmp_path):
    with pytest.raises(RecipeError, match="group_pool: found 'attention', expected some of mean, max"):
        probed(task, tmp_path, "knn", group_pool=["attention"])
    of_images = lesion_task(tmp_path / "images", patients=8, target_of=None)
    with pytest.raises(RecipeError, match="task task has a label per image"):
        probed(of_images, tmp_path, group_pool=["mean"])


def test_pooled_features_are_those_of_each_group():
    draw = np.random.default_rng(0)
    values, names = draw.normal(size=(30, 4)).astype(np.float32), draw.choice(list("abc"), 30)
    features = BagFeatures.of(values, Bags.of(names))
    for pooling, of_group in (("mean", np.mean), ("max", np.max)):
        expected = np.stack([of_group(values[names == name], axis=0) for name in "abc"])
        assert np.allclose(features.pooled(pooling), expected, atol=1e-6)


def test_unknown_labels_have_no_effect_on_the_others():
    draw = np.random.default_rng(0)
    features = BagFeatures.of(draw.normal(size=(40, 5)).astype(np.float32), Bags.of(np.repeat(list("abcdefghij"), 4)))
    labels = draw.integers(0, 2, (10, 2))
    labels[3, 1] = -1
    scores = []
    for unknown in (-1, -2):  # any value below 0
        labels[3, 1] = unknown
        scores.append(
            [
                of_val
                for _, of_val, _ in bag_heads(features, labels, features, ["attention", "topk"], 2, 0, "multilabel")
            ]
        )
    assert np.array_equal(*scores)


def test_a_kept_head_gives_the_scores_that_it_was_selected_by():
    draw = np.random.default_rng(0)
    features = BagFeatures.of(draw.normal(size=(60, 7)).astype(np.float32), Bags.of(np.repeat(list("abcdefghij"), 6)))
    found = list(bag_heads(features, np.arange(10) % 2, features, ["topk", "attention"], 2, 0, "multiclass"))
    assert [setting["steps"] for setting, _, _ in found] == [5, 10, 15, 20] * 2
    for _, scores, head in found:
        assert np.allclose(head(features), scores, atol=1e-6)


def age_task(folder):
    """A task with a number per patient, which two of three of its images state; and these numbers, NaN elsewhere."""
    draw = np.random.default_rng(0)
    level = np.repeat(draw.random(40), 3)
    images = np.clip(40 + 160 * level[:, None, None, None] + 20 * draw.random((120, 1, 32, 32)), 0, 255).astype(
        np.uint8
    )
    age = np.round(30 + 40 * level, 1)
    age[::3] = np.nan  # two of three images state it
    columns = {"age": age, "patient": [f"p{n // 3:03d}" for n in range(120)]}
    splits = np.repeat(np.resize(["train", "train", "val", "test"], 40), 3)
    card = {"target": "regression", "column": "age", "metric": "mae", "target_of": "patient"}
    return write_task(folder, images, splits, columns, **card), age


@pytest.mark.parametrize("protocol", ["linear_probe", "knn", "finetune"])
def test_numbers_of_patients_are_predicted_by_group(tmp_path, protocol):
    task, age = age_task(tmp_path / "task")
    if protocol == "finetune":
        result = judge(
            protocol, family_backbone("resnet"), task, tmp_path / "run", "train.batch_size=6", "train.bag_size=2"
        )
    else:
        result = probed(task, tmp_path, protocol)
        assert result.selected["group_pool"] in ("mean", "max")
        assert result.metrics["test"]["mae"] < np.abs(age[~np.isnan(age)] - np.nanmean(age)).mean()
    predictions = pandas.read_parquet(tmp_path / "run/predictions.parquet")
    assert list(predictions["group"]) == [f"p{n:03d}" for n in range(40) if n % 4 == 3]
    assert set(result.metrics["test"]) >= {"mae", "r2"}


def test_predictions_of_numbers_do_not_depend_on_the_seed(tmp_path):
    task, _ = age_task(tmp_path / "task")
    predicted = []
    for seed in (0, 1):
        result = probed(task, tmp_path / str(seed), seed=seed)
        predicted.append(pandas.read_parquet(result.path / "predictions.parquet")["predicted"].to_numpy())
    assert np.array_equal(*predicted)
