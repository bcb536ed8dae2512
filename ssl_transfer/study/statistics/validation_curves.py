"""Time to quality: how many steps of fine-tuning it takes from each pretraining to come near the best."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError
from ssl_transfer.measures.metrics import metric_sign

PANEL = ["task", "protocol", "strategy", "fraction", "metric"]
RUN = ["pretraining", "pretraining_seed", "seed"]
CURVE_COLUMNS = [*PANEL, *RUN, "step", "seconds", "value"]
Arms = dict[str, tuple[pd.DataFrame, pd.DataFrame]]  # arm -> its runs in a panel, and their mean curve
SHARES = (95, 99)  # % of the best mean that counts as near


def tidy_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Keep `CURVE_COLUMNS`, number the runs (`run`), and drop checks that have no value or are repeated.

    Raises:
        RunError: If a column is missing.
    """
    if missing := [name for name in CURVE_COLUMNS if name not in curves]:
        raise RunError(f"validation curves: no column {', '.join(missing)}; expected {', '.join(CURVE_COLUMNS)}.")
    strategy = curves["strategy"].astype(object).where(curves["strategy"].notna(), "")
    checks = curves[CURVE_COLUMNS].assign(strategy=strategy).dropna(subset=["step", "value"])
    checks["run"] = checks.groupby([*PANEL, *RUN], dropna=False).ngroup()
    return checks.drop_duplicates(["run", "step"], keep="last")  # a resumed run may have checked one step twice


def mean_curve(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean over the runs of one arm at every step at which any of them was validated.

    A run that stopped early, or is validated less often, is carried forward with its last value: else the mean would be
    over ever fewer runs. The curve begins where all runs have a value.

    Args:
        runs: Rows of one panel and arm, as `tidy_curves` returns them.

    Returns:
        Columns value and seconds (means over runs), indexed by step.
    """
    wide = runs.pivot(index="step", columns="run", values=["value", "seconds"]).ffill()
    means = {name: wide[name].mean(axis=1, skipna=False) for name in ("value", "seconds")}
    return pd.DataFrame(means).dropna(subset="value")


def curve_panels(checks: pd.DataFrame) -> Iterator[tuple[tuple, Arms]]:
    """Every target, protocol, strategy, fraction and metric (`PANEL`) with its arms."""
    for key, runs in checks.groupby(PANEL, dropna=False):
        yield key, {str(arm): (arm_runs, mean_curve(arm_runs)) for arm, arm_runs in runs.groupby("pretraining")}


def time_to_quality(checks: pd.DataFrame) -> pd.DataFrame:
    """Steps and seconds until the mean of an arm first comes within 5 % and 1 % of the best mean of any arm.

    The best is taken over all arms and steps of a target, protocol, strategy, fraction and metric. Where less is better,
    105 % and 101 % of it are meant.

    Args:
        checks: As `tidy_curves` returns them.

    Returns:
        `PANEL`, pretraining, n (runs), best (of the arm), target_95, steps_95, seconds_95, and so for 99; NaN for never.
        Sorted by steps within each panel.
    """
    rows = [row for key, arms in curve_panels(checks) for row in _times(key, arms)]
    reached = [f"{what}_{share}" for share in SHARES for what in ("target", "steps", "seconds")]
    table = pd.DataFrame(rows, columns=[*PANEL, "pretraining", "n", "best", *reached])
    return table.sort_values([*PANEL, "steps_99", "steps_95"], kind="stable").reset_index(drop=True)


def quality_targets(key: tuple, arms: Arms) -> dict[int, float]:
    """Share in % -> the value that lies so near the best mean of a panel."""
    sign = metric_sign(key[PANEL.index("metric")])
    best = max((sign * mean["value"]).max() for _, mean in arms.values())
    return {share: sign * (best - (1 - share / 100) * abs(best)) for share in SHARES}


def _times(key: tuple, arms: Arms) -> Iterator[dict]:
    sign, targets = metric_sign(key[PANEL.index("metric")]), quality_targets(key, arms)
    for arm, (runs, mean) in arms.items():
        row = {**dict(zip(PANEL, key, strict=True)), "pretraining": arm, "n": runs["run"].nunique()}
        row["best"] = sign * (sign * mean["value"]).max()
        for share, target in targets.items():
            reached = mean[sign * mean["value"] >= sign * target]
            row[f"target_{share}"] = target
            row[f"steps_{share}"] = reached.index[0] if len(reached) else np.nan
            row[f"seconds_{share}"] = reached["seconds"].iloc[0] if len(reached) else np.nan
        yield row
