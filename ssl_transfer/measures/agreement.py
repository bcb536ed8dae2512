"""Correlation between a score and the quality of backbones."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from ssl_transfer.measures.resampling import draw_positions

COEFFICIENTS = ("pearson", "spearman", "kendall", "weighted_kendall")
FEWEST = 3  # backbones; the correlation of two is always 1 or −1


def agreement(scores: np.ndarray, quality: np.ndarray) -> dict[str, np.ndarray]:
    """Correlations of scores and quality, along the last axis.

    `kendall` is τ-b. `weighted_kendall` weights the pair of backbones i and j by 1/rank_i + 1/rank_j, so that the best count
    most. It is the mean over ranks by scores and ranks by quality, as in `scipy.stats.weightedtau`.

    Args:
        scores: Scores of n backbones, (…, n).
        quality: Their quality, such as test performance after fine-tuning, (…, n).

    Returns:
        Values (…) of each coefficient in `COEFFICIENTS`; NaN where scores or quality are constant.

    Source:
        Kendall 1945; Vigna 2015, https://arxiv.org/abs/1404.3325.
    """
    scores, quality = np.broadcast_arrays(np.asarray(scores, float), np.asarray(quality, float))
    with np.errstate(invalid="ignore", divide="ignore"):
        signs, truths = (np.sign(values[..., :, None] - values[..., None, :]) for values in (scores, quality))
        weighted = [
            _concordance(signs, truths, _pair_weights(first, second))
            for first, second in ((scores, quality), (quality, scores))
        ]
        return {
            "pearson": _linear(scores, quality),
            "spearman": _linear(rankdata(scores, axis=-1), rankdata(quality, axis=-1)),
            "kendall": _concordance(signs, truths, np.ones(())),
            "weighted_kendall": (weighted[0] + weighted[1]) / 2,
        }


def resampled_backbones(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Positions of n backbones drawn with replacement, with at least three different ones in each sample, int (resamples, n)."""
    draw, kept = np.random.default_rng(seed), []
    while sum(map(len, kept)) < resamples:
        drawn = np.concatenate(list(draw_positions(n, resamples, draw)))
        kept.append(drawn[(np.diff(np.sort(drawn, axis=1), axis=1) > 0).sum(1) >= FEWEST - 1])
    return np.concatenate(kept)[:resamples]


def _linear(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = first - first.mean(-1, keepdims=True), second - second.mean(-1, keepdims=True)
    correlation = (first * second).sum(-1) / np.sqrt(np.square(first).sum(-1) * np.square(second).sum(-1))
    return np.clip(correlation, -1, 1)


def _concordance(signs: np.ndarray, truths: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Kendall's τ-b, from the signs of the differences of all pairs (…, n, n)."""
    agreeing, *sizes = ((weights * pairs).sum((-1, -2)) for pairs in (signs * truths, signs**2, truths**2))
    return np.clip(agreeing / np.sqrt(sizes[0] * sizes[1]), -1, 1)


def _pair_weights(values: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """1/rank_i + 1/rank_j of all pairs (…, n, n). Rank 1 has the largest value; equal values are ranked by `ties`."""
    order = np.lexsort((ties, values))[..., ::-1]
    inverse = np.empty(values.shape)
    np.put_along_axis(inverse, order, np.broadcast_to(1 / np.arange(1, values.shape[-1] + 1), values.shape), -1)
    return inverse[..., :, None] + inverse[..., None, :]
