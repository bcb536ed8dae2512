"""Long tables: how the page shortens and splits them, and their rows in LaTeX."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.primary import at_main, at_primary_noise, primary_noise
from ssl_transfer.study.report.wording import measure, noisy, nominal, number, p_value, percent, t_value, words
from ssl_transfer.study.statistics import EXPLORATORY
from ssl_transfer.study.table import CLEAN, class_metrics

PAGE_ROWS = 1500  # the page and LaTeX show longer tables at main metrics only
MOST_ROWS = 10_000  # maximum on the page and in LaTeX; CSV files are complete
OPEN_ROWS = 80  # longer parts of a table are collapsed


def for_latex(evidence: Evidence, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table in LaTeX: those of the page, without metrics of single classes."""
    rows = shortened(evidence, table)[0]
    return rows[~rows["metric"].isin(class_metrics(evidence.frame["metric"]))]


def with_cell(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The cell of each row as text, followed by other columns; empty columns are left out."""
    cell = {"Task": "task", "Protocol": "protocol", "Strategy": "strategy", "Fraction": "fraction", "Metric": "metric"}
    shared = {title: table[name].map(percent if name == "fraction" else words) for title, name in cell.items()}
    noise = [noisy(kind, sigma) for kind, sigma in zip(table["noise"], table["noise_sigma"], strict=True)]
    rows = pd.DataFrame({**shared, "Noise": [text or CLEAN for text in noise] if any(noise) else "", **columns})
    return rows.replace("", np.nan).dropna(axis=1, how="all").fillna("")


def inference_columns(table: pd.DataFrame) -> dict[str, Any]:
    """Difference, interval, test statistic, level and corrected p of contrasts, in words."""
    ends = zip(table["ci_low"], table["ci_high"], strict=True)
    p = table["p_holm"].where(table["family"] != EXPLORATORY, table["p_bh"])
    return {
        "Difference": [number(difference, True) for difference in table["difference"]],
        "Interval": [f"{number(low, True)} to {number(high, True)}" for low, high in ends],
        "t (df)": [t_value(t, df) for t, df in zip(table["t"], table["df"], strict=True)],
        "Level": table["level"].map(nominal),
        "p (corrected)": p.map(p_value),
    }


def verdicts(table: pd.DataFrame) -> pd.Series:
    """Verdicts of contrasts, with their scope if that is not the pretraining in general."""
    return table["verdict"] + table["holds_for"].map(lambda text: f" (for {text})" if text else "")


def shortened(evidence: Evidence, table: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """The rows of a long table on the page (main metrics at the primary noise setting), and whether rows were left out."""
    if len(table) <= PAGE_ROWS:
        return table, False
    kept, _ = at_primary_noise(table.assign(strategy=table.get("strategy", "")), evidence.primaries[0])
    return table.loc[at_main(kept, evidence.main_metrics).index].head(MOST_ROWS), True


def page_parts(evidence: Evidence, table: pd.DataFrame, name: str) -> tuple[list[dict], str]:
    """Split contrasts or results into parts for the page: the first part is open, the others are collapsed.

    Each metric has a part of its own, the main ones first, and runs with noise have theirs apart from those without.
    The metrics of single classes share one, of the runs that the primary contrast is about; CSV has the others. Within a
    part, pairs inside the domain come first. A table of more than `PAGE_ROWS` rows is cut to main metrics, and has a part
    per target.

    Args:
        evidence: Evidence of the report.
        table: Contrasts or results.
        name: Name of its file in `tables/`.

    Returns:
        Parts: dicts of `title`, `rows` (dicts), whether rows differ in `noise` and in `metric` (each is then a column), whether
        the part is `open`, and whether its title has `named` the one target it is of. And a sentence on what was left out;
        empty if nothing was.
    """
    near = [side for side in ("boundary_a", "boundary_b") if side in table]
    outwards = table.sort_values(near, key=lambda c: c.map(DISTANCE).fillna(3), kind="stable") if near else table
    kept, cut = shortened(evidence, outwards)
    if cut:
        tasks = [task for task in dict.fromkeys(task for task, _ in evidence.main_metrics) if task in set(kept["task"])]
        parts, note = (
            [_part(*_of_task(kept, task)) for task in tasks],
            (f"Shown are the {len(kept):,} of {len(table):,} {name} at main metrics; tables/{name}.csv has all."),
        )
    else:
        parts, note = [_part(*part) for part in _by_metric(evidence, outwards)], ""
    parts = [part for part in parts if part["rows"]]
    for position, part in enumerate(parts):
        part |= {"open": position == 0 and len(part["rows"]) <= OPEN_ROWS, "named": cut}
    return parts, note


def _of_task(table: pd.DataFrame, task: str) -> tuple[str, pd.DataFrame]:
    rows = table[table["task"] == task]
    return f"{words(task)}, {', '.join(measure(metric) for metric in dict.fromkeys(rows['metric']))}", rows


def _by_metric(evidence: Evidence, table: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    primary = evidence.primaries[0]
    first = dict.fromkeys([primary["metric"], *evidence.main_metrics.values()])
    single = class_metrics(table["metric"]) - set(first)
    metrics = [*first, *sorted(set(table["metric"]) - single - set(first))]
    noise, noise_exists = primary_noise(primary) != {"noise": CLEAN}, (table["noise"] != CLEAN).any()
    wanted = [(measure(metric), {metric}, side) for metric in metrics for side in (noise, not noise)]
    for title, of_metrics, side in [*wanted, ("single classes", single, noise)]:
        rows = table[table["metric"].isin(of_metrics) & ((table["noise"] != CLEAN) == side)]
        title += f", {'with' if side else 'without'} noise" if noise_exists else ""
        yield title, rows.sort_values("metric", kind="stable")


def _part(title: str, rows: pd.DataFrame) -> dict:
    return {
        "title": title,
        "rows": rows.to_dict("records"),
        "noise": bool((rows["noise"] != CLEAN).any()),
        "metric": rows["metric"].nunique() > 1,
    }
