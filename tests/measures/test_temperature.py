"""Temperature scaling against scikit-learn's, and what it may and may not change."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from ssl_transfer.measures.metrics import classification_metrics
from ssl_transfer.measures.temperature import fit_temperature, scaled


def overconfident(seed, classes=3, count=400):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=count)
    logits = 3 * (draw.normal(size=(count, classes)) + np.eye(classes)[labels])
    return labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose features are its logits."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X

    def predict(self, X):
        return self.classes_[X.argmax(1)]


def test_the_scaled_probabilities_are_scikit_learn_s():
    labels, scores = overconfident(0)
    logits = np.log(scores)
    peer = CalibratedClassifierCV(
        FrozenEstimator(Given().fit(logits, labels)), method="temperature", cv=2, ensemble=False
    )
    expected = peer.fit(logits, labels).predict_proba(logits)
    assert np.allclose(scaled(scores, fit_temperature(labels, scores), False), expected, atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_temperature_is_where_the_slope_of_the_log_loss_is_zero(classes):
    labels, scores = overconfident(1, classes)
    best = fit_temperature(labels, scores)
    slope = approx_fprime([best], lambda t: log_loss(labels, scaled(scores, t[0], False)), 1e-6)
    assert best > 1.5 and abs(slope) < 1e-5


def test_scaling_improves_calibration_and_changes_no_decision():
    validation, (labels, scores) = overconfident(2), overconfident(3)
    temperature = fit_temperature(*validation)
    found = classification_metrics(labels, scores, "macro", ("a", "b", "c"), temperature=temperature)
    assert found["ece_scaled"] < found["ece"] / 2 and found["brier_scaled"] < found["brier"]
    again = classification_metrics(labels, scaled(scores, temperature, False), "macro", ("a", "b", "c"))
    assert {name: found[f"{name}_scaled"] for name in ("ece", "brier")} == {
        name: again[name] for name in ("ece", "brier")
    }
    assert {name: again[name] for name in ("accuracy", "mcc", "f1")} == {
        name: found[name] for name in ("accuracy", "mcc", "f1")
    }


def test_labels_share_a_temperature_and_unknown_entries_do_not_count():
    draw = np.random.default_rng(4)
    labels = (draw.random((300, 2)) < 0.3).astype(int)
    scores = 1 / (1 + np.exp(-4 * (draw.normal(size=(300, 2)) + labels - 0.5)))
    hidden = np.where(draw.random((300, 2)) < 0.3, -1, labels)
    at = np.nonzero(hidden >= 0)
    flat = np.stack([1 - scores[at], scores[at]], 1)
    assert fit_temperature(hidden, scores) == pytest.approx(fit_temperature(hidden[at], flat), rel=1e-6)


def test_without_a_known_label_there_is_no_temperature_and_no_scaled_metric():
    labels, scores = np.full((5, 2), -1), np.full((5, 2), 0.3)
    assert fit_temperature(labels, scores) is None
    assert "ece_scaled" not in classification_metrics(labels, scores, "macro", ("a", "b"))


def test_votes_of_zero_and_one_have_a_temperature():
    labels, votes = np.array([0, 1, 1, 0]), np.array([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    temperature = fit_temperature(labels, votes)
    assert temperature > 1 and np.isfinite(scaled(votes, temperature, False)).all()
