"""`pool=[…]`: the pooling of a ViT is one more setting that probes select on validation."""

import numpy as np
import pandas
import pytest

from ssl_transfer.errors import BackboneError, RecipeError
from ssl_transfer.evaluation.settings import evaluate_recipe
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.features import extract_features
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.prediction.stage import predict
from ssl_transfer.prediction.tables import PREFIX

from evaluation.test_evaluate import make_task  # isort: skip

VIT = "scratch:vit_tiny_patch16_224,in_channels=1,size=32"
POOLINGS = ["cls", "mean", "cls+mean", "last4"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Cached features are written below the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def task(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(30) % 2, 2)
    values = np.clip(0.5 * (2 * labels[:, None] - 1) + 0.5 * draw.normal(size=(60, 4)), -1, 1)
    splits = np.repeat(["train"] * 16 + ["val"] * 8 + ["test"] * 6, 2)
    return make_task(tmp_path / "store", values, labels, splits, [f"p{n}" for n in np.repeat(np.arange(30), 2)])


@pytest.mark.parametrize("protocol", ["linear_probe", "knn"])
def test_the_pooling_that_is_best_on_validation_is_evaluated_on_test(task, tmp_path, protocol):
    result = evaluate(protocol, VIT, task, tmp_path / "together", resamples=0, pool=POOLINGS)
    alone = {name: evaluate(protocol, f"{VIT},pooling={name}", task, tmp_path / name, resamples=0) for name in POOLINGS}
    best = max(POOLINGS, key=lambda name: alone[name].metrics["val"]["accuracy"])  # the first of several equal ones
    assert result.selected == {"pool": best, **alone[best].selected}
    assert result.metrics["test"] == pytest.approx(alone[best].metrics["test"], abs=1e-6, nan_ok=True)


def test_test_images_have_no_say_in_the_pooling(task, tmp_path, monkeypatch):
    read, measure = [], Scoring.metrics

    def counted(scoring, truth, *args, **kept):
        if scoring.temperature is None:  # it is known only once all is selected
            read.append(len(truth))
        return measure(scoring, truth, *args, **kept)

    monkeypatch.setattr(Scoring, "metrics", counted)
    evaluate("knn", VIT, task, tmp_path / "r", resamples=0, pool=["cls", "mean"])
    assert set(read) == {16}  # the validation images, never the 12 of test


def test_a_cnn_takes_the_mean_of_the_list_and_refuses_a_list_without_it(task, tmp_path):
    cnn = "scratch:test_resnet,in_channels=1,size=32"
    result = evaluate("knn", cnn, task, tmp_path / "r", resamples=0, pool=["cls", "mean"])
    assert result.selected["pool"] == "mean"
    plain = evaluate("knn", cnn, task, tmp_path / "plain", resamples=0)
    assert result.metrics == plain.metrics and "pool" not in plain.selected
    with pytest.raises(BackboneError, match=r"pool=\['cls'\]: it has none of these poolings. Expected some of mean"):
        evaluate("knn", cnn, task, tmp_path / "refused", pool=["cls"])


@pytest.mark.parametrize("protocol", ["finetune", "segment"])
def test_a_protocol_that_trains_refuses_a_list_of_poolings(protocol):
    with pytest.raises(RecipeError, match=r"pool: poolings are selected by probes \(linear_probe, knn\)"):
        evaluate_recipe(protocol, ["pool=[cls,mean]"])


def test_a_pooling_that_does_not_exist_is_refused_with_the_names():
    with pytest.raises(RecipeError, match=r"pool.*'cls', 'mean', 'cls\+mean' or 'last4'"):
        evaluate_recipe("knn", ["pool=[class]"])


def test_new_images_are_pooled_as_the_probe_was_fitted(task, tmp_path):
    save_backbone(load_backbone(VIT), tmp_path / "vit")
    result = evaluate("linear_probe", tmp_path / "vit", task, tmp_path / "r", resamples=0, pool=["cls+mean"])
    predict(tmp_path / "r", task.store.path, tmp_path / "p.parquet")
    expected = pandas.read_parquet(tmp_path / "r" / "predictions.parquet")
    found = pandas.read_parquet(tmp_path / "p.parquet").iloc[expected["row"]]
    assert result.selected["pool"] == "cls+mean"
    for name in task.classes:
        assert np.allclose(found[f"{PREFIX}{name}"], expected[f"score_{name}"], atol=1e-5)


def test_features_of_all_poolings_can_be_given(task, tmp_path):
    backbone = load_backbone(VIT)
    extract_features(backbone, task.store, tmp_path / "f", pool="all")
    result = evaluate("knn", backbone, task, tmp_path / "r", tmp_path / "f", resamples=0, pool=["mean", "last4"])
    assert result.selected["pool"] in ("mean", "last4")
