"""Scores of how far classes lie apart in the feature space: TransRate, GBC and SFDA."""

from __future__ import annotations

import numpy as np

from ssl_transfer.measures.transferability.inputs import checked_count, checked_features, checked_labels
from ssl_transfer.measures.transferability.spectrum import Spectrum

DISTORTION = 1e-4  # ε of TransRate
GBC_AXES = 64  # principal axes that GBC uses by default
SFDA_DECAY = 5.0  # a in λ = exp(−a · largest within-class variance)
SFDA_MIN_SHRINKAGE = 1e-10  # smallest λ


def transrate(features: np.ndarray, labels: np.ndarray) -> float:
    """Coding rate of all features minus the mean coding rate within classes: an estimate of the mutual information of features
    and labels, in nats.

    R(Z) − Σ_c N_c/N R(Z_c), with R(Z) = ½ log det(I + ZᵀZ / (N ε)), ε = 10⁻⁴. Z is centred and divided by the root mean
    square of its entries, so that ε is a share of their variance and the score does not depend on the scale of the features. (The
    published score does.) Range [0, ∞).

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.

    Raises:
        ScoreError: If features are not finite numbers (N, D), or labels not 1-D integers of N images and two classes.

    Source:
        Huang et al. 2022, https://arxiv.org/abs/2106.09207, section 3.
    """
    features = checked_features(features)
    return coding_gain(Spectrum.of(features, checked_labels(labels, len(features))))


def gbc(features: np.ndarray, labels: np.ndarray, axes: int | None = GBC_AXES) -> float:
    """Negative overlap of classes that are modelled as spherical Gaussians: −Σ_{i≠j} exp(−B_ij), B the Bhattacharyya distance.

    B_ij = ‖μ_i − μ_j‖² / (8 v) + D/2 · ln(v / √(v_i v_j)), where v = (v_i + v_j) / 2 and v_i is the mean variance of class i per
    direction (ddof 0). A class of one image has the variance of all images times 10⁻¹⁶. Range [−C (C − 1), 0]; 0 if no classes
    overlap. The score does not change if the features are scaled, shifted or rotated.

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.
        axes: Number of leading principal axes of the features that are used; None: all D directions.

    Raises:
        ScoreError: See `transrate`; or if `axes` is not a whole number above 0.

    Source:
        Pándy et al. 2022, https://arxiv.org/abs/2111.12780, with spherical Gaussians. (The published code adds the logarithm
        once; the formula, and this function, add it once per direction.)
    """
    features = checked_features(features)
    if axes is not None:
        checked_count(axes, "axes", np.inf)
    return gaussian_overlap(Spectrum.of(features, checked_labels(labels, len(features))), axes)


