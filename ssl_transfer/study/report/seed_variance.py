"""How large the luck of a seed is, what differences it hides, and how many seeds would show them."""

from __future__ import annotations

import math

import pandas as pd

from ssl_transfer.study.statistics import minimal_detectable_effect, seeds_needed
from ssl_transfer.study.table import CELL

EFFECTS = (0.01, 0.02)  # differences, in units of the metric, that a study may want to see
LUCK_COLUMNS = ["unit", "n", "runs_per_unit", "sd_unit", "detects", *(f"seeds_for_{effect:g}" for effect in EFFECTS)]


def seed_luck(variance: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Variance components with what follows from them for a contrast of two arms.

    The spread of a unit is that of a pretraining seed whose fine-tuning seeds are averaged: √(sd_pretraining² + sd_seed² /
    runs). Where no arm has several pretraining seeds, the unit is the fine-tuning seed of one checkpoint.

    Args:
        variance: `statistics.variance_components`.
        results: `statistics.summary` of the same frame.

    Returns:
        `variance` with `LUCK_COLUMNS`: unit; n (units of the arm that has fewest); runs_per_unit; sd_unit; detects (the
        smallest true difference that n against n finds with 80 % power, before correction); and seeds per side that find
        each of `EFFECTS`, NaN where no number of seeds that anyone runs does.
    """
    variance = variance[variance["n_runs"] > 0]  # cells without any value have nothing to say
    units = {tuple(map(str, cell)): own for cell, own in results.groupby(CELL, dropna=False)}
    rows = [_consequences(row, units[tuple(map(str, row[CELL]))]) for _, row in variance.iterrows()]
    return variance.reset_index(drop=True).join(pd.DataFrame(rows, columns=LUCK_COLUMNS))


def _consequences(row: pd.Series, arms: pd.DataFrame) -> tuple:
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
