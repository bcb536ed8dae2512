"""What is watched: the online kNN and linear probe, the rank of features, and the alarms."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import RunError, StoreError
from ssl_transfer.measures.geometry import rankme
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.models.embedding import embed
from ssl_transfer.training.monitor import NEIGHBORS, Alarms, OnlineProbes

CPU = torch.device("cpu")


@pytest.fixture
def pixels():
    """A backbone whose features are the image's 16 x 16 pixels; its BatchNorm tells if it was left in train mode."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    return Backbone(model, new_card("pixels", Architecture("flatten", 1, 16), model, Intensity()))


@pytest.fixture
def cohort(ct_store, pixels):
    """Features and labels of the training and the validation rows."""
    features, labels = embed(pixels, ct_store, np.arange(len(ct_store))), ct_store.column("label")
    return [(features[rows], labels[rows]) for rows in (np.asarray(ct_store.positions(s)) for s in ("train", "val"))]


def test_the_online_knn_is_scikit_learn_s_on_train_and_validation_rows(ct_store, pixels, cohort):
    found = OnlineProbes(ct_store, "label", 1000, 0).measure(pixels, CPU, bf16=False)
    train, (features, labels) = cohort
    peer = KNeighborsClassifier(NEIGHBORS, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.1)).fit(*train)
    assert found["knn"] == pytest.approx(balanced_accuracy_score(labels, peer.predict(features)))
    assert found["rankme"] == pytest.approx(rankme(torch.from_numpy(features)))


def test_the_online_linear_probe_is_scikit_learn_s_on_features_standardised_by_the_training_rows(
    ct_store, pixels, cohort
):
    found = OnlineProbes(ct_store, "label", 1000, 0).measure(pixels, CPU, bf16=False)
    (train, classes), (features, labels) = cohort
    mean, spread = train.mean(0), train.std(0)
    spread[spread == 0] = 1
    peer = RidgeClassifier(class_weight="balanced").fit((train - mean) / spread, classes)
    expected = balanced_accuracy_score(labels, peer.predict((features - mean) / spread))
    assert found["linear_probe"] == pytest.approx(expected) and expected > 1 / 6


def test_probes_of_features_that_are_not_finite_are_nan(ct_store, pixels):
    with torch.no_grad():
        pixels.model[0].weight.fill_(math.nan)
    found = OnlineProbes(ct_store, "label", 1000, 0).measure(pixels, CPU, bf16=False)
    assert set(found) == {"knn", "knn_se", "linear_probe", "rankme"} and all(map(math.isnan, found.values()))


def test_the_probes_read_no_test_row_and_no_more_than_they_were_given(ct_store):
    probes = OnlineProbes(ct_store, "label", 10, 0)
    assert {split: len(rows) for split, rows in probes.rows.items()} == {"train": 10, "val": 6}
    assert set(probes.rows["train"]) <= set(ct_store.positions("train"))
    assert set(probes.rows["val"]) <= set(ct_store.positions("val"))


def test_rows_without_a_label_are_not_probed(ct_store, changed):
    train = ct_store.positions("train")
    probes = OnlineProbes(changed(ct_store, "partly", unlabelled=train[::2]), "label", 1000, 0)
    assert np.array_equal(probes.rows["train"], train[1::2])


def test_measuring_leaves_the_backbone_unchanged(ct_store, pixels):
    pixels.train()
    before = {key: value.clone() for key, value in pixels.state_dict().items()}
    OnlineProbes(ct_store, "label", 10, 0).measure(pixels, CPU, bf16=False)
    assert pixels.training
    assert all(torch.equal(before[key], value) for key, value in pixels.state_dict().items())


def test_a_store_without_classes_has_no_online_probes(ct_store):
    with pytest.raises(StoreError, match="fewer than two classes"):
        OnlineProbes(ct_store, "modality", 10, 0)


def keys():
    return "stores/ct: 7, stores/ct: 3"


def test_a_nan_or_infinite_loss_stops_with_its_step_and_rows():
    with pytest.raises(RunError, match=r"step 3: the loss is nan. Rows of the batch: stores/ct: 7, stores/ct: 3\."):
        Alarms("stop", "warn", 0).nonfinite(3, math.nan, keys)


def test_the_alarm_stops_a_run_whose_projections_stay_the_same():
    alarms = Alarms("warn", "stop", patience_steps=0)
    for step in range(1, 5):
        alarms.projection_std(step, 0.0, keys)
    with pytest.raises(RunError, match=r"step 5: the representation has collapsed.* 5 logged steps .*stores/ct: 7"):
        alarms.projection_std(5, 0.0, keys)


def test_the_alarm_is_silent_during_warm_up_and_after_a_recovery():
    alarms = Alarms("stop", "stop", patience_steps=20)
    for step in range(1, 25):
        alarms.projection_std(step, 0.0, keys)
    alarms.projection_std(25, 0.5, keys)
    for step in range(26, 30):
        alarms.projection_std(step, 0.0, keys)


def test_alarms_that_warn_do_so_once_each(capsys):
    alarms = Alarms("warn", "warn", patience_steps=0)
    for step in range(1, 20):
        alarms.projection_std(step, 0.0, keys)
        alarms.nonfinite(step, math.inf, keys)
    stderr = capsys.readouterr().err
    assert stderr.count("the representation has collapsed") == stderr.count("the loss is inf") == 1


def test_row_names_are_looked_up_only_when_an_alarm_is_raised():
    """Gathering them costs a round over all ranks."""
    alarms, lookups = Alarms("warn", "warn", patience_steps=0), []
    for step in range(1, 20):
        alarms.projection_std(step, 1.0, lambda: lookups.append(1) or "")
        alarms.nonfinite(step, math.nan, lambda: lookups.append(1) or "")
    assert len(lookups) == 1
