"""UMAP embeddings: a precomputed graph changes nothing, quality is scikit-learn's, and new images lie near similar ones.

Layouts differ between machines and versions of UMAP, so no test expects a particular one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness

from ssl_transfer.analysis import projection
from ssl_transfer.analysis.projection import embedding_quality, project, transform
from ssl_transfer.errors import UsageError
from ssl_transfer.measures.neighborhood import Neighborhood


@pytest.fixture(scope="module")
def clusters():
    """Four clusters of directions, 40 rows of each, and the cluster of each row."""
    draw = np.random.default_rng(0)
    centres = 3 * draw.normal(size=(4, 16))
    names = np.repeat(np.arange(4), 40)
    return (centres[names] + draw.normal(size=(160, 16))).astype(np.float32), names


@pytest.mark.parametrize("neighbors", [5, 15])
def test_embedding_quality_is_that_of_scikit_learn_both_ways(clusters, neighbors):
    features, _ = clusters
    points = np.random.default_rng(1).normal(size=(160, 2)) + features[:, :2]
    found = embedding_quality(features, points, neighbors)
    expected = trustworthiness(features, points, n_neighbors=neighbors, metric="cosine")
    assert found["trustworthiness"] == pytest.approx(expected, abs=1e-9)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    # Continuity is the trustworthiness of the features as a picture of the points; on unit rows Euclid orders as cosine does.
    assert found["continuity"] == pytest.approx(trustworthiness(points, unit, n_neighbors=neighbors), abs=1e-9)


def test_a_perfect_embedding_has_quality_one_and_a_shuffled_one_has_not():
    angle = np.linspace(0, 6, 300)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    assert embedding_quality(circle, circle, 10) == {"trustworthiness": 1.0, "continuity": 1.0}
    shuffled = embedding_quality(circle, circle[np.random.default_rng(0).permutation(300)], 10)
    assert max(shuffled.values()) < 0.6


def sorted_quality(features, points, k):
    """Trustworthiness and continuity by sorting all rows for each, equal ones as they come."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    lost = np.zeros(2)
    for row in range(len(features)):
        apart = np.round(-(unit * unit[row]).sum(1), 12), np.square(points - points[row]).sum(1)
        order = [[other for other in np.argsort(values, kind="stable") if other != row] for values in apart]
        for i in range(2):
            ranks = {other: rank for rank, other in enumerate(order[i], 1)}
            lost[i] += sum(max(ranks[other] - k, 0) for other in order[1 - i][:k])
    return 1 - 2 * lost / (len(features) * k * (2 * len(features) - 3 * k - 1))


@pytest.mark.parametrize("at_once", [7, 64])
@pytest.mark.parametrize("count", [40, 900])
def test_embedding_quality_is_that_of_sorting_all_rows_even_with_many_ties(monkeypatch, count, at_once):
    monkeypatch.setattr(projection, "QUALITY_ROWS_AT_ONCE", at_once)
    draw = np.random.default_rng(4)
    features = draw.integers(-2, 3, size=(count, 3)) + np.array([3.0, 0, 0])
    points = draw.integers(0, 5, size=(count, 2)) + features[:, 1:]
    assert list(embedding_quality(features, points, 5).values()) == pytest.approx(
        sorted_quality(features, points, 5), abs=1e-12
    )


def test_quality_of_too_few_rows_is_refused(clusters):
    with pytest.raises(ValueError, match="expected more than twice"):
        embedding_quality(clusters[0][:20], clusters[0][:20, :2], 15)


def test_new_images_lie_among_similar_ones(clusters):
    features, names = clusters
    points = np.stack([10.0 * names, np.random.default_rng(2).normal(size=160)], 1)
    old, new = np.arange(160) % 4 != 0, np.arange(160) % 4 == 0
    added = transform(features[new], features[old], points[old], 10)
    assert added.dtype == np.float32 and np.abs(added[:, 0] - points[new, 0]).max() < 1
    assert transform(features[:1], features, points)[0] != pytest.approx(
        points[0], abs=1e-12
    )  # near, but its neighbours count


def test_an_image_of_the_embedding_lies_nearest_to_itself(clusters):
    features, _ = clusters
    points = np.random.default_rng(3).normal(size=(160, 2)) * 100
    added = transform(features, features, points, 2)
    assert np.linalg.norm(added - points, axis=1).mean() < np.linalg.norm(added[::-1] - points, axis=1).mean() / 2


def test_a_precomputed_graph_gives_the_same_embedding_and_clusters_stay_together(clusters):
    features, names = clusters
    points = project(features, neighbors=10)
    assert np.array_equal(points, project(features, neighbors=10, neighborhood=Neighborhood.of(features, 30)))
    assert points.shape == (160, 2) and points.dtype == np.float32
    assert Neighborhood.of(np.c_[points - points.mean(0), np.full(160, 30.0)], 10).purity(names) > 0.95
    assert embedding_quality(features, points, 10)["trustworthiness"] > 0.85


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((30, 8)),
        np.zeros((30, 8)),
        np.full((30, 8), -3e5),
        5 + 1e-9 * np.random.default_rng(0).normal(size=(30, 8)),
    ],
    ids=["ones", "zeros", "large", "rounding"],
)
def test_rows_that_are_all_equal_have_no_map_and_this_is_said(rows):
    with pytest.raises(UsageError, match=r"project: all 30 rows are equal, so there is no map .* collapsed backbone"):
        project(rows.astype(np.float32))


