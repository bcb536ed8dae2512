"""Linear probe: how much of a task a linear classifier reads off frozen features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat
from sklearn.linear_model import LogisticRegression

from ssl_transfer.console import warn

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 4, 9))
MAX_ITERATIONS = 3000


def linear_probe(
    train: np.ndarray, labels: np.ndarray, queries: dict[str, np.ndarray], n_classes: int,
    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = STRENGTHS,
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:  # fmt: skip
    """Fit L2-regularised logistic regression at each strength.

    Features are standardised with the training rows' mean and spread. Each fit starts from the one before.

    Args:
        train: Features, shape (N, D).
        labels: Class of each, integers in [0, n_classes), all present, shape (N,).
        queries: Name -> features to score, shape (M, D).
        n_classes: Number of classes.
        strengths: Inverse regularisation strengths C, as in scikit-learn.

    Yields:
        The setting (`C`) and, for each query, class probabilities (M, n_classes).
    """
    mean, spread = train.mean(0), train.std(0)
    spread = np.where(spread > 1e-6 * max(spread.max(), 1e-12), spread, 1.0)  # a constant feature says nothing
    standardised = {name: (features - mean) / spread for name, features in queries.items()}
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True, tol=1e-5)
    inputs = (train - mean) / spread
    for strength in sorted(strengths):
        model.C = strength
        model.fit(inputs, labels)
        if np.max(model.n_iter_) >= MAX_ITERATIONS:
            warn(f"linear probe: C={strength:g} did not converge in {MAX_ITERATIONS} iterations")
        yield {"C": strength}, {name: model.predict_proba(x) for name, x in standardised.items()}