def sfda(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean log likelihood of the labels under Fisher's discriminant, after uncertain images were moved towards other classes.

    The discriminant uses the within-class covariance (1 − λ) S_W + λ I, where λ = exp(−5 s), at least 10⁻¹⁰, and s is the largest
    variance within classes. It gives each image f a probability p of its class. The image is then moved to p f + (1 − p) m, where
    m is the mean of all images of other classes, and the discriminant is fitted again with the same λ. Range (−∞, 0]. The score
    depends on the scale of the features through λ, as in the paper.

    Args:
        features: Features, shape (N, D).
        labels: Class codes, integers (N,), of at least two classes.

    Raises:
        ScoreError: See `transrate`.

    Source:
        Shao et al. 2022, https://arxiv.org/abs/2207.03036, section 3.
    """
    features = checked_features(features)
    return fisher_log_likelihood(Spectrum.of(features, checked_labels(labels, len(features))))


def coding_gain(spectrum: Spectrum) -> float:
    """`transrate` of a spectrum."""
    scale = spectrum.variances.sum() / spectrum.n_features * DISTORTION
    if scale == 0:  # features that never vary
        return 0.0
    whole = 0.5 * np.log1p(spectrum.variances / scale).sum()
    shares = spectrum.sums / spectrum.n_rows
    return float(whole - sum(share * _rate(part, scale) for share, part in zip(shares, _parts(spectrum), strict=True)))


def gaussian_overlap(spectrum: Spectrum, axes: int | None = GBC_AXES) -> float:
    """`gbc` of a spectrum."""
    dim = min(spectrum.n_features, spectrum.n_features if axes is None else axes)
    parts = [part[:, :dim] for part in _parts(spectrum)]
    means = np.stack([part.mean(0) for part in parts])
    variances = np.array([np.square(part - mean).mean(0).sum() for part, mean in zip(parts, means, strict=True)]) / dim
    smallest = max(spectrum.variances.sum() / dim * np.finfo(float).eps, np.finfo(float).tiny)
    variances = np.maximum(variances, smallest)  # a class of one image has no variance
    squared_distances = np.square(means[:, None] - means[None]).sum(2)
    mean_variances = (variances[:, None] + variances[None]) / 2
    distance = squared_distances / (8 * mean_variances) + dim / 2 * np.log(
        mean_variances / np.sqrt(variances[:, None]) / np.sqrt(variances)
    )
    overlaps = np.exp(-distance)
    return float(np.trace(overlaps) - overlaps.sum())


def fisher_log_likelihood(spectrum: Spectrum) -> float:
    """`sfda` of a spectrum."""
    coordinates, codes, counts = spectrum.coordinates, spectrum.codes, spectrum.sums
    means = spectrum.cross.T / counts[:, None]
    within = np.diag(spectrum.variances) - _between(means, counts)
    largest_variance = np.linalg.eigvalsh(within)[-1] if len(within) else 0.0
    shrinkage = max(np.exp(-SFDA_DECAY * largest_variance), SFDA_MIN_SHRINKAGE)
    own_class = np.arange(len(codes)), codes
    confidence = np.exp(_discriminant(coordinates, means, within, counts, shrinkage)[own_class])[:, None]
    other_means = -spectrum.cross.T / (len(codes) - counts)[:, None]  # the sum over all classes is 0
    moved = confidence * coordinates + (1 - confidence) * other_means[codes]
    moved -= moved.mean(0)
    means = np.stack([moved[codes == c].mean(0) for c in range(len(counts))])
    within = moved.T @ moved / len(moved) - _between(means, counts)
    return float(_discriminant(moved, means, within, counts, shrinkage)[own_class].mean())


def _parts(spectrum: Spectrum) -> list[np.ndarray]:
    """Coordinates of each class's images."""
    return [spectrum.coordinates[spectrum.codes == c] for c in range(len(spectrum.sums))]


def _rate(coordinates: np.ndarray, scale: float) -> float:
    """½ log det(I + ZᵀZ / (N · scale)), computed from the smaller one of ZᵀZ and ZZᵀ."""
    gram = coordinates @ coordinates.T if len(coordinates) < coordinates.shape[1] else coordinates.T @ coordinates
    return 0.5 * float(np.linalg.slogdet(np.eye(len(gram)) + gram / (len(coordinates) * scale))[1])


def _between(means: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Between-class covariance of centred coordinates, ddof 0."""
    return (means.T * (counts / counts.sum())) @ means


def _discriminant(
    coordinates: np.ndarray, means: np.ndarray, within: np.ndarray, counts: np.ndarray, shrinkage: float
) -> np.ndarray:
    """Log probabilities of classes (N, C) by Fisher's discriminant with a shrunk covariance, of centred coordinates.

    The whitened discriminant axes span the differences of class means, so distances along them are Mahalanobis distances up to a
    term that is the same for all classes.
    """
    weights = np.linalg.solve((1 - shrinkage) * within + shrinkage * np.eye(len(within)), means.T)
    logits = coordinates @ weights - 0.5 * np.einsum("cd,dc->c", means, weights) + np.log(counts / counts.sum())
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
