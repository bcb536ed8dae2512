"""The linear probe against a fresh scikit-learn pipeline."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_transfer.evaluate.linear_probe import STRENGTHS, linear_probe


@pytest.fixture(params=[2, 4])
def problem(request):
    """Training features (features of very different spread), labels, queries, number of classes."""
    draw, classes = np.random.default_rng(0), request.param
    labels, centres = draw.integers(0, classes, 150), draw.normal(size=(classes, 12))
    features = (centres[labels] + draw.normal(size=(150, 12))) * np.logspace(-2, 2, 12) + 5
    return features[:100].astype(np.float32), labels[:100], features[100:].astype(np.float32), classes


def test_probabilities_are_those_of_a_fresh_pipeline_at_every_strength(problem):
    train, labels, queries, classes = problem
    strengths = (1e-3, 1e-1, 1.0, 10.0)
    for setting, scores in linear_probe(train, labels, {"val": queries, "test": queries[:5]}, classes, strengths):
        peer = make_pipeline(StandardScaler(), LogisticRegression(C=setting["C"], max_iter=10000, tol=1e-8))
        expected = peer.fit(train.astype(np.float64), labels).predict_proba(queries.astype(np.float64))
        assert np.allclose(scores["val"], expected, atol=2e-3), setting
        assert np.allclose(scores["test"], scores["val"][:5], atol=1e-6)


def test_every_strength_is_tried_from_strong_to_weak(problem):
    train, labels, queries, classes = problem
    settings = [setting["C"] for setting, _ in linear_probe(train, labels, {"val": queries}, classes, (1.0, 0.01, 0.1))]
    assert settings == [0.01, 0.1, 1.0]
    assert (min(STRENGTHS), max(STRENGTHS), len(STRENGTHS)) == (1e-4, 1e4, 9)


def test_a_strength_s_result_does_not_depend_on_those_tried_before(problem):
    train, labels, queries, classes = problem
    alone = dict((s["C"], p["val"]) for s, p in linear_probe(train, labels, {"val": queries}, classes, (1.0,)))
    among = dict(
        (s["C"], p["val"]) for s, p in linear_probe(train, labels, {"val": queries}, classes, (1e-4, 1e-2, 1.0))
    )
    assert np.allclose(alone[1.0], among[1.0], atol=2e-3)


def test_a_constant_feature_says_nothing_even_if_it_differs_in_the_queries(problem):
    train, labels, queries, classes = problem
    constant = (
        np.hstack([train, np.full((100, 1), 7, np.float32)]),
        np.hstack([queries, np.full((50, 1), 7, np.float32)]),
    )
    for (_, with_it), (_, without) in zip(
        linear_probe(constant[0], labels, {"val": constant[1]}, classes, (1.0,)),
        linear_probe(train, labels, {"val": queries}, classes, (1.0,)), strict=True,
    ):  # fmt: skip
        assert np.allclose(with_it["val"], without["val"], atol=2e-3)


def test_probabilities_sum_to_one_and_are_finite_for_features_without_spread():
    train, labels = np.zeros((10, 4), np.float32), np.arange(10) % 2
    for _, scores in linear_probe(train, labels, {"val": train[:3]}, 2, (1.0,)):
        assert np.allclose(scores["val"], 0.5)
