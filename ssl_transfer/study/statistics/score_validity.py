"""Validity of transferability scores and probes: do they predict which pretraining fine-tunes best?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.agreement import COEFFICIENTS, agreement, resampled_backbones
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.measures.resampling import percentile_interval
from ssl_transfer.study.table import CLEAN, complete

FEWEST_ARMS = 4  # with three, every coefficient is one of a handful of values
FEWEST_FOR_INTERVALS = 6  # with four, a 95 % interval covers 55 to 78 %
SETTING = ["task", "strategy", "fraction", "metric"]
VALIDITY_COLUMNS = [
    *SETTING,
    "criterion",
    "n",
    *(f"{name}{end}" for name in COEFFICIENTS for end in ("", "_low", "_high")),
    "regret",
]


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

    Args:
        scores: Columns pretraining, pretraining_seed, task, criterion, value (more is better).
        quality: `fine_tuned` of the same study.
        resamples: Bootstrap samples for the intervals.
        seed: Seed of the bootstrap.

    Returns:
        One row per setting and criterion (`VALIDITY_COLUMNS`), `regret` being the quality of the best pretraining less that
        of the one with the highest score, in units of the metric; and one row per criterion, the mean over targets (settings of
        one target first averaged), `n` the fewest pretrainings and `targets` how many there are. Settings with fewer than
        four pretrainings are left out.
    """
    rows, samples = [], []
    by_arm = scores.groupby(["task", "criterion", "pretraining"])["value"].mean()
    for setting, runs in quality.groupby(SETTING, dropna=False, sort=False):
        parts: Any = setting
        task, metric = parts[0], parts[-1]
        tuned = metric_sign(metric) * runs.groupby("pretraining", sort=False)["value"].mean()
        for criterion in dict.fromkeys(scores.loc[scores["task"] == task, "criterion"]):
            paired = pd.DataFrame({"score": by_arm[task, criterion].reindex(tuned.index), "quality": tuned}).dropna()
            if len(paired) < FEWEST_ARMS:
                continue
            row, sample = _correlations(paired["score"].to_numpy(), paired["quality"].to_numpy(), resamples, seed)
            rows.append({**dict(zip(SETTING, setting, strict=True)), "criterion": criterion, **row})
            samples.append(sample)
    table = pd.DataFrame(rows, columns=VALIDITY_COLUMNS)
    return table, _over_targets(table, samples)


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


def _over_targets(table: pd.DataFrame, samples: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """Means over targets; a resample is the same draw of pretrainings for all settings that have as many."""
    rows = []
    for criterion, settings in table.groupby("criterion", sort=False):
        targets = list(settings.groupby("task", sort=False).groups.values())
        row = {"criterion": criterion, "n": int(settings["n"].min()), "targets": len(targets)}
        for name in COEFFICIENTS:
            row[name] = float(np.mean([table.loc[target, name].mean() for target in targets]))
            sample = np.mean([np.mean([samples[i][name] for i in target], axis=0) for target in targets], axis=0)
            row |= _ends(name, sample, row["n"])
        rows.append(row | {"regret": float(np.mean([table.loc[target, "regret"].mean() for target in targets]))})
    ends = [f"{name}{end}" for name in COEFFICIENTS for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["criterion", "n", "targets", *ends, "regret"])
