"""Multiple comparisons with the best: which of several candidates may be the best one, given joint bootstrap samples."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.stats import chi2, norm, qmc

ALPHA = 0.05  # probability of a single best candidate where the two best are equal
DRAWS = 4096  # quasi-random draws of the maximum statistic
TINY = 1e-9  # standard errors below this share of the largest value are rounding errors


def may_be_best(values: np.ndarray, resampled: np.ndarray, units: int, alpha: float = ALPHA) -> np.ndarray:
    """Which candidates are not shown to be worse than another one.

    The statistic of candidate j is the largest studentised advantage of another candidate, max_i (v_i − v_j) / s_ij. It is
    compared with its distribution for equal candidates: the maximum of a multivariate t distribution with the covariance of the
    joint bootstrap samples, which accounts for the dependence between candidates and for the number of comparisons. Candidate j
    is excluded at the level α / 2. Therefore the best candidate is excluded with probability α / 2 at most. If the best two or
    more are equally good, a single candidate is left with probability α at most, whatever the other candidates are.

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
        Hsu 1981, https://doi.org/10.1214/aos/1176345581 (one-sided comparisons with the best).
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
