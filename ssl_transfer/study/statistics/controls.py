"""Controls of a study: trivial features beside the best arm, an arm against itself, and probes of permuted labels.

They are in no family of tests of pretrainings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.statistics.corrections import ALPHA, holm
from ssl_transfer.study.statistics.two_samples import paired, tost, welch
from ssl_transfer.study.statistics.units import seed_units
from ssl_transfer.study.table import CELL, complete

DEFAULT_MARGIN = 0.02  # where a study states neither a margin nor the smallest relevant difference
TRIVIAL_COLUMNS = [*CELL, "trivial", "best", "mean", "difference", "ci_low", "ci_high", "n", "test", "margin", "solved"]
AA_COLUMNS = [*CELL, "pretraining", "unit", "n_a", "n_b", "mean_a", "mean_b", "difference", "ci_low", "ci_high"]
AA_COLUMNS += ["p_value", "p_holm", "p_tost", "margin", "verdict"]
PERMUTATION_COLUMNS = [*CELL, "pretraining", "n", "mean", "sd", "ci_low", "ci_high", "level", "chance", "verdict"]
# What nothing learnt gives, whatever the number of classes and their frequencies; a metric per kind of task.
CHANCE = {"auroc": 0.5, "spearman": 0.0, "c_index": 0.5}
RUN = ["pretraining_seed", "seed"]


def against_trivial(frame: pd.DataFrame, trivial: pd.DataFrame, margin: Callable[[str], float]) -> pd.DataFrame:
    """Compare the best arm of each cell with trivial features.

    A cell is solved by trivial features if the mean of its best arm is no further than the margin above theirs. The interval is
    that of a paired t-test over the pretraining seeds (evaluation seeds where there is one pretraining seed) that both have, or,
    where they share no draws (public weights), of Welch's test over the units of each; it ignores that the arm was chosen as the
    best.

    Args:
        frame: Tidy table of the arms.
        trivial: Tidy table of trivial features.
        margin: Metric -> margin.

    Returns:
        `TRIVIAL_COLUMNS`, one row per cell that both tables have: the mean of trivial features, the best arm and its mean, the
        difference (positive: the arm is better), its 95 % interval, `test` (`paired` or `welch`), `n` pairs or units of the
        side that has fewer, and whether the cell is `solved`. Where draws are paired, means are those of the draws that both
        have; the best arm is the best over all of its own.
    """
    if frame.empty or trivial.empty:
        return pd.DataFrame(columns=TRIVIAL_COLUMNS)
    of_arms = _by_cell(complete(frame))
    rows = []
    for cell, control in _by_cell(complete(trivial)).items():
        if cell in of_arms:
            rows.append(_row(dict(zip(CELL, cell, strict=True)), of_arms[cell], control, margin))
    return pd.DataFrame(rows, columns=TRIVIAL_COLUMNS)


def _by_cell(frame: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    return dict(list(frame.groupby(CELL, dropna=False)))


def _row(
    cell: dict[str, Any], runs: pd.DataFrame, control: pd.DataFrame, margin: Callable[[str], float]
) -> dict[str, Any]:
    sign = metric_sign(cell["metric"])
    means = unit_means(runs)
    best: Any = (sign * means).idxmax() if means.notna().any() else means.index[0]
    arm, trivial, is_paired = _units(runs[runs["pretraining"] == best], control)
    a, b = sign * arm.to_numpy(float), sign * trivial.to_numpy(float)
    test = paired(a, b) if is_paired else welch(a, b)
    difference, most = sign * (arm.mean() - trivial.mean()), margin(cell["metric"])
    return {
        **cell,
        "trivial": trivial.mean(),
        "best": best,
        "mean": arm.mean(),
        "difference": difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "n": min(len(arm), len(trivial)),
        "test": "paired" if is_paired else "welch",
        "margin": most,
        "solved": bool(difference <= most + 1e-12),
    }


def unit_means(runs: pd.DataFrame) -> pd.Series:
    """Mean of each arm of a cell over its units (see `seed_units`)."""
    return seed_units(runs).groupby("pretraining", sort=False)["value"].mean()


def _units(runs: pd.DataFrame, control: pd.DataFrame) -> tuple[pd.Series, pd.Series, bool]:
    """Units of an arm and of trivial features, and whether they are pairs of the same draws; else they are all units."""
    both = runs[[*RUN, "value"]].merge(control[[*RUN, "value"]], on=RUN, suffixes=("_a", "_b"))
    if both.empty:
        return seed_units(runs)["value"], seed_units(control)["value"], False
    unit = "pretraining_seed" if both["pretraining_seed"].nunique() > 1 else "seed"
    units = both.groupby(unit, dropna=False)[["value_a", "value_b"]].mean()
    return units["value_a"], units["value_b"], True


def aa_contrasts(frame: pd.DataFrame, margin: Callable[[str], float]) -> pd.DataFrame:
    """Compare one half of the seeds of each arm with the other half, as if they were two arms: Welch's t-test.

    Halves are the seeds of even and of odd rank, so the halves are nearly as large as each other. The two must not come out
    different; with enough seeds they come out equivalent. p-values are corrected by Holm over all rows, so in all A/A contrasts
    together a `different` by chance has a probability of at most .05.

    Args:
        frame: Tidy table of the arms.
        margin: Metric -> margin of the equivalence test.

    Returns:
        `AA_COLUMNS`, one row per cell and arm with at least two units in each half; the verdict is `different`, `equivalent` or
        `not different`.
    """
    rows = []
    units = seed_units(frame).sort_values("unit_seed", kind="stable") if len(frame) else pd.DataFrame(columns=CELL)
    key: Any
    for key, of_arm in units.groupby([*CELL, "pretraining", "unit"], dropna=False, sort=False) if len(units) else ():
        values = of_arm["value"].to_numpy(float)
        if len(values) < 4:
            continue
        coordinates: dict[str, Any] = dict(zip([*CELL, "pretraining", "unit"], key, strict=True))
        most = margin(coordinates["metric"])
        test = vars(welch(values[::2], values[1::2]))
        rows.append({**coordinates, **test, "margin": most, "p_tost": tost(values[::2], values[1::2], most)})
    table = pd.DataFrame(rows, columns=AA_COLUMNS)
    table["p_holm"] = holm(table["p_value"].astype(float).tolist())
    different, equivalent = table["p_holm"] < ALPHA, table["p_tost"].astype(float) < ALPHA
    table["verdict"] = np.select([different, equivalent], ["different", "equivalent"], "not different")
    return table


def permutation_controls(frame: pd.DataFrame) -> pd.DataFrame:
    """Whether probes of permuted labels are at chance on test, by their AUROC, rank correlation or C-index.

    Permutations are independent given the features, so the unit is the run. Intervals are t-intervals at the level .05 divided
    by the number of rows.

    Args:
        frame: Tidy table of evaluations with `permute_labels`.

    Returns:
        `PERMUTATION_COLUMNS`, one row per cell and arm; the verdict is `at chance` if the interval covers `chance`, `above
        chance` (a leak), `below chance`, or `too few runs`.
    """
    from scipy import special

    runs = complete(frame) if len(frame) else pd.DataFrame(columns=[*CELL, "pretraining", "value"])
    of_arms = runs[runs["metric"].isin(CHANCE)].groupby([*CELL, "pretraining"], dropna=False)["value"]
    table = of_arms.agg(n="count", mean="mean", sd="std").reset_index().astype({"mean": float, "sd": float})
    level = ALPHA / max(1, len(table))
    reach = special.stdtrit(table["n"] - 1.0, 1 - level / 2) * table["sd"] / np.sqrt(table["n"])
    table = table.assign(ci_low=table["mean"] - reach, ci_high=table["mean"] + reach, level=level)
    table["chance"] = table["metric"].map(CHANCE)
    known, above, below = reach > 0, table["ci_low"] > table["chance"], table["ci_high"] < table["chance"]
    table["verdict"] = np.select([~known, above, below], ["too few runs", "above chance", "below chance"], "at chance")
    return table.reindex(columns=PERMUTATION_COLUMNS)
