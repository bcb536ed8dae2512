"""What the variance between seeds means for a study: which differences it can detect, and how many seeds others need."""

from __future__ import annotations

import math

import pandas as pd

from ssl_transfer.study.statistics.two_samples import minimal_detectable_effect, seeds_needed
from ssl_transfer.study.table import CELL

EFFECTS = (0.01, 0.02)  # differences, in units of the metric, that a study may want to detect
DETECTION_COLUMNS = [
    "unit",
    "n",
    "runs_per_unit",
    "sd_unit",
    "detects",
    *(f"seeds_for_{effect:g}" for effect in EFFECTS),
]


def detectable_differences(variance: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Variance components with what follows from them for a contrast of two arms.

    The standard deviation of a unit is that of a pretraining seed whose fine-tuning seeds are averaged:
    √(sd_pretraining² + sd_seed² / runs). Where no arm has several pretraining seeds, the unit is the fine-tuning seed of
    one checkpoint.

    Args:
        variance: `statistics.variance_components`.
        results: `statistics.summary` of the same frame.

    Returns:
        `variance` with `DETECTION_COLUMNS`: unit; n (units of the arm that has fewest); runs_per_unit; sd_unit; detects (the
        smallest true difference that n against n detects with 80 % power, before correction); and the seeds per side that
        detect each of `EFFECTS`, NaN where `two_samples.MOST_SEEDS` do not suffice.
    """
    variance = variance[variance["n_runs"] > 0]  # a cell without any value has no variance
    units = {tuple(map(str, cell)): arms for cell, arms in results.groupby(CELL, dropna=False)}
    rows = [_detection(row, units[tuple(map(str, row[CELL]))]) for _, row in variance.iterrows()]
    return variance.reset_index(drop=True).join(pd.DataFrame(rows, columns=DETECTION_COLUMNS))


def _detection(row: pd.Series, arms: pd.DataFrame) -> tuple:
    """The values of `DETECTION_COLUMNS` for one cell."""
    nested = arms[arms["unit"] == "pretraining_seed"]
    unit, n = ("pretraining_seed", nested["n"].min()) if len(nested) else ("seed", arms["n"].min())
    runs = row["n_runs"] / row["n_pretraining_seeds"] if unit == "pretraining_seed" else 1.0
    if unit == "seed":
        sd = row["sd_seed"]
    elif row["method"] == "total":
        sd = row["sd_pretraining"]
    else:
        sd = math.sqrt(row["sd_pretraining"] ** 2 + row["sd_seed"] ** 2 / runs)
    needed = [(seeds_needed(effect / sd) if sd > 0 else None) or math.nan for effect in EFFECTS]
    return unit, n, runs, sd, minimal_detectable_effect(n, n) * sd, *needed
