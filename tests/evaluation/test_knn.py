"""kNN against scikit-learn's brute force."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from ssl_transfer.evaluation.knn import knn
from ssl_transfer.measures import neighbors as neighbor_search
from ssl_transfer.measures.neighbors import NeighborIndex, nearest, vote


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
def test_scores_at_each_k_and_vote_are_scikit_learn_s_with_the_same_weights(clouds, temperature):
    train, labels, queries = clouds
    found = list(knn(train, labels, {"val": queries}, 3, k=(1, 5, 20), temperature=temperature))
    assert len(found) == 5
    kinds = {"weighted": lambda distance: np.exp((1 - distance) / temperature), "plain": "uniform"}
    for setting, scores, _ in found:
        peer = KNeighborsClassifier(setting["k"], metric="cosine", weights=kinds[setting["vote"]])
        assert np.allclose(scores["val"], peer.fit(train, labels).predict_proba(queries), atol=1e-4), setting


def test_settings_come_by_ascending_k_weighted_before_plain_and_a_lone_neighbour_votes_once(clouds):
    train, labels, queries = clouds
    settings = [s for s, *_ in knn(train, labels, {"val": queries}, 3, k=(20, 1, 5), votes=("plain", "weighted"))]
    assert settings == [
        {"k": k, "vote": kind, "index": "exact"}
        for k, kind in ((1, "weighted"), (5, "weighted"), (5, "plain"), (20, "weighted"), (20, "plain"))
    ]
    assert [s["vote"] for s, *_ in knn(train, labels, {"val": queries}, 3, k=(1, 5), votes=("plain",))] == ["plain"] * 2


@pytest.mark.parametrize(("index", "named"), [("ivf", "ivf"), ("hnsw", "hnsw"), ("auto", "ivf")])
def test_an_approximate_index_puts_its_recall_at_each_k_into_the_setting(clouds, monkeypatch, index, named):
    monkeypatch.setattr(neighbor_search, "EXACT_SEARCH_BELOW", 100)
    train, labels, queries = clouds
    parts = {"val": queries[:15], "test": queries[15:]}
    settings = [s for s, *_ in knn(train, labels, parts, 3, k=(1, 20), index=index)]
    expected = NeighborIndex(train, named).recall(queries, [1, 20])
    assert [(s["index"], s["recall"]) for s in settings] == [(named, round(expected[k], 4)) for k in (1, 20, 20)]


@pytest.mark.parametrize("vote", ["weighted", "plain"])
def test_of_several_labels_each_is_a_regression_on_the_neighbours_that_know_it(clouds, vote):
    """With all known, scikit-learn's regressor of 0 and 1."""
    train, labels, queries = clouds
    several = np.stack([labels == 0, labels > 0, labels == 2], 1).astype(int)
    ((_, scores, _),) = knn(train, several, {"val": queries}, 3, k=(7,), votes=(vote,), temperature=0.2)
    weights = "uniform" if vote == "plain" else lambda distance: np.exp((1 - distance) / 0.2)
    peer = KNeighborsRegressor(7, metric="cosine", weights=weights).fit(train, several)
    assert np.allclose(scores["val"], peer.predict(queries), atol=1e-5)


def test_a_label_that_no_neighbour_knows_is_scored_by_its_share_in_training(clouds):
    train, labels, queries = clouds
    several = np.full((120, 3), -1)
    several[:, 0] = labels == 0
    several[:3, 1] = [1, 1, 0]
    found = {
        s["k"]: scores["val"] for s, scores, _ in knn(train, several, {"val": queries}, 3, k=(1, 120), votes=("plain",))
    }
    _, positions = nearest(train, queries, 1)
    strangers = positions[:, 0] >= 3
    assert strangers.any() and np.allclose(found[1][strangers, 1], 2 / 3)
    assert np.allclose(found[120][:, 1], 2 / 3) and np.all(found[1][:, 2] == 0.5)


def test_numbers_of_neighbours_above_the_training_images_count_as_all_of_them(clouds):
    train, labels, queries = clouds
    settings = [s["k"] for s, *_ in knn(train[:10], labels[:10], {"val": queries}, 3, k=(1, 20, 200), votes=("plain",))]
    assert settings == [1, 10]


def test_a_vote_without_a_temperature_counts_neighbours():
    scores = vote(np.array([[0.9, 0.5, 0.1, 0.0]]), np.array([[2, 0, 0, 1]]), 3, temperature=None)
    assert scores.tolist() == [[0.5, 0.25, 0.25]]


def test_a_class_that_no_neighbour_has_gets_a_score_of_zero():
    scores = vote(np.array([[0.9, 0.5]]), np.array([[0, 0]]), 3)
    assert scores.tolist() == [[1, 0, 0]]
