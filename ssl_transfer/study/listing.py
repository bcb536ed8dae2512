"""Tables of a report: files for whoever computes or writes on, and rows for the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_transfer.study.guidance import primary_noise
from ssl_transfer.study.statistics import NEARNESS
from ssl_transfer.study.table import CLEAN, class_metrics, write_table
from ssl_transfer.study.wording import measure, noisy, number, p_value, percent, words


def write_tables(folder: Path, frame: pd.DataFrame, contrasts: pd.DataFrame, results: pd.DataFrame) -> None:
    """Write the tidy frame, contrasts and results as CSV, and the latter two as LaTeX.

    CSV has everything. LaTeX is for papers: without the metrics of single classes.
    """
    write_table(frame, folder)
    contrasts.to_csv(folder / "contrasts.csv", index=False)
    results.to_csv(folder / "results.csv", index=False)
    single = class_metrics(frame["metric"])
    c, r = contrasts[~contrasts["metric"].isin(single)], results[~results["metric"].isin(single)]
    interval = [
        f"{number(low, True)} to {number(high, True)}" for low, high in zip(c["ci_low"], c["ci_high"], strict=True)
    ]
    spread = [f"{number(m)} ± {number(s)}" for m, s in zip(r["mean"], r["sd"], strict=True)]
    signed = c["difference"].map(lambda x: number(x, True))
    latex = {
        "contrasts": _lay(
            c, A=c["a"], B=c["b"], n=c["n_a"].astype(str) + "/" + c["n_b"].astype(str), Difference=signed,
            **{"95 % interval": interval, "p (Holm)": c["p_holm"].map(p_value), "g": c["hedges_g"].map(number)},
            Verdict=c["verdict"],
        ),
        "results": _lay(r, Pretraining=r["pretraining"], Boundary=r["boundary"], n=r["n"], **{"Mean ± SD": spread}),
    }  # fmt: skip
    for name, table in latex.items():
        text = table.to_latex(index=False, escape=True) if len(table) else ""
        text = text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace("< .001", "$<$ .001")
        (folder / f"{name}.tex").write_text(text, encoding="utf-8")


def _lay(table: pd.DataFrame, **columns) -> pd.DataFrame:
    """The cell of each row in words, then other columns; a column without any text is left out."""
    cell = {"Task": "task", "Protocol": "protocol", "Strategy": "strategy", "Fraction": "fraction", "Metric": "metric"}
    shared = {title: table[name].map(percent if name == "fraction" else words) for title, name in cell.items()}
    noise = [noisy(kind, sigma) for kind, sigma in zip(table["noise"], table["noise_sigma"], strict=True)]
    laid = pd.DataFrame({**shared, "Noise": [text or CLEAN for text in noise] if any(noise) else "", **columns})
    return laid.replace("", np.nan).dropna(axis=1, how="all").fillna("")


def page_tables(table: pd.DataFrame, primary: Mapping) -> list[dict]:
    """Contrasts or results as the page shows them: the first in sight, the others behind their titles.

    Each metric has a table of its own, the primary one first, and runs with noise have theirs apart from those without.
    The metrics of single classes share one, at the headline's side of that divide; CSV has the other. Within a table, pairs
    inside the domain come first.

    Args:
        table: As `statistics.contrasts` or `statistics.summary` returns it.
        primary: As for `report.write_report`.

    Returns:
        Dicts of `title`, `rows` (dicts), and whether rows differ in `noise` and in `metric` (each is then a column).
    """
    near = [name for name in ("boundary_a", "boundary_b") if name in table]
    outwards = table.sort_values(near, key=lambda c: c.map(NEARNESS).fillna(3), kind="stable") if near else table
    single = class_metrics(table["metric"]) - {primary["metric"]}
    metrics = sorted(set(table["metric"]) - single, key=lambda metric: (metric != primary["metric"], metric))
    noise = primary_noise(primary) != {"noise": CLEAN}
    wanted = [(measure(metric), {metric}, side) for metric in metrics for side in (noise, not noise)]
    noise_exists, found = (table["noise"] != CLEAN).any(), []
    for title, own, side in [*wanted, ("single classes", single, noise)]:
        rows = outwards[outwards["metric"].isin(own) & ((outwards["noise"] != CLEAN) == side)]
        title += f", {'with' if side else 'without'} noise" if noise_exists else ""
        found.append(_page_table(title, rows.sort_values("metric", kind="stable")))
    return [part for part in found if part["rows"]]


def _page_table(title: str, rows: pd.DataFrame) -> dict:
    return {
        "title": title, "rows": rows.to_dict("records"), "noise": bool((rows["noise"] != CLEAN).any()),
        "metric": rows["metric"].nunique() > 1,
    }  # fmt: skip
