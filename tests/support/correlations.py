"""Correlation coefficients by SciPy."""

from scipy.stats import kendalltau, pearsonr, spearmanr, weightedtau

PUBLISHED = {
    "pearson": lambda one, other: pearsonr(one, other).statistic,
    "spearman": lambda one, other: spearmanr(one, other).statistic,
    "kendall": lambda one, other: kendalltau(one, other).statistic,
    "weighted_kendall": lambda one, other: weightedtau(one, other, rank=True).statistic,
}
