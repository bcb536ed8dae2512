"""What is watched: the online kNN, the rank of features, and the collapse alarm."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import RunError, StoreError
from ssl_transfer.geometry import normalised_std, rankme
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.training.embedding import embed
from ssl_transfer.training.monitor import NEIGHBORS, CollapseAlarm, OnlineKnn

CPU = torch.device("cpu")


@pytest.fixture
def pixels():
    """A backbone whose features are the image's 16 x 16 pixels; its BatchNorm tells if it was left in train mode."""
    card = {"image_size": 16, "in_channels": 1, "feature_dim": 256, "intensity": Intensity().to_card()}
    return Backbone(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()), card)


def test_the_online_knn_is_scikit_learn_s_on_train_and_validation_rows(ct_store, pixels):
    found = OnlineKnn(ct_store, "label", 1000, 0).measure(pixels, CPU, bf16=False)
    train, val = (np.asarray(ct_store.positions(split)) for split in ("train", "val"))
    labels, features = ct_store.column("label"), embed(pixels, ct_store, np.arange(len(ct_store)))
    peer = KNeighborsClassifier(NEIGHBORS, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1))
    peer.fit(features[train], labels[train])
    assert found["knn"] == pytest.approx(balanced_accuracy_score(labels[val], peer.predict(features[val])))
    assert found["rankme"] == pytest.approx(rankme(torch.from_numpy(features[val])))


def test_the_online_knn_reads_no_test_row_and_no_more_than_it_was_given(ct_store):
    knn = OnlineKnn(ct_store, "label", 10, 0)
    assert {split: len(rows) for split, rows in knn.rows.items()} == {"train": 10, "val": 6}
    assert set(knn.rows["train"]) <= set(ct_store.positions("train"))
    assert set(knn.rows["val"]) <= set(ct_store.positions("val"))


def test_watching_leaves_the_backbone_as_it_was(ct_store, pixels):
    pixels.train()
    before = {key: value.clone() for key, value in pixels.state_dict().items()}
    OnlineKnn(ct_store, "label", 10, 0).measure(pixels, CPU, bf16=False)
    assert pixels.training
    assert all(torch.equal(before[key], value) for key, value in pixels.state_dict().items())


def test_a_store_without_classes_cannot_be_watched(ct_store):
    with pytest.raises(StoreError, match="fewer than two classes"):
        OnlineKnn(ct_store, "modality", 10, 0)


def test_rankme_is_the_exponential_of_the_singular_values_entropy():
    features = np.random.default_rng(0).normal(size=(40, 12)) * np.linspace(0.1, 3, 12)
    share = np.linalg.svd(features, compute_uv=False)
    share = share / share.sum() + 1e-7
    assert rankme(torch.from_numpy(features)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_rankme_counts_the_directions_of_equal_strength():
    assert rankme(torch.eye(5)) == pytest.approx(5, abs=1e-3)
    assert rankme(torch.ones(10, 4)) == pytest.approx(1, abs=1e-3)


def test_normalised_std_is_near_one_when_features_spread_and_zero_when_they_are_the_same():
    assert normalised_std(torch.randn(2000, 64)) == pytest.approx(1, abs=0.02)
    assert normalised_std(torch.ones(10, 64) * 3) == pytest.approx(0, abs=1e-6)


ROWS = torch.arange(10)


def test_the_alarm_stops_a_run_whose_projections_stay_the_same():
    alarm = CollapseAlarm("stop", patience_steps=0)
    for step in range(1, 5):
        alarm.check(step, 0.0, ROWS)
    with pytest.raises(
        RunError, match=r"step 5: the representation has collapsed.* 5 logged steps .*0, 1, 2, 3, .* \(10\)"
    ):
        alarm.check(5, 0.0, ROWS)


def test_the_alarm_is_silent_during_warm_up_and_after_a_recovery():
    alarm = CollapseAlarm("stop", patience_steps=20)
    for step in range(1, 25):
        alarm.check(step, 0.0, ROWS)
    alarm.check(25, 0.5, ROWS)
    for step in range(26, 30):
        alarm.check(step, 0.0, ROWS)


def test_an_alarm_that_warns_does_so_once(capsys):
    alarm = CollapseAlarm("warn", patience_steps=0)
    for step in range(1, 20):
        alarm.check(step, 0.0, ROWS)
    assert capsys.readouterr().err.count("the representation has collapsed") == 1
