"""A kept linear model gives the probabilities that it was kept with."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from ssl_transfer.measures.linear_model import LinearModel
from ssl_transfer.measures.standardize import Standardizer

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(3, 2, (60, 5)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(classes):
    labels = np.arange(60) % classes
    scaler = StandardScaler().fit(FEATURES)
    expected = LogisticRegression(C=0.5).fit(scaler.transform(FEATURES), labels)
    classifier = LinearModel(expected.coef_, expected.intercept_, Standardizer.of(FEATURES), kind="multiclass")
    kept = LinearModel.of_tensors(classifier.tensors(), kind="multiclass")
    for one in (classifier, kept):
        assert np.allclose(one(FEATURES), expected.predict_proba(scaler.transform(FEATURES)), atol=1e-5)


def test_labels_are_each_by_themselves():
    labels = RNG.integers(0, 2, (60, 3))
    scaler = StandardScaler().fit(FEATURES)
    expected = OneVsRestClassifier(LogisticRegression()).fit(scaler.transform(FEATURES), labels)
    weights = np.concatenate([one.coef_ for one in expected.estimators_])
    intercepts = np.concatenate([one.intercept_ for one in expected.estimators_])
    classifier = LinearModel(weights, intercepts, Standardizer.of(FEATURES), kind="multilabel")
    assert np.allclose(classifier(FEATURES), expected.predict_proba(scaler.transform(FEATURES)), atol=1e-5)


def test_a_constant_feature_has_no_effect():
    constant = np.column_stack([FEATURES, np.ones(60, np.float32)])
    weights, intercepts = RNG.normal(size=(3, 6)), RNG.normal(size=3)
    classifier = LinearModel(weights, intercepts, Standardizer.of(constant), kind="multiclass")
    kept = LinearModel.of_tensors(classifier.tensors(), kind="multiclass")
    changed = constant.copy()
    changed[:, 5] = 7
    assert np.array_equal(kept(constant), kept(changed)) and np.isfinite(kept(constant)).all()


def test_tensors_that_do_not_fit_each_other_are_refused():
    classifier = LinearModel(np.ones((3, 5)), np.ones(3), Standardizer.of(FEATURES), kind="multiclass")
    with pytest.raises(ValueError, match="do not fit"):
        LinearModel.of_tensors(classifier.tensors() | {"mean": np.zeros(4, np.float32)}, kind="multiclass")
