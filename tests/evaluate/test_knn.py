"""kNN against scikit-learn's brute force."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from ssl_transfer.evaluate.knn import knn
from ssl_transfer.neighbors import nearest, vote


@pytest.fixture
def clouds():
    """Features of 120 training and 40 query images around three centres; labels of the training images."""
    draw = np.random.default_rng(0)
    labels, centres = draw.integers(0, 3, 160), draw.normal(size=(3, 16))
    features = (centres[labels] + 1.5 * draw.normal(size=(160, 16))).astype(np.float32)
    return features[:120], labels[:120], features[120:]


def test_neighbours_are_scikit_learn_s_by_cosine(clouds):
    train, _, queries = clouds
    distances, expected = NearestNeighbors(metric="cosine", algorithm="brute").fit(train).kneighbors(queries, 7)
    similarities, found = nearest(train, queries, 7)
    assert np.array_equal(found, expected)
    assert np.allclose(similarities, 1 - distances, atol=1e-6)


def test_a_feature_of_length_zero_has_no_direction_and_breaks_nothing(clouds):
    train, _, _ = clouds
    similarities, _ = nearest(train, np.zeros((1, 16), np.float32), 3)
    assert np.array_equal(similarities, np.zeros((1, 3)))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_scores_at_each_k_are_scikit_learn_s_with_the_same_weights(clouds, temperature):
    train, labels, queries = clouds
    settings = dict(
        (s["k"], scores["val"]) for s, scores in knn(train, labels, {"val": queries}, 3, (1, 5, 20), temperature)
    )
    assert sorted(settings) == [1, 5, 20]
    for k, scores in settings.items():
        peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature))
        assert np.allclose(scores, peer.fit(train, labels).predict_proba(queries), atol=1e-4)


def test_numbers_of_neighbours_above_the_training_images_count_as_all_of_them(clouds):
    train, labels, queries = clouds
    settings = [s["k"] for s, _ in knn(train[:10], labels[:10], {"val": queries}, 3, (1, 20, 200))]
    assert settings == [1, 10]


def test_a_vote_without_a_temperature_counts_heads():
    scores = vote(np.array([[0.9, 0.5, 0.1, 0.0]]), np.array([[2, 0, 0, 1]]), 3, temperature=None)
    assert scores.tolist() == [[0.5, 0.25, 0.25]]


def test_a_class_that_no_neighbour_has_gets_a_score_of_zero():
    scores = vote(np.array([[0.9, 0.5]]), np.array([[0, 0]]), 3)
    assert scores.tolist() == [[1, 0, 0]]
