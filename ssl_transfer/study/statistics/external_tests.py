"""External tests of a study: the metric on an external store beside that of the task's own test, and their gap."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.study.statistics.tables import summary
from ssl_transfer.study.table import CELL

EXTERNAL_COLUMNS = ["store", *CELL, "pretraining", "boundary", "n", "own", "external", "gap", "ci_low", "ci_high"]


def external_gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean metrics on the own and on the external test of each arm, and their gap with its 95 % t-interval.

    A run is tested on both, so the gap is paired within it; the units of the interval are those of `summary`.

    Args:
        runs: A tidy table with the columns `store` (name of the external store), `own` and `value` (on the external store).

    Returns:
        `EXTERNAL_COLUMNS`: `n` units, means `own` and `external`, and `gap` = external − own.
    """
    tables = []
    for store, of_store in runs.groupby("store", sort=False):
        gaps, own, external = (
            summary(of_store.assign(value=values))
            for values in (of_store["value"] - of_store["own"], of_store["own"], of_store["value"])
        )
        tables.append(gaps.assign(store=store, own=own["mean"], external=external["mean"], gap=gaps["mean"]))
    return pd.concat(tables)[EXTERNAL_COLUMNS] if tables else pd.DataFrame(columns=EXTERNAL_COLUMNS)
