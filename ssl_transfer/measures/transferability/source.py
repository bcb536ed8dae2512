"""Scores of how well source-class posteriors predict the target labels: NCE, LEEP, and N-LEEP, which needs no classifier."""

from __future__ import annotations

import warnings

import numpy as np

from ssl_transfer.measures.transferability.inputs import (
    checked_count,
    checked_features,
    checked_labels,
    checked_probabilities,
)
from ssl_transfer.measures.transferability.spectrum import Spectrum, one_hot

KEPT_VARIANCE = 0.8  # share of the variance of the features that N-LEEP's principal axes keep
COMPONENTS_PER_CLASS = 5
ROWS_PER_COMPONENT = 10  # at least; with few images there are fewer components


def nce(source_labels: np.ndarray, labels: np.ndarray) -> float:
    """Negative conditional entropy −H(Y|Z) of the labels given source classes, in nats.

    Range [−log C, 0]; 0 if the source class determines the label.

    Args:
        source_labels: Z, the most probable source class of each image, integers (N,). All images may have the same one.
        labels: Y, integers (N,), of at least two classes.

    Raises:
        ScoreError: If labels are not 1-D integers of the same length, or of one class.

    Source:
        Tran et al. 2019, https://arxiv.org/abs/1908.08142.

    Example:
        >>> round(nce([0, 0, 1, 1], [0, 1, 1, 1]), 4)  # source class 0 has one image of each label
        -0.3466
    """
    codes = checked_labels(labels)
    return _conditional_entropy(checked_labels(source_labels, len(codes), "source_labels", least=1), codes)


def conditional_entropy(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """`nce` of checked probabilities of source classes (N, S) and class codes."""
    return _conditional_entropy(np.unique(probabilities.argmax(1), return_inverse=True)[1], codes)


def _conditional_entropy(sources: np.ndarray, codes: np.ndarray) -> float:
    """−H(Y|Z) of codes without gaps."""
    joint = np.zeros((sources.max() + 1, codes.max() + 1))
    np.add.at(joint, (sources, codes), 1 / len(codes))
    conditional = joint / joint.sum(1, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(conditional[seen])).sum())


def leep(source_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean log likelihood of the labels if a source class is drawn from the posterior, and a label from P(label | source class).

    (1/N) Σ_i log Σ_z P(y_i|z) θ_iz, with P(y, z) = (1/N) Σ_{i: y_i = y} θ_iz. Range (−∞, 0]. Source classes without
    probability mass are dropped.

    Args:
        source_probabilities: θ, rows sum to 1, (N, S).
        labels: Class codes, integers (N,), of at least two classes.

    Raises:
        ScoreError: If these are not probabilities, or labels are not 1-D integers of as many images and two classes.

    Source:
        Nguyen et al. 2020, https://arxiv.org/abs/2002.12462.

    Example:
        >>> round(leep([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [0, 1, 1]), 4)
        -0.2703
    """
    probabilities = checked_probabilities(source_probabilities)
    return expected_likelihood(probabilities, checked_labels(labels, len(probabilities)))


def expected_likelihood(probabilities: np.ndarray, codes: np.ndarray) -> float:
    """`leep` of checked probabilities and class codes."""
    joint = one_hot(codes) @ probabilities
    conditional = joint / joint.sum(0)
    likelihood = (probabilities @ conditional.T)[np.arange(len(codes)), codes]
    return float(np.log(likelihood).mean())


def n_leep(features: np.ndarray, labels: np.ndarray, components: int | None = None, seed: int = 0) -> float:
    """LEEP with the components of a Gaussian mixture of the features as source classes; it needs no source classifier.

    The mixture (full covariances) is fitted to the principal components that hold 80 % of the variance. All are divided by the
    standard deviation of the first, so the score does not depend on the scale of the features. Range (−∞, 0].

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.
        components: Number of mixture components, at most N; None: five per class, at most one per ten images.
        seed: Seed of the initialisation of the mixture.

    Raises:
        ScoreError: See `leep`; or if the features are not finite numbers (N, D), or `components` is not from 1 to N.

    Source:
        Li et al. 2021, https://arxiv.org/abs/2011.11200, section 3.
    """
    features = checked_features(features)
    codes = checked_labels(labels, len(features))
    spectrum = Spectrum.of(features, codes)
    if components is not None:
        checked_count(components, "components", len(features))
    return leep(mixture_posteriors(spectrum, components, seed), codes)


def mixture_posteriors(spectrum: Spectrum, components: int | None = None, seed: int = 0) -> np.ndarray:
    """Posteriors of the components of a Gaussian mixture of the features (N, K), the source classes of `n_leep`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows, variances = spectrum.n_rows, spectrum.variances
    if not len(variances):  # features that never vary
        return np.ones((rows, 1))
    components = components or max(1, min(COMPONENTS_PER_CLASS * len(spectrum.sums), rows // ROWS_PER_COMPONENT))
    kept = np.searchsorted(np.cumsum(variances), KEPT_VARIANCE * variances.sum()) + 1
    coordinates = spectrum.coordinates[:, :kept] / np.sqrt(variances[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianMixture(components, random_state=seed).fit(coordinates).predict_proba(coordinates)
