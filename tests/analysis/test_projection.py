"""Pictures of feature spaces: a given graph changes nothing, trust is scikit-learn's, and new images stand by their like."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from ssl_transfer.analysis import projection
from ssl_transfer.analysis.projection import embedding_quality, place, project
from ssl_transfer.measures.neighborhood import Neighborhood


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
    found = embedding_quality(features, points, neighbors)
    expected = trustworthiness(features, points, n_neighbors=neighbors, metric="cosine")
    assert found["trustworthiness"] == pytest.approx(expected, abs=1e-9)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    # Continuity is the trustworthiness of the features as a picture of the points; on unit rows Euclid orders as cosine does.
    assert found["continuity"] == pytest.approx(trustworthiness(points, unit, n_neighbors=neighbors), abs=1e-9)


def test_a_perfect_picture_is_trusted_whole_and_a_shuffled_one_is_not():
    angle = np.linspace(0, 6, 300)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert embedding_quality(circle, circle, 10) == {"trustworthiness": 1.0, "continuity": 1.0}
    shuffled = embedding_quality(circle, circle[np.random.default_rng(0).permutation(300)], 10)
    assert max(shuffled.values()) < 0.6


def sorted_trust(features, points, k):
    """Trustworthiness and continuity by sorting all rows for each, equal ones as they come."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    lost = np.zeros(2)
    for row in range(len(features)):
        apart = np.round(-(unit * unit[row]).sum(1), 12), np.square(points - points[row]).sum(1)
        order = [[other for other in np.argsort(values, kind="stable") if other != row] for values in apart]
        for i in range(2):
            rank = {other: place for place, other in enumerate(order[i], 1)}
            lost[i] += sum(max(rank[other] - k, 0) for other in order[1 - i][:k])
    return 1 - 2 * lost / (len(features) * k * (2 * len(features) - 3 * k - 1))


@pytest.mark.parametrize("at_once", [7, 64])
@pytest.mark.parametrize("count", [40, 900])
def test_trust_is_that_of_sorting_all_rows_even_where_many_are_equally_near(monkeypatch, count, at_once):
    monkeypatch.setattr(projection, "JUDGED_AT_ONCE", at_once)
    draw = np.random.default_rng(4)
    features = draw.integers(-2, 3, size=(count, 3)) + np.array([3.0, 0, 0])
    points = draw.integers(0, 5, size=(count, 2)) + features[:, 1:]
    assert list(embedding_quality(features, points, 5).values()) == pytest.approx(
        sorted_trust(features, points, 5), abs=1e-12
    )


def test_few_rows_cannot_be_judged(clusters):
    with pytest.raises(ValueError, match="expected more than twice"):
        embedding_quality(clusters[0][:20], clusters[0][:20, :2], 15)


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
    assert embedding_quality(features, points, 10)["trustworthiness"] > 0.85


@pytest.fixture(scope="module")
def two_pages(clusters):
    """Features of two backbones that nearly agree; the page of the first, and of the second alone and beside the first."""
    features, _ = clusters
    other = features @ np.random.default_rng(5).normal(size=(16, 12)).astype(np.float32)
    other += 0.1 * np.random.default_rng(6).normal(size=other.shape).astype(np.float32)
    first = project(features, 0, 10)
    return first, other, project(other, 0, 10), project(other, 0, 10, beside=first)


def rms(points, onto):
    return np.sqrt(np.square(points - onto).sum(1).mean())


def turned(points, onto):
    """By scipy: as near as turning and mirroring bring it."""
    from scipy.linalg import orthogonal_procrustes

    here, there = points - points.mean(0), onto - onto.mean(0)
    return here @ orthogonal_procrustes(here, there)[0] + onto.mean(0)


def test_beside_another_page_images_stand_nearer_to_where_they_stand_there(two_pages):
    first, _, alone, beside = two_pages
    assert beside.shape == (160, 2) and beside.dtype == np.float32
    assert rms(beside, first) < 0.8 * rms(alone, first)
    assert rms(beside, first) < 1.05 * rms(turned(alone, first), first)


def test_a_page_beside_another_is_trusted_as_one_by_itself(two_pages):
    _, other, alone, beside = two_pages
    own, by_itself = embedding_quality(other, beside, 10), embedding_quality(other, alone, 10)
    assert all(own[name] > by_itself[name] - 0.02 for name in own)


def test_it_is_the_same_again_with_the_same_seed_and_leaves_the_other_page_as_it_was(two_pages):
    first, other, _, beside = two_pages
    before = first.copy()
    assert np.array_equal(project(other, 0, 10, beside=first), beside) and np.array_equal(first, before)
    assert not np.array_equal(project(other, 1, 10, beside=first), beside)


def test_a_page_is_turned_and_moved_and_not_scaled(two_pages):
    first, other, _, beside = two_pages
    mirrored = (first - first.mean(0)) @ np.array([[0.0, 1.0], [1.0, 0.0]]) * 40 + 500
    far = project(other, 0, 10, beside=mirrored)
    # The best turn is found already: turning by scipy changes nothing, and the middle is where the other page has it.
    for points, onto in ((beside, first), (far, mirrored)):
        assert points.mean(0) == pytest.approx(onto.mean(0), abs=1e-2)
        assert turned(points, onto) == pytest.approx(points, abs=1e-2)
    assert np.ptp(far, axis=0).max() < 5 * np.ptp(beside, axis=0).max()  # the other page is forty times as large
