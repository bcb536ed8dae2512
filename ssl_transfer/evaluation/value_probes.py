"""Linear probes of a number and of survival: ridge regression and Cox's model, for every strength of the penalty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ssl_transfer.errors import TaskError
from ssl_transfer.measures.survival import fit_cox

Fit = tuple[
    dict[str, float], np.ndarray, np.ndarray, bool
]  # setting, weights (1, D), intercepts (1,), whether it converged


def ridge_fits(features: np.ndarray, values: np.ndarray, strengths: Sequence[float]) -> Iterator[Fit]:
    """Ridge regression, C · ½ Σ (y − ŷ)² + ½ ‖weights‖², at its exact solution for every C; that of scikit-learn at α = 1 / C.

    Args:
        features: Standardised features, (N, D).
        values: Target, (N,).
        strengths: Values of C.

    Raises:
        TaskError: If all values are equal.
    """
    if np.ptp(values) == 0:
        raise TaskError(
            f"linear probe: the {len(values)} training images have one value, {values[0]:g}; expected at least two. "
            "Take a larger fraction, or another seed."
        )
    inputs, centre = features.astype(np.float64), values.mean()
    mean = inputs.mean(0)
    inputs, wide = inputs - mean, inputs.shape[1] > len(inputs)
    spectrum, basis = np.linalg.eigh(inputs @ inputs.T if wide else inputs.T @ inputs)
    projected = basis.T @ (values - centre if wide else inputs.T @ (values - centre))
    for strength in sorted(map(float, strengths)):
        solution = basis @ (projected / (spectrum + 1 / strength))
        weights = inputs.T @ solution if wide else solution
        yield {"C": strength}, weights[None], np.array([centre - mean @ weights]), True


def cox_fits(features: np.ndarray, times: np.ndarray, strengths: Sequence[float]) -> Iterator[Fit]:
    """Cox's proportional hazards with a ridge penalty, for every C; see `measures.survival.fit_cox`.

    Args:
        features: Standardised features, (N, D).
        times: Time and event (1 or 0), (N, 2).
        strengths: Values of C.

    Raises:
        TaskError: If no training case has an event.
    """
    time, event = times[:, 0], times[:, 1] == 1
    if not event.any():
        raise TaskError(
            f"linear probe: none of the {len(times)} training images has an event; expected at least one. "
            "Take a larger fraction, or another seed."
        )
    inputs = features.astype(np.float64)
    mean, ordered = inputs.mean(0), sorted(map(float, strengths))
    for strength, (weights, converged) in zip(ordered, fit_cox(inputs - mean, time, event, ordered), strict=True):
        yield {"C": strength}, weights[None], np.array([-mean @ weights]), converged
