"""Temperature scaling: probabilities are made sharper or softer by one number, which is fitted on validation.

Source:
    Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, logit, softmax

SMALLEST = 1e-12  # probability: votes of neighbours may be 0 or 1
BOUNDS = (-6.0, 6.0)  # of log temperature: where all validation images are right, the best temperature would be 0


def fit_temperature(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """The temperature with the smallest log loss.

    Args:
        labels: True class, integers in [0, C), shape (N,); multi-label: 1, 0 or, where unknown, −1, shape (N, C). All labels
            share the temperature.
        scores: Probabilities, shape (N, C).

    Returns:
        A number from e⁻⁶ to e⁶; above 1 if the probabilities are overconfident. None without a known label.
    """
    multilabel = labels.ndim == 2
    if not (labels >= 0).any():
        return None
    logits = _logits(scores, multilabel)

    def loss(log_temperature: float) -> float:
        cooled = logits / np.exp(log_temperature)
        if multilabel:
            return -float(log_expit(np.where(labels == 1, cooled, -cooled))[labels >= 0].mean())
        return -float(log_softmax(cooled, axis=1)[np.arange(len(labels)), labels].mean())

    best: Any = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-10})
    return float(np.exp(best.x))


def scaled(scores: np.ndarray, temperature: float, multilabel: bool) -> np.ndarray:
    """Probabilities (N, C) after division of their logits by a temperature."""
    logits = _logits(scores, multilabel) / temperature
    return expit(logits) if multilabel else softmax(logits, axis=1)


def _logits(scores: np.ndarray, multilabel: bool) -> np.ndarray:
    scores = np.clip(scores, SMALLEST, 1 - SMALLEST if multilabel else None)
    return logit(scores) if multilabel else np.log(scores)
