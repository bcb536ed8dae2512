"""Many scores against one outcome: p-values that hold for all scores at once.

Nine transferability scores and two probes, correlated with fine-tuning over a handful of pretrainings, nearly always
include one that looks good. The maximum statistic takes this into account: outcomes are permuted across pretrainings, the
same way for all scores, and each observed |τ| is compared with the largest |τ| of any score under each permutation. If no
score is related to the outcome, the chance that any p-value is below .05 is at most 5 %, whatever the scores have in
common with each other.

References:
    Westfall and Young 1993, Resampling-Based Multiple Testing, single-step maxT; Phipson and Smyth 2010,
    https://doi.org/10.2202/1544-6115.1585 (the observed order counts as one of the permutations).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

MOST_PERMUTATIONS = 5040  # all of them for up to seven pretrainings
HELD_AT_ONCE = 2**22  # signs of pairs
TIED = 1e-9  # coefficients that differ by less are equal


def permutations(n: int, seed: int = 0) -> np.ndarray:
    """Orders of n objects, the observed one first: all n! of them if they are at most `MOST_PERMUTATIONS`, else so many, drawn.

    Returns:
        Integers, shape (permutations, n).
    """
    if math.factorial(min(n, 20)) <= MOST_PERMUTATIONS:
        return np.array(list(itertools.permutations(range(n))), int).reshape(-1, n)
    orders = np.tile(np.arange(n), (MOST_PERMUTATIONS, 1))
    orders[1:] = np.random.default_rng(seed).permuted(orders[1:], axis=1)
    return orders


def restricted(orders: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Orders of some of the objects: as they follow each other in the orders of all.

    Args:
        orders: `permutations` of all objects, (P, n).
        kept: Positions of m of them.

    Returns:
        Orders of m objects, shape (P, m).
    """
    return orders[:, kept].argsort(1, kind="stable").argsort(1, kind="stable")


def permuted_kendall(scores: np.ndarray, outcome: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of every score with the outcome under each order of the outcomes.

    Args:
        scores: Shape (K, n); NaN where an object lacks a score, which then counts for the other scores only.
        outcome: Shape (n,).
        orders: `permutations` of n objects, (P, n).

    Returns:
        Shape (P, K); NaN where a score, or the outcome of the objects that have it, is constant.
    """
    has = np.isfinite(scores)
    with np.errstate(invalid="ignore"):
        signs = np.nan_to_num(np.sign(scores[:, :, None] - scores[:, None, :]))
    pairs = (has[:, :, None] & has[:, None, :]).astype(float)
    signs, pairs = signs.reshape(len(scores), -1).T, pairs.reshape(len(scores), -1).T
    truths, parts = np.sign(outcome[:, None] - outcome[None, :]), []
    for part in np.array_split(orders, math.ceil(orders.size * orders.shape[1] / HELD_AT_ONCE)):
        permuted = truths[part[:, :, None], part[:, None, :]].reshape(len(part), -1)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(permuted @ signs / np.sqrt(np.square(permuted) @ pairs * np.square(signs).sum(0)))
    return np.concatenate(parts)


def permutation_p(coefficients: np.ndarray) -> np.ndarray:
    """Two-sided p-value of each score by itself.

    Args:
        coefficients: Under each permutation, the observed order first, (P, K).

    Returns:
        Share of the permutations with a |coefficient| as large as the observed one, (K,); NaN where that is NaN.
    """
    return _share_as_large(np.abs(coefficients), np.abs(coefficients[0]))


def simultaneous_p(coefficients: np.ndarray) -> np.ndarray:
    """Two-sided p-value of each score, corrected for the number of scores by the maximum statistic.

    Args:
        coefficients: As for `permutation_p`.

    Returns:
        Share of the permutations in which any score has a |coefficient| as large as the observed one, (K,).
    """
    if not coefficients.size:
        return np.full(coefficients.shape[1], np.nan)
    largest = np.nan_to_num(np.abs(coefficients)).max(1, keepdims=True)
    return _share_as_large(largest, np.abs(coefficients[0]))


def _share_as_large(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(observed), (values >= observed - TIED).mean(0), np.nan)
