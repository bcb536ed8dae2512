"""What the variance components mean for a study: the differences that it can detect, and the seeds that others need."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.detectable import (
    minimal_detectable_effect,
    paired_detectable_effect,
    paired_seeds_needed,
    seeds_needed,
)
from ssl_transfer.study.table import CELL

EFFECTS = (0.01, 0.02)  # differences, in units of the metric, that a study may want to detect
DETECTION_COLUMNS = [
    "test",
    "unit",
    "n",
    "runs_per_unit",
    "sd_difference",
    "share_pretraining",
    "level",
    "detects",
    *(f"seeds_for_{effect:g}" for effect in EFFECTS),
]


def detectable_differences(variance: pd.DataFrame, results: pd.DataFrame, contrasts: pd.DataFrame) -> pd.DataFrame:
    """Variance components with what follows from them for a contrast of two arms.

    A unit is a pretraining seed with the mean of its m runs. Two arms in pairs have the same label subsets, which cancel: the
    variance of their difference in one unit is 2 (sd_pretraining² + (sd_arm_subset² + sd_residual²) / m). Without pairs
    (Welch) sd_subset² adds to the second part. Where no arm has several pretraining seeds, the unit is the evaluation seed
    of one checkpoint: m is 1, and pretraining does not count.

    Args:
        variance: `statistics.variance_components`.
        results: `statistics.summary` of the same frame.
        contrasts: `statistics.contrasts` of it, for test and level; a cell without any is taken as paired, at .05.

    Returns:
        `variance` with `DETECTION_COLUMNS`: test; unit; n (units of the arm that has fewest); runs_per_unit (m);
        sd_difference (between two arms, of one unit); share_pretraining (of its square: more runs per unit cannot reduce
        it); level (the largest of the cell's contrasts: that of the open ones); detects (the smallest true difference that n
        units per side detect with 80 % power at that level); and the units per side that detect each of `EFFECTS`, NaN
        where `detectable.MOST_SEEDS` do not suffice.
    """
    variance = variance[variance["n_runs"] > 0]  # a cell without any value has no variance
    arms, tests = (
        {_key(cell): rows for cell, rows in table.groupby(CELL, dropna=False)} for table in (results, contrasts)
    )
    rows = [_detection(row, arms[_key(row[CELL])], tests.get(_key(row[CELL]))) for _, row in variance.iterrows()]
    return variance.reset_index(drop=True).join(pd.DataFrame(rows, columns=DETECTION_COLUMNS))


def _key(cell) -> tuple[str, ...]:
    return tuple(map(str, cell))  # NaN does not equal itself, its name does


def _detection(row: pd.Series, arms: pd.DataFrame, pairs: pd.DataFrame | None) -> tuple:
    """The values of `DETECTION_COLUMNS` for one cell."""
    nested = arms[arms["unit"] == "pretraining_seed"]
    unit, n = ("pretraining_seed", nested["n"].min()) if len(nested) else ("seed", arms["n"].min())
    m = row["n_runs"] / row["n_pretraining_seeds"] if unit == "pretraining_seed" else 1.0
    paired = pairs is None or bool((pairs["test"] == "paired").any())
    level = ALPHA if pairs is None else float(pairs["level"].max())
    pretraining, subset, arm_subset, residual = (
        np.nan_to_num(row[f"sd_{name}"]) ** 2 for name in ("pretraining", "subset", "arm_subset", "residual")
    )
    between = pretraining if unit == "pretraining_seed" else 0.0
    one = between + (arm_subset + residual + (0.0 if paired else subset)) / m
    sd = math.sqrt(2 * one) if math.isfinite(row["sd_residual"]) else math.nan
    share = between / one if sd > 0 and math.isfinite(row["sd_pretraining"]) else math.nan
    if paired:
        detects = paired_detectable_effect(n, alpha=level) * sd
        needed = [sd > 0 and paired_seeds_needed(effect / sd, alpha=level) for effect in EFFECTS]
    else:
        detects = minimal_detectable_effect(n, n, alpha=level) * sd / math.sqrt(2)
        needed = [sd > 0 and seeds_needed(math.sqrt(2) * effect / sd, alpha=level) for effect in EFFECTS]
    return "paired" if paired else "welch", unit, n, m, sd, share, level, detects, *(k or math.nan for k in needed)


def least_detectable(pairs: pd.DataFrame) -> tuple[float, float]:
    """The true difference that the weakest contrast of a cell finds with 80 % power at the level that decides it.

    Standard deviations are pooled over the contrasts of one kind of test.

    Args:
        pairs: Contrasts of one cell.

    Returns:
        In standard deviations (of paired differences, or of one arm), and in units of the metric. NaN if none could be tested.
    """
    found = [(math.nan, math.nan)]
    for test, rows in pairs.groupby("test"):
        n_a, n_b = rows["n_a"].to_numpy(float), rows["n_b"].to_numpy(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            squared = (rows["difference"] / rows["t"]).to_numpy(float) ** 2  # standard error
            variance = squared * n_a if test == "paired" else squared / (1 / n_a + 1 / n_b)
        known = variance[np.isfinite(variance)]
        sd = math.sqrt(known.mean()) if len(known) else math.nan
        for a, b, level in set(zip(rows["n_a"], rows["n_b"], rows["level"], strict=True)):
            paired = test == "paired"
            effect = (
                paired_detectable_effect(a, alpha=level) if paired else minimal_detectable_effect(a, b, alpha=level)
            )
            found.append((effect, effect * sd))
    return max(found, key=lambda pair: tuple(-1.0 if math.isnan(x) else x for x in pair[::-1]))
