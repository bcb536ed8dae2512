"""Tables of a report: files for whoever computes or writes on, and rows for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.study.report.headline import MainMetrics, at_main, at_the_setting, primary_noise
from ssl_transfer.study.report.wording import measure, noisy, number, p_value, percent, t_value, words
from ssl_transfer.study.table import CLEAN, class_metrics, write_table

PAGE_ROWS = 1500  # a longer table is on the page, and in LaTeX, at main metrics only
MOST_ROWS = 10_000  # and never longer than this there; CSV always has everything
IN_SIGHT = 80  # a longer part of a table waits behind its title


def write_tables(
    folder: Path,
    frame: pd.DataFrame,
    contrasts: pd.DataFrame,
    results: pd.DataFrame,
    primary: Mapping,
    main: MainMetrics,
    strategies: pd.DataFrame | None = None,
    luck: pd.DataFrame | None = None,
) -> None:
    """Write the tidy frame and all tables as CSV, and contrasts, results and strategies as LaTeX.

    CSV has everything. LaTeX is for papers: without the metrics of single classes, and as short as the page.
    """
    write_table(frame, folder)
    csv = {"contrasts": contrasts, "results": results, "strategies": strategies, "variance": luck}
    for name, table in csv.items():
        if table is not None:
            table.to_csv(folder / f"{name}.csv", index=False)
    for name, lay in {"contrasts": _contrasts, "results": _results, "strategies": _strategies}.items():
        if (table := csv[name]) is None:
            continue
        table = shortened(table, primary, main)[0]
        table = lay(table[~table["metric"].isin(class_metrics(frame["metric"]))])
        text = table.to_latex(index=False, escape=True) if len(table) else ""
        text = text.replace("±", r"$\pm$").replace("−", "$-$").replace("–", "--").replace("< .001", "$<$ .001")
        (folder / f"{name}.tex").write_text(text.replace("→", r"$\to$"), encoding="utf-8")


def _contrasts(table: pd.DataFrame) -> pd.DataFrame:
    n = table["n_a"].astype(str) + "/" + table["n_b"].astype(str)
    return _lay(
        table,
        A=table["a"],
        B=table["b"],
        n=n,
        **_test(table),
        g=table["hedges_g"].map(number),
        Verdict=_verdicts(table),
    )


def _results(table: pd.DataFrame) -> pd.DataFrame:
    spread = [f"{number(mean)} ± {number(sd)}" for mean, sd in zip(table["mean"], table["sd"], strict=True)]
    return _lay(
        table, Pretraining=table["pretraining"], Boundary=table["boundary"], n=table["n"], **{"Mean ± SD": spread}
    )


def _strategies(table: pd.DataFrame) -> pd.DataFrame:
    names = {"Pretraining": table["pretraining"], "A": table["a"].map(words), "B": table["b"].map(words)}
    return _lay(table.assign(strategy=""), **names, n=table["n"], **_test(table), Verdict=_verdicts(table))


def _test(table: pd.DataFrame) -> dict:
    ends = zip(table["ci_low"], table["ci_high"], strict=True)
    return {
        "Difference": table["difference"].map(lambda x: number(x, True)),
        "95 % interval": [f"{number(low, True)} to {number(high, True)}" for low, high in ends],
        "t (df)": [t_value(t, df) for t, df in zip(table["t"], table["df"], strict=True)],
        "p (Holm)": table["p_holm"].map(p_value),
    }


def _verdicts(table: pd.DataFrame) -> pd.Series:
    return table["verdict"] + table["holds_for"].map(lambda text: f" (for {text})" if text else "")


def _lay(table: pd.DataFrame, **columns) -> pd.DataFrame:
    """The cell of each row in words, then other columns; a column without any text is left out."""
    cell = {"Task": "task", "Protocol": "protocol", "Strategy": "strategy", "Fraction": "fraction", "Metric": "metric"}
    shared = {title: table[name].map(percent if name == "fraction" else words) for title, name in cell.items()}
    noise = [noisy(kind, sigma) for kind, sigma in zip(table["noise"], table["noise_sigma"], strict=True)]
    laid = pd.DataFrame({**shared, "Noise": [text or CLEAN for text in noise] if any(noise) else "", **columns})
    return laid.replace("", np.nan).dropna(axis=1, how="all").fillna("")


def shortened(table: pd.DataFrame, primary: Mapping, main: MainMetrics) -> tuple[pd.DataFrame, bool]:
    """What the page shows of a long table: main metrics at the headline's noise setting; and whether that is less than all."""
    if len(table) <= PAGE_ROWS:
        return table, False
    kept = at_main(at_the_setting(table.assign(strategy=table.get("strategy", "")), primary)[0], main)
    return table.loc[kept.index].head(MOST_ROWS), True


