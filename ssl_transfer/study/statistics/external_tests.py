"""External tests of a study: the metric on an external store beside that of the task's own test, and their gap."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ssl_transfer.study.statistics.tables import summary
from ssl_transfer.study.table import CELL, complete

ARM = [*CELL, "pretraining"]
EXTERNAL_COLUMNS = ["store", *ARM, "boundary", "n", "runs", "undefined", "own", "external", "gap", "ci_low", "ci_high"]


def external_gaps(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean metrics on the own and on the external test of each arm, and their gap with its 95 % t-interval.

    A run is tested on both, so the gap is paired within it; the units of the interval are those of `summary`. Means and gap are
    of the same runs: those in which the metric is defined on both tests.

    Args:
        runs: A tidy table with the columns `store` (name of the external store), `own` and `value` (on the external store).

    Returns:
        `EXTERNAL_COLUMNS`: `n` units of `runs` runs, and how many further runs lack a value (`undefined`); means `own` and
        `external`, and `gap` = external − own, NaN where all runs lack one.
    """
    runs, tables = complete(runs, ["store"]), []
    runs = runs.assign(defined=np.isfinite((runs["value"] - runs["own"]).to_numpy(float)))
    defined = runs.groupby(["store", *ARM], dropna=False)["defined"]
    counts = defined.agg(runs="sum", size="size").reset_index()
    counts = counts.assign(undefined=counts["size"] - counts["runs"])
    for store, of_store in runs[runs["defined"] | ~defined.transform("any")].groupby("store", sort=False):
        gaps, own, external = (
            summary(of_store.assign(value=values.where(of_store["defined"])))
            for values in (of_store["value"] - of_store["own"], of_store["own"], of_store["value"])
        )
        gaps = gaps.assign(store=store, own=own["mean"], external=external["mean"], gap=gaps["mean"])
        tables.append(gaps.merge(counts, on=["store", *ARM]))
    return pd.concat(tables)[EXTERNAL_COLUMNS] if tables else pd.DataFrame(columns=EXTERNAL_COLUMNS)
