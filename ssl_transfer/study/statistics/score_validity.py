"""Score validity: do transferability scores and probes predict which pretraining fine-tunes best?

Every criterion (a score, kNN or a linear probe, from frozen features) is correlated with the test result after
fine-tuning, over pretrainings. A criterion is called valid if its mean Kendall's τ over targets is positive and
significant by the maximum statistic over all criteria. Random initialisation is far worse than every pretraining by any
criterion, so that a single such arm can make every criterion look valid: correlations are computed without it, and,
beside these, with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.agreement import COEFFICIENTS, agreement, resampled_backbones
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.measures.resampling import percentile_interval
from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.max_statistic import (
    permutation_p,
    permutations,
    permuted_kendall,
    restricted,
    simultaneous_p,
)
from ssl_transfer.study.table import CLEAN, complete

FEWEST_ARMS = 4  # with three, every coefficient is one of a handful of values
FEWEST_FOR_INTERVALS = 6  # with four, a 95 % interval covers 55 to 78 %
FEWEST_FOR_VALIDITY = 5  # with four, the smallest two-sided p-value is 2 / 4! = .083
PRETRAINED, ALL = "pretrained", "all"  # arms that are correlated: without and with random initialisation
SETTING = ["task", "strategy", "fraction", "metric"]
ENDS = [f"{name}{end}" for name in COEFFICIENTS for end in ("", "_low", "_high")]
TESTS = ["kendall_p", "kendall_p_max"]
VALIDITY_COLUMNS = [*SETTING, "criterion", "n", *ENDS, *TESTS, "regret"]
OVERALL_COLUMNS = ["criterion", "n", "targets", *ENDS, *TESTS, "valid", "regret"]


def score_validity(
    scores: pd.DataFrame, quality: pd.DataFrame, random_init: Collection[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`score_correlations` without the arms that are random initialisation, then with them if there are such.

    Args:
        scores, quality: As for `score_correlations`.
        random_init: Names of the arms that are random initialisation.

    Returns:
        Both tables of `score_correlations`, with a first column `arms`: `pretrained` or `all`.
    """
    random_arms = quality["pretraining"].isin(list(random_init))
    parts = {PRETRAINED: quality[~random_arms], ALL: quality} if random_arms.any() else {PRETRAINED: quality}
    made = {arms: score_correlations(scores, kept) for arms, kept in parts.items()}
    return _joined(made, 0, VALIDITY_COLUMNS), _joined(made, 1, OVERALL_COLUMNS)


def _joined(made: Mapping[str, tuple[pd.DataFrame, ...]], position: int, columns: list[str]) -> pd.DataFrame:
    """The tables of one kind below each other, with the arms that each is of."""
    tables = [tables[position].assign(arms=arms) for arms, tables in made.items() if len(tables[position])]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["arms", *columns])
    return table[["arms", *columns]]


def fine_tuned(frame: pd.DataFrame, main_metrics: Mapping[str, str]) -> pd.DataFrame:
    """Fine-tunes without noise at their task's main metric: columns of `SETTING`, pretraining, pretraining_seed and value.

    Fine-tuning seeds are averaged within a pretraining seed.
    """
    frame = complete(frame)
    main = frame["metric"] == frame["task"].map(main_metrics)
    kept = frame[(frame["protocol"] == "finetune") & (frame["noise"] == CLEAN) & main]
    keys = [*SETTING, "pretraining", "pretraining_seed"]
    return kept.groupby(keys, dropna=False, sort=False)["value"].mean().reset_index()