def page_tables(table: pd.DataFrame, primary: Mapping, main: MainMetrics, name: str) -> tuple[list[dict], str]:
    """Contrasts or results as the page shows them: the first in sight, the others behind their titles.

    Each metric has a table of its own, the main ones first, and runs with noise have theirs apart from those without.
    The metrics of single classes share one, at the headline's side of that divide; CSV has the other. Within a table, pairs
    inside the domain come first. A table of more than `PAGE_ROWS` rows is cut to main metrics, and has a part per target.

    Args:
        table: As `statistics.contrasts` or `statistics.summary` returns it.
        primary: The first one of those for `report.write_report`.
        main: As `headline.main_metrics` returns it.
        name: Of its file in `tables/`.

    Returns:
        Parts: dicts of `title`, `rows` (dicts), whether rows differ in `noise` and in `metric` (each is then a column), whether
        the part is to be `open`, and whether its title has
        `named` the one target it is of. And a sentence on what was left out; empty if nothing was.
    """
    near = [side for side in ("boundary_a", "boundary_b") if side in table]
    outwards = table.sort_values(near, key=lambda c: c.map(DISTANCE).fillna(3), kind="stable") if near else table
    kept, cut = shortened(outwards, primary, main)
    if cut:
        tasks = [task for task in dict.fromkeys(task for task, _ in main) if (kept["task"] == task).any()]
        found = [_page_table(_of_task(kept[kept["task"] == task], task), kept[kept["task"] == task]) for task in tasks]
        note = f"Shown are the {len(kept):,} of {len(table):,} {name} at main metrics; tables/{name}.csv has all."
    else:
        found, note = [_page_table(*part) for part in _parts(outwards, primary, main)], ""
    found = [part for part in found if part["rows"]]
    for position, part in enumerate(found):
        part |= {"open": position == 0 and len(part["rows"]) <= IN_SIGHT, "named": cut}
    return found, note


def _of_task(rows: pd.DataFrame, task: str) -> str:
    return f"{words(task)}, {', '.join(measure(metric) for metric in dict.fromkeys(rows['metric']))}"


def _parts(table: pd.DataFrame, primary: Mapping, main: MainMetrics) -> Iterable[tuple[str, pd.DataFrame]]:
    first = dict.fromkeys([primary["metric"], *main.values()])
    single = class_metrics(table["metric"]) - set(first)
    metrics = [*first, *sorted(set(table["metric"]) - single - set(first))]
    noise, noise_exists = primary_noise(primary) != {"noise": CLEAN}, (table["noise"] != CLEAN).any()
    wanted = [(measure(metric), {metric}, side) for metric in metrics for side in (noise, not noise)]
    for title, own, side in [*wanted, ("single classes", single, noise)]:
        rows = table[table["metric"].isin(own) & ((table["noise"] != CLEAN) == side)]
        title += f", {'with' if side else 'without'} noise" if noise_exists else ""
        yield title, rows.sort_values("metric", kind="stable")


def _page_table(title: str, rows: pd.DataFrame) -> dict:
    return {
        "title": title,
        "rows": rows.to_dict("records"),
        "noise": bool((rows["noise"] != CLEAN).any()),
        "metric": rows["metric"].nunique() > 1,
    }
