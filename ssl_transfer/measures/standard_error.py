"""Standard error of a mean recall, over images or over patients."""

from __future__ import annotations

import numpy as np


def mean_recall_error(truth: np.ndarray, predicted: np.ndarray, patients: np.ndarray | None = None) -> float:
    """Standard error of the mean recall over classes (balanced accuracy) of N images.

    Over images it is binomial: √(Σ_c r_c (1 − r_c) / n_c) / C, with the recall r_c and the images n_c of each of C classes.
    Over patients, whose images are not independent, it is that of a sum over clusters: every image contributes
    g_i = (x_i − r_c) / (C n_c), with x_i = 1 if it is recognised, else 0; contributions are added per patient to G_p; and the
    error is √(P / (P − 1) · Σ_p G_p²) with P patients (Taylor linearisation of the ratios; Cochran 1977, Sampling Techniques,
    section 6.3). With an image per patient it is the binomial one but for P / (P − 1).

    Args:
        truth: Class of each image, integers, shape (N,).
        predicted: Predicted class, shape (N,).
        patients: Patient of each image, shape (N,); None, or a single one: the error over images.

    Example:
        >>> truth = np.array([0, 0, 0, 0, 1, 1, 1, 1])
        >>> predicted = np.array([0, 0, 0, 1, 1, 1, 0, 0])  # recalls 3/4 and 2/4
        >>> round(mean_recall_error(truth, predicted), 4), round((3 / 16 / 4 + 4 / 16 / 4) ** 0.5 / 2, 4)
        (0.1654, 0.1654)
        >>> round(mean_recall_error(truth, predicted, np.array([0, 0, 1, 1, 2, 2, 3, 3])), 4)
        0.2282
    """
    classes, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    right = (predicted == truth).astype(float)
    recalls = np.bincount(codes, weights=right) / counts
    contributions = (right - recalls[codes]) / (len(classes) * counts[codes])
    if patients is None or len(units := np.unique(patients)) < 2:
        return float(np.sqrt(np.square(contributions).sum()))
    sums = np.bincount(np.searchsorted(units, patients), weights=contributions)
    return float(np.sqrt(len(units) / (len(units) - 1) * np.square(sums).sum()))
