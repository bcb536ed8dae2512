"""Multiple comparisons with the best: which of several candidates may be the best one, given joint bootstrap samples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import chi2, norm, qmc, t

ALPHA = 0.05  # probability of a single best candidate where the two best are equal
DRAWS = 4096  # quasi-random draws of the maximum statistic
TINY = 1e-9  # standard errors below this share of the largest value are rounding errors


def may_be_best(values: np.ndarray, resampled: np.ndarray, units: int, alpha: float = ALPHA) -> np.ndarray:
    """Which candidates are not shown to be worse than the best one.

    The advantage of candidate i over j is studentised, (v_i − v_j) / s_ij, with standard errors from the joint bootstrap samples.

    - If the advantages of the first candidate over all others exceed the two-sided critical value of a t test, only the first is
      left. Although the first one was selected by its value, this happens with probability α at most if all candidates are
      equally good, for any number of candidates and any dependence between them (see below).
    - Otherwise candidate j is excluded if the largest advantage of another candidate over it, max_i (v_i − v_j) / s_ij, exceeds
      the 1 − α / 2 quantile of its distribution for equal candidates: of the maximum of a multivariate t distribution with the
      covariance of the bootstrap samples.

    Proof of the first statement: let T be elliptical around 0, and d_ij the direction in which candidate i is compared with j. On
    the sphere of directions, candidate i wins in a set S_i that lies in a cap of radius π/2 − δ around every d_ij. For two
    candidates, these sets are two whole caps. For more, points of S_i and S_j are at least 2 δ apart, since d_ij = −d_ji, so that
    the neighbourhoods of radius δ are disjoint and fill at most the sphere. By the isoperimetric inequality, a set in a cap of
    that radius is at most as large a share of its neighbourhood as the cap is of its own, a half-sphere. So all S_i together are
    at most as large as two caps.

    Standard errors are estimated from few patients and few bootstrap samples. The degrees of freedom ν account for both:
    1/ν = 1/(units − 1) + 1/(R − 1).

    Args:
        values: Value of each of K candidates, higher is better, shape (K,).
        resampled: Their values in the same R bootstrap samples, finite, shape (K, R).
        units: Number of units (patients) that were resampled.
        alpha: Level α.

    Returns:
        Whether each candidate may be the best, bool (K,). With fewer than two units or two samples, all may be.

    Source:
        Hsu 1981, https://doi.org/10.1214/aos/1176345581 (one-sided comparisons with the best); Laska & Meisner 1989 (a candidate
        is the best if each of its comparisons with the others is significant).
    """
    count, resamples = resampled.shape
    if count < 2 or units < 2 or resamples < 2:
        return np.ones(count, bool)
    freedom = 1 / (1 / (units - 1) + 1 / (resamples - 1))
    covariance = np.cov(resampled) * units / (units - 1)  # the bootstrap variance of a mean is too small by (n − 1) / n
    variances = np.diag(covariance)
    errors = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0))
    errors = np.maximum(errors, TINY * np.abs(values).max() + np.finfo(float).tiny)
    advantages = (values - values[:, None]) / errors  # [j, i]: of i over j
    first = values.argmax()
    if np.delete(advantages[:, first], first).min() > t.ppf(1 - alpha / 2, freedom):
        return np.arange(count) == first
    draws = _standard_draws(count, freedom) @ _root(covariance).T
    largest = np.stack([((draws - draws[:, [j]]) / errors[j]).max(1) for j in range(count)])
    return (largest >= advantages.max(1)[:, None]).mean(1) > alpha / 2


@lru_cache(maxsize=8)
def _standard_draws(count: int, freedom: float) -> np.ndarray:
    """Quasi-random draws (DRAWS, count) of the multivariate t distribution with mean 0 and the identity as scale matrix."""
    uniform = qmc.Sobol(count + 1, scramble=False).random(DRAWS) + 0.5 / DRAWS  # the first point is 0
    return norm.ppf(uniform[:, 1:]) / np.sqrt(chi2.ppf(uniform[:, :1], freedom) / freedom)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix A with A Aᵀ = covariance."""
    eigenvalues, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(eigenvalues.clip(min=0))
