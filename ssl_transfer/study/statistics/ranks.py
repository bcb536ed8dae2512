"""Mean ranks of arms over targets: which arm tends to be best, whatever the metric of a target?

On every target the arms are ranked (1 is the best, ties share their mean rank), so that targets of different metrics and
difficulty count alike. Friedman's test asks whether the mean ranks differ more than by chance, and two arms differ by
Nemenyi's test if their mean ranks are further apart than the critical difference. Ranks ignore how large differences are,
and with few targets the critical difference is large: they complement the contrasts and do not replace them.

References:
    Demšar 2006, https://jmlr.org/papers/v7/demsar06a.html; Friedman 1937; Nemenyi 1963.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.statistics.corrections import ALPHA

FEWEST_ARMS, FEWEST_TARGETS = 3, 3
PERMUTATIONS = 10_000
DRAWN_AT_ONCE = 2**22
SETTING = ["protocol", "strategy", "noise", "noise_sigma"]
RANK_COLUMNS = [
    *SETTING,
    "pretraining",
    "mean_rank",
    "n_arms",
    "n_targets",
    "chi2",
    "p_chi2",
    "p_value",
    "critical_difference",
    "groups",
    "arms_left_out",
]


@dataclass(frozen=True, eq=False)
class MeanRanks:
    """Ranks of k arms over N targets.

    Attributes:
        ranks: Rank of each arm on each target, a row per target, arms from the best mean rank to the worst.
        chi2: Friedman's statistic, corrected for ties; p_chi2 from χ² with k − 1 degrees of freedom.
        p_value: Of the same statistic by permutation of the ranks within targets, which holds for few targets too.
        critical_difference: Nemenyi's, of mean ranks, at 5 %.
        groups: Largest groups of arms that do not differ from one another, as positions of their first and last arm.
    """

    ranks: pd.DataFrame
    chi2: float
    p_chi2: float
    p_value: float
    critical_difference: float
    groups: list[tuple[int, int]]

    @property
    def means(self) -> pd.Series:
        """Mean rank of each arm, the best first."""
        return self.ranks.mean()

    @property
    def can_differ(self) -> bool:
        """Whether so many targets could show any difference: the critical difference is below that of first and last."""
        return self.critical_difference < self.ranks.shape[1] - 1


def mean_ranks(values: pd.DataFrame, *, alpha: float = ALPHA, seed: int = 0) -> MeanRanks:
    """Rank arms within targets and compare their mean ranks.

    Args:
        values: A row per target and a column per arm, without gaps; more is better.
        alpha: Level of the critical difference.
        seed: Of the permutations.
    """
    from scipy import special
    from scipy.stats import rankdata

    ranks = pd.DataFrame(rankdata(-values.to_numpy(float), axis=1), index=values.index, columns=values.columns)
    ranks = ranks[ranks.mean().sort_values(kind="stable").index]
    targets, arms = ranks.shape
    chi2 = float(_friedman(ranks.to_numpy()[None])[0])
    difference = critical_difference(arms, targets, alpha)
    return MeanRanks(
        ranks,
        chi2,
        float(special.chdtrc(arms - 1, chi2)) if math.isfinite(chi2) else math.nan,
        _permutation_p(ranks.to_numpy(), chi2, seed),
        difference,
        _groups(ranks.mean().to_numpy(), difference),
    )


def critical_difference(arms: int, targets: int, alpha: float = ALPHA) -> float:
    """Nemenyi's critical difference of mean ranks: q √(k (k + 1) / (6 N)), q the studentised range at ∞ over √2.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, arms, np.inf)) / math.sqrt(2)
    return q * math.sqrt(arms * (arms + 1) / (6 * targets))


def _friedman(ranks: np.ndarray) -> np.ndarray:
    """Friedman's statistic with the correction for ties, of ranks (…, N, k); NaN if every target has nothing but ties."""
    targets, arms = ranks.shape[-2:]
    between = targets * np.square(ranks.mean(-2) - (arms + 1) / 2).sum(-1)
    within = np.square(ranks - (arms + 1) / 2).sum((-1, -2)) / (targets * (arms - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return between / within


def _permutation_p(ranks: np.ndarray, observed: float, seed: int) -> float:
    """Share of `PERMUTATIONS` orders of the ranks within targets, the observed one included, with a statistic as large."""
    if not math.isfinite(observed):
        return math.nan
    rng, as_large = np.random.default_rng(seed), 1
    for part in np.array_split(np.arange(PERMUTATIONS - 1), math.ceil(PERMUTATIONS * ranks.size / DRAWN_AT_ONCE)):
        permuted = rng.permuted(np.broadcast_to(ranks, (len(part), *ranks.shape)), axis=-1)
        as_large += int((_friedman(permuted) >= observed - 1e-9).sum())
    return as_large / PERMUTATIONS


def _groups(means: np.ndarray, difference: float) -> list[tuple[int, int]]:
    """Largest runs of ascending mean ranks that lie within the critical difference; arms that differ from all have none."""
    groups: list[tuple[int, int]] = []
    for first, mean in enumerate(means):
        last = int(np.searchsorted(means, mean + difference, "right")) - 1
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups


def ranks_over_targets(results: pd.DataFrame) -> Iterator[tuple[dict[str, Any], MeanRanks, list[str]]]:
    """Mean ranks of the arms for every protocol, strategy and noise that was run on at least three targets.

    The value of an arm on a target is its mean over seeds, averaged over the label fractions at which all arms were run.
    Arms that lack a target are left out.

    Args:
        results: `statistics.summary` at main metrics: one metric for each target and protocol.

    Yields:
        The setting (protocol, strategy, noise, noise_sigma), the ranks, and the arms that were left out.
    """
    setting: Any
    for setting, rows in results[np.isfinite(results["mean"])].groupby(SETTING, dropna=False, sort=False):
        signs = rows["metric"].map({name: metric_sign(name) for name in set(rows["metric"])})
        signed = rows.assign(value=rows["mean"] * signs, fraction=rows["fraction"].fillna(-1.0))
        by_fraction = signed.set_index(["task", "fraction", "pretraining"])["value"].unstack("pretraining")
        targets = list(dict.fromkeys(rows["task"]))
        has = by_fraction.notna().groupby(level="task", sort=False).any().all()
        kept = by_fraction.loc[:, has].dropna()
        values = kept.groupby(level="task", sort=False).mean()
        if len(targets) == len(values) >= FEWEST_TARGETS and values.shape[1] >= FEWEST_ARMS:
            yield dict(zip(SETTING, setting, strict=True)), mean_ranks(values), has.index[~has].tolist()


def rank_table(setting: dict[str, Any], ranks: MeanRanks, left_out: list[str]) -> pd.DataFrame:
    """Mean ranks of a setting as rows of `RANK_COLUMNS`; `groups` numbers the groups that an arm belongs to."""
    targets, arms = ranks.ranks.shape
    groups = [
        " ".join(str(number) for number, (first, last) in enumerate(ranks.groups, 1) if first <= position <= last)
        for position in range(arms)
    ]
    rows = pd.DataFrame({"pretraining": ranks.means.index, "mean_rank": ranks.means.to_numpy(), "groups": groups})
    return rows.assign(
        **setting,
        n_arms=arms,
        n_targets=targets,
        chi2=ranks.chi2,
        p_chi2=ranks.p_chi2,
        p_value=ranks.p_value,
        critical_difference=ranks.critical_difference,
        arms_left_out=", ".join(left_out),
    )[RANK_COLUMNS]
