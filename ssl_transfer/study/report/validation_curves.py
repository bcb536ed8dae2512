"""Time to quality: how many steps of adaptation it takes from each pretraining to come near the best."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.errors import RunError
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.report.drawing import INK, STYLE, Looks, filled, grid, legend
from ssl_transfer.study.report.wording import joined, measure, percent, words

PANEL = ["task", "protocol", "strategy", "fraction", "metric"]
RUN = ["pretraining", "pretraining_seed", "seed"]
COURSE_COLUMNS = [*PANEL, *RUN, "step", "seconds", "value"]
Arms = dict[str, tuple[pd.DataFrame, pd.DataFrame]]  # arm -> its runs in a panel, and their mean
SHARES = (95, 99)  # % of the best that counts as near


def tidy(courses: pd.DataFrame) -> pd.DataFrame:
    """The columns of a course and a number for each `run`; checks without a value, and repeated ones, are left out.

    Raises:
        RunError: If a column is missing.
    """
    if missing := [name for name in COURSE_COLUMNS if name not in courses]:
        raise RunError(f"courses: no column {', '.join(missing)}; expected {', '.join(COURSE_COLUMNS)}.")
    strategy = courses["strategy"].astype(object).where(courses["strategy"].notna(), "")
    checks = courses[COURSE_COLUMNS].assign(strategy=strategy).dropna(subset=["step", "value"])
    checks["run"] = checks.groupby([*PANEL, *RUN], dropna=False).ngroup()
    return checks.drop_duplicates(["run", "step"], keep="last")  # a resumed run may have checked one step twice


def mean_course(runs: pd.DataFrame) -> pd.DataFrame:
    """The mean over the runs of one arm at every step at which one was checked.

    A run that stopped early, or is checked less often, counts with its last value: else the mean would run over ever
    fewer runs. It begins where all runs have a value.

    Args:
        runs: Rows of one panel and arm, as `tidy` gives them.

    Returns:
        Columns value and seconds (means over runs), by step.
    """
    wide = runs.pivot(index="step", columns="run", values=["value", "seconds"]).ffill()
    means = {name: wide[name].mean(axis=1, skipna=False) for name in ("value", "seconds")}
    return pd.DataFrame(means).dropna(subset="value")


def _panels(checks: pd.DataFrame) -> Iterator[tuple[tuple, Arms]]:
    """Every panel with its arms."""
    for key, runs in checks.groupby(PANEL, dropna=False):
        yield key, {arm: (own, mean_course(own)) for arm, own in runs.groupby("pretraining")}


def time_to_quality(checks: pd.DataFrame) -> pd.DataFrame:
    """Steps and seconds until the mean of an arm first comes within 5 % and 1 % of the best mean of any arm.

    The best is taken over all arms and steps of a target, protocol, strategy, fraction and metric. Where less is better,
    105 % and 101 % of it are meant.

    Args:
        checks: As `tidy` gives them.

    Returns:
        `PANEL`, pretraining, n (runs), best (of the arm), target_95, steps_95, seconds_95, and so for 99; NaN for never. In
        each panel in the order of steps.
    """
    rows = [row for key, arms in _panels(checks) for row in _times(key, arms)]
    reached = [f"{what}_{share}" for share in SHARES for what in ("target", "steps", "seconds")]
    table = pd.DataFrame(rows, columns=[*PANEL, "pretraining", "n", "best", *reached])
    return table.sort_values([*PANEL, "steps_99", "steps_95"], kind="stable").reset_index(drop=True)


def _goals(key: tuple, arms: Arms) -> dict[int, float]:
    """Share in % -> the value that is so near the best mean."""
    sign = metric_sign(key[PANEL.index("metric")])
    best = max((sign * mean["value"]).max() for _, mean in arms.values())
    return {share: sign * (best - (1 - share / 100) * abs(best)) for share in SHARES}


def _times(key: tuple, arms: Arms) -> Iterator[dict]:
    sign, goals = metric_sign(key[PANEL.index("metric")]), _goals(key, arms)
    for arm, (own, mean) in arms.items():
        row = {**dict(zip(PANEL, key, strict=True)), "pretraining": arm, "n": own["run"].nunique()}
        row["best"] = sign * (sign * mean["value"]).max()
        for share, goal in goals.items():
            there = mean[sign * mean["value"] >= sign * goal]
            row[f"target_{share}"] = goal
            row[f"steps_{share}"] = there.index[0] if len(there) else np.nan
            row[f"seconds_{share}"] = there["seconds"].iloc[0] if len(there) else np.nan
        yield row


def course_curves(checks: pd.DataFrame, looks: Looks) -> Figure:
    """Validation value over steps: a light line per run, and the mean of each arm.

    A panel per target, protocol, strategy and label fraction; dotted lines are 95 % and 99 % of its best mean.

    Args:
        checks: As `tidy` gives them; one metric.
        looks: As for `figures.learning_curves`.
    """
    panels, several_tasks = list(_panels(checks)), checks["task"].nunique() > 1
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=2.6)
        for position, (ax, (key, arms)) in enumerate(zip(axes, panels, strict=True)):
            task, protocol, strategy, fraction, metric = key
            _course(ax, arms, looks)
            for goal in _goals(key, arms).values():
                ax.axhline(goal, color=INK, linewidth=0.7, linestyle=(0, (1, 2)))
            title = joined(words(protocol), words(strategy), words(task) if several_tasks else "", percent(fraction))
            ax.set_title(filled(title, columns))
            if position % columns == 0:
                ax.set_ylabel(f"{measure(metric)}, validation")
            if position >= len(panels) - columns:
                ax.set_xlabel("steps")
        legend(figure, axes)
    return figure


def _course(ax: Axes, arms: Arms, looks: Looks) -> None:
    for arm, (own, course) in arms.items():
        (color, marker), mean = looks[arm], course["value"]
        for _, one in own.groupby("run"):
            ax.plot(one["step"], one["value"], color=color, linewidth=0.6, alpha=0.3)
        every = max(1, len(mean) // 6)
        ax.plot(mean.index, mean, color=color, marker=marker, markersize=4.5, markevery=every, linewidth=1.6, label=arm)
