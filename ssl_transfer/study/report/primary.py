"""Primary contrasts: the rows they name, their noise setting, and the main metric of each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ssl_transfer.study.table import CELL, CLEAN, class_metrics

STRATEGIES = "strategies"  # a primary contrast may `compare` these in place of pretrainings
MainMetrics = dict[tuple[str, str], str]  # task, protocol -> metric


def primary_noise(primary: Mapping) -> dict:
    """The noise setting of the headline: what `primary` names of `noise` and `noise_sigma`, else none."""
    named = {name: primary[name] for name in ("noise", "noise_sigma") if primary.get(name) is not None}
    return named or {"noise": CLEAN}


def matches(table: pd.DataFrame, cell: Mapping) -> np.ndarray:
    """Which rows of a table lie in a cell; what the cell leaves out or has as None, and names of no cell, are any.

    Args:
        table: With the columns that the cell names.
        cell: Columns of `CELL` and their values; others are not looked at. A list of values means any of them.
    """
    keep = np.ones(len(table), bool)
    for name, value in cell.items():
        if name in CELL and value is not None:
            values = value if isinstance(value, (list, tuple, set)) else [value]
            keep &= np.any([_equal(table[name], one, name) for one in values], axis=0) if values else False
    return keep


def _equal(column: pd.Series, value, name: str) -> np.ndarray:
    if name in ("fraction", "noise_sigma"):
        return np.isclose(column.astype(float), value, equal_nan=True)
    return (column == value).to_numpy(bool)


def at_primary_noise(table: pd.DataFrame, primary: Mapping) -> tuple[pd.DataFrame, str]:
    """Rows at the headline's noise setting, with all rows of what was run at other settings only; a sentence on it."""
    setting = primary_noise(primary)
    own = pd.Series(matches(table, setting), index=table.index)
    elsewhere = ~own.groupby([table[name] for name in ("task", "protocol", "strategy")], dropna=False).transform("any")
    kept = table[own | elsewhere]
    if setting != {"noise": CLEAN} or len(kept) == len(table):
        return kept, ""  # titles name the noise
    return kept, " Runs without noise" + (", where there are such." if elsewhere.any() else ".")


def main_metrics(
    frame: pd.DataFrame, primaries: Sequence[Mapping], stated: Mapping[str, str] | None = None
) -> tuple[MainMetrics, list[str]]:
    """The one metric by which each protocol of each target is told.

    That is the one stated for the target; else that of the first primary contrast which is of this target, else of
    any; else the first that the runs have. What was not measured there is passed over.

    Args:
        frame: A tidy table.
        primaries: As for `report.write_report`.
        stated: Target -> metric.

    Returns:
        (target, protocol) -> metric, those of the primary contrasts first; warnings about stated metrics that no run has.
    """
    stated, found, warnings = stated or {}, {}, []
    for (task, protocol), runs in frame.groupby(["task", "protocol"], sort=False):
        measured = list(dict.fromkeys(runs["metric"]))
        first = [name for name in measured if name not in class_metrics(measured)]
        named = sorted(primaries, key=lambda primary: _distance(primary, task, protocol))
        wanted = [stated.get(task), *(primary["metric"] for primary in named), *first]
        found[task, protocol] = next(metric for metric in wanted if metric in measured)
    for task in dict.fromkeys(task for task, _ in found):
        used = [metric for (own, _), metric in found.items() if own == task]
        if task in stated and stated[task] not in used:
            warnings.append(
                f"The main metric of {task}, {stated[task]}, was measured by no run: {used[0]} stands in its place."
            )
    order = [primary["metric"] for primary in primaries]
    placed = sorted(found, key=lambda key: order.index(found[key]) if found[key] in order else len(order))
    return {key: found[key] for key in placed}, warnings


def _distance(primary: Mapping, task: str, protocol: str) -> tuple[int, bool]:
    """How far a primary contrast is from being about a target and protocol."""
    tasks = primary.get("task")
    tasks = [tasks] if isinstance(tasks, str) else tasks
    return (1 if tasks is None else 0 if task in tasks else 2), primary["protocol"] != protocol


def at_main(table: pd.DataFrame, main: MainMetrics) -> pd.DataFrame:
    """The rows of a table at the main metric of their target and protocol."""
    keys = zip(table["task"], table["protocol"], table["metric"], strict=True)
    return table[
        np.fromiter((main.get((task, protocol)) == metric for task, protocol, metric in keys), bool, len(table))
    ]
