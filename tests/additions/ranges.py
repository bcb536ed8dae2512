"""A new statistic: the range of values of every arm."""

from __future__ import annotations

import pandas as pd


def value_ranges(runs: pd.DataFrame) -> pd.DataFrame:
    """Columns pretraining, min, max."""
    return runs.groupby("pretraining")["value"].agg(["min", "max"]).reset_index()
