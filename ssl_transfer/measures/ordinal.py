"""Ordered classes (grades): learnt as one threshold question each, "is the grade above k?", and scored by their distance.

Source:
    Frank & Hall 2001, doi 10.1007/3-540-44795-4_13; as the outputs of one network: Niu et al. 2016 (CVPR).
"""

from __future__ import annotations

import numpy as np

from ssl_transfer.measures.classification import ScoredImages


def above_thresholds(grades: np.ndarray, n_classes: int) -> np.ndarray:
    """Whether each grade is above 0, 1, …, C − 2.

    Args:
        grades: Integers in [0, C), shape (N,).
        n_classes: Number of grades C.

    Returns:
        0 or 1, int64, shape (N, C − 1): a multi-label target.
    """
    return (grades[:, None] > np.arange(n_classes - 1)).astype(np.int64)


def grade_probabilities(above: np.ndarray) -> np.ndarray:
    """Probability of each grade, rows sum to 1, (N, C), from the probabilities of being above each threshold, (N, C − 1).

    The thresholds are learnt separately. Where a higher one has a larger probability than a lower one, it gets that of the lower.
    """
    falling = np.minimum.accumulate(above, axis=1)
    edges = np.concatenate([np.ones((len(above), 1)), falling, np.zeros((len(above), 1))], 1)
    return edges[:, :-1] - edges[:, 1:]


def quadratic_kappa(images: ScoredImages) -> np.ndarray:
    """Cohen's kappa with quadratic weights, of the numbers of true and predicted grades, (R,); NaN if all are one grade.

    Source:
        Cohen 1968, doi 10.1037/h0026256.
    """
    truth, predicted, weights = images.level_of(images.labels), images.level_of(images.decided), images.weights
    observed = (predicted - truth) ** 2 @ weights
    means = (truth @ weights) * (predicted @ weights) / weights.sum(0)
    expected = (truth**2 + predicted**2) @ weights - 2 * means
    return 1 - np.divide(observed, expected, out=np.full_like(expected, np.nan), where=expected > 0)