@pytest.mark.parametrize(
    "wrong, message", [(np.ones((3, 8)), "shape"), (np.ones(30), "shape"), (np.full((9, 2), np.nan), "9 of 9")]
)
def test_features_that_cannot_be_projected_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        project(wrong)


@pytest.mark.parametrize(
    "rows",
    [
        np.vstack([np.zeros((25, 8)), np.eye(8)[:5]]),
        np.vstack([np.ones((29, 8)), np.arange(8.0)[None]]),
        np.repeat(np.eye(8)[:2], 15, axis=0),
        np.outer(np.arange(1, 31), np.ones(8)),
        np.arange(30.0)[:, None],
        np.eye(4),
    ],
    ids=["zeros and others", "all but one", "two points", "one direction", "one column", "four rows"],
)
def test_rows_of_which_many_are_equal_get_finite_coordinates(rows):
    assert np.isfinite(project(rows.astype(np.float32))).all()


QUARTER_TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


@pytest.fixture(scope="module")
def two_backbones(clusters):
    """Features of two backbones that nearly agree, and the embedding of the first."""
    features, _ = clusters
    other = features @ np.random.default_rng(5).normal(size=(16, 12)).astype(np.float32)
    other += 0.1 * np.random.default_rng(6).normal(size=other.shape).astype(np.float32)
    return other, project(features, 0, 10)


def alignment(points, onto):
    """Correlation of centred coordinates, in [−1, 1]; of a layout with one turned by 0, 90, 180 and 270° the mean is 0."""
    here, there = points - points.mean(0), onto - onto.mean(0)
    return (here * there).sum() / np.sqrt((here**2).sum() * (there**2).sum())


def rotated(points, onto):
    """By scipy: rotated and reflected as near to others as possible."""
    from scipy.linalg import orthogonal_procrustes

    here, there = points - points.mean(0), onto - onto.mean(0)
    return here @ orthogonal_procrustes(here, there)[0] + onto.mean(0)


def test_an_embedding_beside_another_is_aligned_with_it_whichever_way_that_is_turned(two_backbones):
    """An embedding by itself is aligned with some turns and opposed to others; 0.5 is far from the mean of 0 over all four."""
    other, first = two_backbones
    alone, by_itself = project(other, 0, 10), []
    for turns in range(4):
        target = (first @ np.linalg.matrix_power(QUARTER_TURN, turns)).astype(np.float32)
        beside = project(other, 0, 10, beside=target)
        assert beside.shape == (160, 2) and beside.dtype == np.float32
        assert alignment(beside, target) > 0.5
        by_itself.append(alignment(alone, target))
    assert np.mean(by_itself) == pytest.approx(0, abs=1e-3)


def test_an_embedding_beside_another_has_the_quality_of_one_by_itself(two_backbones):
    """Clusters alone, in random order within, give about 0.92; a random layout 0.5."""
    other, first = two_backbones
    by_itself = [embedding_quality(other, project(other, seed, 10), 10) for seed in range(2)]
    beside = [embedding_quality(other, project(other, seed, 10, beside=first), 10) for seed in range(2)]
    for name in by_itself[0]:
        means = [np.mean([quality[name] for quality in side]) for side in (beside, by_itself)]
        assert means[0] > 0.85 and means[0] > means[1] - 0.05


def test_the_same_seed_gives_the_same_embedding_and_leaves_the_other_one_unchanged(two_backbones):
    other, first = two_backbones
    before, beside = first.copy(), project(other, 0, 10, beside=first)
    assert np.array_equal(project(other, 0, 10, beside=first), beside) and np.array_equal(first, before)
    assert not np.array_equal(project(other, 1, 10, beside=first), beside)


def test_a_projection_does_not_change_torch_s_number_of_threads(two_backbones):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        project(two_backbones[0], 0, 10)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_an_embedding_is_rotated_and_shifted_and_not_scaled(two_backbones):
    other, first = two_backbones
    beside = project(other, 0, 10, beside=first)
    mirrored = (first - first.mean(0)) @ np.array([[0.0, 1.0], [1.0, 0.0]]) * 40 + 500
    far = project(other, 0, 10, beside=mirrored)
    # The best rotation is found already: scipy's changes nothing, and the centre is that of the other embedding.
    for points, onto in ((beside, first), (far, mirrored)):
        assert points.mean(0) == pytest.approx(onto.mean(0), abs=1e-2)
        assert rotated(points, onto) == pytest.approx(points, abs=1e-2)
    assert np.ptp(far, axis=0).max() < 10 * np.ptp(beside, axis=0).max()  # the other one is forty times as large
