"""MedNIST: four corner means tell the body region as it is, and no longer once air is cleared."""

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_transfer.data.altered import ClearedAir
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.tasks import Task, TaskCard
from ssl_transfer.features import extract_features
from ssl_transfer.models.opening import open_backbone

ROOT = os.environ.get("SSL_TRANSFER_REALDATA")
pytestmark = [pytest.mark.realdata, pytest.mark.skipif(ROOT is None, reason="SSL_TRANSFER_REALDATA is not set")]


@pytest.fixture(scope="module")
def mednist(tmp_path_factory):
    return ingest(Path(ROOT or ".") / "mednist_ct" / "mednist_ct.npz", tmp_path_factory.mktemp("s") / "ct", domain="ct")


def corner_accuracy(store, folder, fraction):
    """Balanced accuracy on test of a logistic regression of the four corner means, averaged over five label subsets."""
    features = extract_features(open_backbone("trivial", store), store, folder).values[:, :4]
    card = TaskCard(store=str(store.path), target="label", metric="balanced_accuracy")
    task, accuracies = Task("body_region", store, card), []
    test = task.rows("test")
    for seed in range(5):
        train = task.rows("train", fraction, seed)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=100.0, max_iter=1000))
        probe.fit(features[train], task.labels[train])
        accuracies.append(balanced_accuracy_score(task.labels[test], probe.predict(features[test])))
    return np.mean(accuracies)


@pytest.mark.parametrize("fraction, images", [(0.001, 9), (0.01, 96)])
def test_corner_means_tell_the_body_region_only_before_air_is_cleared(mednist, tmp_path, fraction, images):
    before = corner_accuracy(mednist, tmp_path / "before", fraction)
    after = corner_accuracy(ClearedAir(mednist), tmp_path / "after", fraction)
    print(f"corner means, {images} labelled images: balanced accuracy {before:.3f} before, {after:.3f} after")
    assert before > 0.99 and after < 0.5  # chance is 1/3


def test_most_corners_are_air_afterwards_and_every_image_reaches_255(mednist, tmp_path):
    cleared = ClearedAir(mednist)
    images = cleared.read(np.arange(0, 12000, 20))
    assert (images[:, 0, 0, 0] == 0).mean() > 0.97 and (images.max((1, 2, 3)) == 255).all()