def score_correlations(
    scores: pd.DataFrame, quality: pd.DataFrame, *, resamples: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlation of every criterion with fine-tuned test quality over pretrainings, and the regret of following it.

    A pretraining is one point: both sides are averaged over its pretraining seeds. Intervals resample pretrainings, at least
    three different ones each time: they say how much rests on which candidates happened to be compared. In simulated studies
    of 6, 12 and 24 (normal, correlation 0 or 0.6) they covered the truth in 95 to 98 % for Kendall, 93 to 95 % weighted, 88
    to 93 % for Pearson. Below six pretrainings there are none.

    `kendall_p` is the two-sided permutation p-value of a criterion by itself, and `kendall_p_max` that of the maximum |τ|
    over all criteria of the setting (or of the means over targets); see `max_statistic`. Settings permute the same
    pretrainings alike.

    Args:
        scores: Columns pretraining, pretraining_seed, task, criterion, value (more is better).
        quality: `fine_tuned` of the same study.
        resamples: Bootstrap samples for the intervals.
        seed: Seed of the bootstrap.

    Returns:
        One row per setting and criterion (`VALIDITY_COLUMNS`), `regret` being the quality of the best pretraining less that
        of the one with the highest score, in units of the metric; and one row per criterion (`OVERALL_COLUMNS`), the mean over
        targets (settings of one target first averaged), `n` the fewest pretrainings and `targets` how many there are; `valid`
        if τ is positive and `kendall_p_max` below .05. Settings with fewer than four pretrainings are left out.
    """
    rows, samples, permuted = [], [], []
    by_arm = scores.groupby(["task", "criterion", "pretraining"])["value"].mean()
    arms = sorted(quality["pretraining"].unique())
    orders = permutations(len(arms), seed)
    for setting, runs in quality.groupby(SETTING, dropna=False, sort=False):
        parts: Any = setting
        task, metric = parts[0], parts[-1]
        tuned = (metric_sign(metric) * runs.groupby("pretraining")["value"].mean()).dropna()
        criteria = dict.fromkeys(scores.loc[scores["task"] == task, "criterion"])
        values = {criterion: by_arm[task, criterion].reindex(tuned.index) for criterion in criteria}
        values = {criterion: value for criterion, value in values.items() if value.notna().sum() >= FEWEST_ARMS}
        if not values:
            continue
        own_orders = restricted(orders, np.array([arms.index(arm) for arm in tuned.index]))
        taus = permuted_kendall(np.stack([*values.values()]).astype(float), tuned.to_numpy(float), own_orders)
        tests = zip(permutation_p(taus), simultaneous_p(taus), strict=True)
        for (criterion, value), of_permutations, test in zip(values.items(), taus.T, tests, strict=True):
            has = value.notna()
            row, sample = _correlations(value[has].to_numpy(), tuned[has].to_numpy(), resamples, seed)
            rows.append({**dict(zip(SETTING, setting, strict=True)), "criterion": criterion, **row, **_tests(test)})
            samples.append(sample)
            permuted.append(of_permutations)
    table = pd.DataFrame(rows, columns=VALIDITY_COLUMNS)
    return table, _over_targets(table, samples, permuted)


def _tests(p_values: Iterable[float]) -> dict[str, float]:
    return dict(zip(TESTS, map(float, p_values), strict=True))


def _correlations(x: np.ndarray, y: np.ndarray, resamples: int, seed: int) -> tuple[dict, dict[str, np.ndarray]]:
    """All coefficients of scores `x` and quality `y` with intervals, and their bootstrap distributions."""
    n = len(x)
    drawn = _draws(n, resamples, seed)
    values, sample = agreement(x, y), agreement(x[drawn], y[drawn])
    row = {"n": n}
    for name in COEFFICIENTS:
        row |= {name: float(values[name]), **_ends(name, sample[name], n)}
    return row | {"regret": float(y.max() - y[x.argmax()])}, sample


_draws = cache(resampled_backbones)  # settings with equally many pretrainings share their resamples


def _ends(name: str, sample: np.ndarray, n: int) -> dict[str, float]:
    """The percentile interval of a coefficient from its bootstrap distribution."""
    low, high = percentile_interval(sample) if n >= FEWEST_FOR_INTERVALS else (np.nan, np.nan)
    return {f"{name}_low": low, f"{name}_high": high}


def _over_targets(
    table: pd.DataFrame, samples: list[dict[str, np.ndarray]], permuted: list[np.ndarray]
) -> pd.DataFrame:
    """Means over targets; a resample is the same draw of pretrainings for all settings that have as many."""
    rows, means = [], []
    for criterion, settings in table.groupby("criterion", sort=False):
        targets = list(settings.groupby("task", sort=False).groups.values())
        row = {"criterion": criterion, "n": int(settings["n"].min()), "targets": len(targets)}
        for name in COEFFICIENTS:
            row[name] = float(np.mean([table.loc[target, name].mean() for target in targets]))
            row |= _ends(name, _mean_over(targets, [sample[name] for sample in samples]), row["n"])
        means.append(_mean_over(targets, permuted))  # as above, but of every permutation
        rows.append(row | {"regret": float(np.mean([table.loc[target, "regret"].mean() for target in targets]))})
    if rows:
        taus = np.stack(means, axis=1)
        for row, *test in zip(rows, permutation_p(taus), simultaneous_p(taus), strict=True):
            row |= _tests(test)
            row["valid"] = bool(row["kendall"] > 0 and row["kendall_p_max"] < ALPHA)
    return pd.DataFrame(rows, columns=OVERALL_COLUMNS)


def _mean_over(targets: list, samples: list[np.ndarray]) -> np.ndarray:
    """Mean over targets of the means over the settings of each; settings in which a criterion is constant are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a criterion that is constant everywhere
        return np.nanmean([np.nanmean([samples[i] for i in target], axis=0) for target in targets], axis=0)
