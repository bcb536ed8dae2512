"""Pictures of feature spaces: a given graph changes nothing, trust is scikit-learn's, and new images stand by their like."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from ssl_transfer.analysis.neighborhood import Neighborhood
from ssl_transfer.analysis.projection import place, project, trust


@pytest.fixture(scope="module")
def clusters():
    """Four bundles of directions, 40 rows of each, and which bundle."""
    draw = np.random.default_rng(0)
    centres = 3 * draw.normal(size=(4, 16))
    names = np.repeat(np.arange(4), 40)
    return (centres[names] + draw.normal(size=(160, 16))).astype(np.float32), names


@pytest.mark.parametrize("neighbors", [5, 15])
def test_trust_is_that_of_scikit_learn_both_ways(clusters, neighbors):
    features, _ = clusters
    points = np.random.default_rng(1).normal(size=(160, 2)) + features[:, :2]
    found = trust(features, points, neighbors)
    expected = trustworthiness(features, points, n_neighbors=neighbors, metric="cosine")
    assert found["trustworthiness"] == pytest.approx(expected, abs=1e-9)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    # Continuity is the trustworthiness of the features as a picture of the points; on unit rows Euclid orders as cosine does.
    assert found["continuity"] == pytest.approx(trustworthiness(points, unit, n_neighbors=neighbors), abs=1e-9)


def test_a_perfect_picture_is_trusted_whole_and_a_shuffled_one_is_not():
    angle = np.linspace(0, 6, 300)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert trust(circle, circle, 10) == {"trustworthiness": 1.0, "continuity": 1.0}
    shuffled = trust(circle, circle[np.random.default_rng(0).permutation(300)], 10)
    assert max(shuffled.values()) < 0.6


def test_few_rows_cannot_be_judged(clusters):
    with pytest.raises(ValueError, match="expected more than twice"):
        trust(clusters[0][:20], clusters[0][:20, :2], 15)


def test_new_images_stand_among_those_that_they_are_like(clusters):
    features, names = clusters
    points = np.stack([10.0 * names, np.random.default_rng(2).normal(size=160)], 1)
    old, new = np.arange(160) % 4 != 0, np.arange(160) % 4 == 0
    placed = place(features[new], features[old], points[old], 10)
    assert placed.dtype == np.float32 and np.abs(placed[:, 0] - points[new, 0]).max() < 1
    assert place(features[:1], features, points)[0] != pytest.approx(
        points[0], abs=1e-12
    )  # near, but its neighbours count


def test_an_image_that_is_there_already_stands_nearest_to_itself(clusters):
    features, _ = clusters
    points = np.random.default_rng(3).normal(size=(160, 2)) * 100
    placed = place(features, features, points, 2)
    assert np.linalg.norm(placed - points, axis=1).mean() < np.linalg.norm(placed[::-1] - points, axis=1).mean() / 2


def test_a_graph_that_is_there_gives_the_same_picture_and_bundles_stay_together(clusters):
    features, names = clusters
    points = project(features, neighbors=10)
    assert np.array_equal(points, project(features, neighbors=10, neighborhood=Neighborhood.of(features, 30)))
    assert points.shape == (160, 2) and points.dtype == np.float32
    assert Neighborhood.of(np.c_[points - points.mean(0), np.full(160, 30.0)], 10).purity(names) > 0.95
    assert trust(features, points, 10)["trustworthiness"] > 0.85
