"""LEACE: nothing linear is left of the concept, and nothing else is changed more than it has to be."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_transfer.measures.erasure import leace, whitening


def planted(classes=3, rows=400, dim=10, seed=0):
    """Correlated features that encode a concept of several classes, and the indicators of its classes."""
    random = np.random.default_rng(seed)
    codes = random.integers(classes, size=rows)
    features = (
        random.normal(size=(rows, dim)) @ random.normal(size=(dim, dim)) + 2 * random.normal(size=(classes, dim))[codes]
    )
    return features, codes, np.eye(classes)[codes]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_class_means_coincide_and_covariance_with_the_concept_is_zero(classes):
    features, codes, concept = planted(classes)
    erased = leace(features, concept)(features)
    means = np.stack([erased[codes == code].mean(0) for code in range(classes)])
    assert np.abs(means - features.mean(0)).max() < 1e-9
    assert np.abs((erased - erased.mean(0)).T @ concept).max() / len(features) < 1e-9


def test_a_linear_classifier_of_the_concept_is_at_chance_on_these_rows():
    features, codes, concept = planted()
    features -= features.mean(0)
    erased = leace(features, concept)(features)
    before, after = (LogisticRegression(max_iter=5000, tol=1e-8, C=1e6).fit(x, codes) for x in (features, erased))
    assert before.score(features, codes) > 0.9 and np.abs(after.coef_).max() < 1e-5
    assert after.score(erased, codes) == np.bincount(codes).max() / len(codes)


def test_it_is_the_least_change_of_all_affine_maps_that_erase():
    """By the method of Lagrange: of the maps A with A Σ_xz = 0, I − Σ_xz (Σ_xzᵀ Σ⁻¹ Σ_xz)⁻¹ Σ_xzᵀ Σ⁻¹ changes least."""
    features, _, concept = planted()
    concept = concept[:, 1:]
    covariance = np.cov(features.T, bias=True)
    across = (features - features.mean(0)).T @ (concept - concept.mean(0)) / len(features)
    precision = np.linalg.inv(covariance)
    expected = np.eye(10) - across @ np.linalg.inv(across.T @ precision @ across) @ across.T @ precision
    eraser = leace(features, concept)
    assert np.allclose(eraser.projection, expected, atol=1e-9)
    moved = np.square(eraser(features) - features).sum(1).mean()
    basis = np.linalg.qr(across)[0]
    orthogonal = np.square((features - features.mean(0)) @ basis @ basis.T).sum(1).mean()
    assert moved < orthogonal  # the orthogonal projection erases, too


def test_an_erased_feature_stays_as_it_is_and_so_does_an_unrelated_one():
    features, _, concept = planted()
    erased = leace(features, concept)(features)
    assert np.allclose(leace(erased, concept)(erased), erased)
    random = np.random.default_rng(0)
    unrelated = random.normal(size=(400, 1))
    unrelated -= concept @ np.linalg.lstsq(concept, unrelated, rcond=None)[0]
    block = np.hstack([features - features.mean(0), unrelated])
    block[:, :10] -= unrelated @ (unrelated.T @ block[:, :10]) / np.square(unrelated).sum()
    assert np.allclose(leace(block, concept)(block)[:, 10:], unrelated)


def test_features_of_low_rank_and_constant_concepts_are_no_error():
    features, _, concept = planted(dim=4)
    wide = np.hstack([features, features @ np.ones((4, 2)), np.ones((400, 1))])
    erased = leace(wide, concept)(wide)
    assert np.abs((erased - erased.mean(0)).T @ concept).max() / 400 < 1e-6
    assert np.array_equal(leace(features, np.ones((400, 2)))(features), features)
    white, coloured = whitening(features)
    assert np.allclose(white @ coloured, np.eye(4))
