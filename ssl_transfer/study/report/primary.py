"""Primary contrasts: the rows they name, their noise setting, and the main metric of each target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.study.table import CLEAN, class_metrics, matches

MainMetrics = dict[tuple[str, str], str]  # task, protocol -> metric


def primary_noise(primary: Mapping) -> dict:
    """The noise setting of a primary contrast: its `noise` and `noise_sigma` if it names any, else no noise."""
    named = {name: primary[name] for name in ("noise", "noise_sigma") if primary.get(name) is not None}
    return named or {"noise": CLEAN}


def at_primary_noise(table: pd.DataFrame, primary: Mapping) -> tuple[pd.DataFrame, str]:
    """Rows at the noise setting of a primary contrast, or all rows of runs without it; and a sentence for captions."""
    setting = primary_noise(primary)
    at_setting = pd.Series(matches(table, setting), index=table.index)
    only_others = ~at_setting.groupby(
        [table[name] for name in ("task", "protocol", "strategy")], dropna=False
    ).transform("any")
    kept = table[at_setting | only_others]
    if setting != {"noise": CLEAN} or len(kept) == len(table):
        return kept, ""  # titles name the noise
    return kept, " Runs without noise" + (", where there are such." if only_others.any() else ".")


def main_metrics(
    frame: pd.DataFrame, primaries: Sequence[Mapping], stated: Mapping[str, str] | None = None
) -> tuple[MainMetrics, list[str]]:
    """The main metric of each protocol of each target: the one that recommendations and figures show.

    In order of precedence: the metric stated for the target, that of the first primary contrast on this target, that of the
    first one on any target, and the first metric of the runs. Metrics without values are skipped.

    Args:
        frame: A tidy table.
        primaries: As for `evidence.Evidence`.
        stated: Target -> metric.

    Returns:
        (target, protocol) -> metric, those of the primary contrasts first; warnings about stated metrics that no run has.
    """
    stated, main, warnings = stated or {}, {}, []
    task: Any
    protocol: Any
    for (task, protocol), runs in frame.groupby(["task", "protocol"], sort=False):
        measured = list(dict.fromkeys(runs["metric"]))
        first = [name for name in measured if name not in class_metrics(measured)]
        named = sorted(primaries, key=lambda primary: _distance(primary, task, protocol))
        wanted = [stated.get(task), *(primary["metric"] for primary in named), *first]
        main[task, protocol] = next(metric for metric in wanted if metric in measured)
    for task in dict.fromkeys(task for task, _ in main):
        used = [metric for (of_task, _), metric in main.items() if of_task == task]
        if task in stated and stated[task] not in used:
            warnings.append(
                f"The main metric of {task}, {stated[task]}, was measured by no run: {used[0]} is used instead."
            )
    order = [primary["metric"] for primary in primaries]
    keys = sorted(main, key=lambda key: order.index(main[key]) if main[key] in order else len(order))
    return {key: main[key] for key in keys}, warnings


def _distance(primary: Mapping, task: str, protocol: str) -> tuple[int, bool]:
    """Sort key of a primary contrast, which is smaller the better it matches a target and protocol."""
    tasks = primary.get("task")
    tasks = [tasks] if isinstance(tasks, str) else tasks
    return (1 if tasks is None else 0 if task in tasks else 2), primary["protocol"] != protocol


def at_main(table: pd.DataFrame, main: MainMetrics) -> pd.DataFrame:
    """The rows of a table at the main metric of their target and protocol."""
    keys = zip(table["task"], table["protocol"], table["metric"], strict=True)
    return table[
        np.fromiter((main.get((task, protocol)) == metric for task, protocol, metric in keys), bool, len(table))
    ]
