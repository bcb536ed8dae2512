"""Section: ROC and precision-recall curves, and confusion matrices, of every arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ssl_transfer.study.report.curve_figures import confusion_figure, curve_figure
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.primary import at_main, at_primary_noise
from ssl_transfer.study.report.section import Drawing, Section, render
from ssl_transfer.study.report.wording import joined, percent, words
from ssl_transfer.study.statistics import arm_curves
from ssl_transfer.study.statistics.case_curves import MOST_RUNS
from ssl_transfer.study.table import CELL

TITLE = "Curves and confusion"
MOST_TARGETS, MOST_ARMS, MOST_CLASSES = 6, 8, 20
CURVES = (
    "ROC and precision-recall curves on {setting}: a mean over classes, each against the rest (of two classes, those of the "
    "second), and over runs, at equal false positive rates and recalls. Dashed: chance."
)
CONFUSION = "Confusion matrices on {setting}: per cent of the images of each true class, a mean over runs."
LIMITS = """
<p class="quiet">At the largest label fraction, on test; of each arm the first {{ most }} runs. The curves of a single run, per
class, and its confusion matrix are in the folder of its result.{{ note }}</p>
{{ drawn(figures) }}
"""


def section(evidence: Evidence) -> Section | None:
    """A figure of curves and one of confusion matrices per target; None without predictions of targets with classes."""
    if evidence.predictions is None or not len(evidence.frame):
        return None
    figures, tables = [], {"curves": [], "confusion": []}
    cells = list(_cells(evidence))
    for cell, arms in cells[:MOST_TARGETS]:
        points, shares = arm_curves(cell, arms[:MOST_ARMS], evidence.predictions)
        if points.empty:
            continue
        setting = joined(
            words(cell["task"]), words(cell["protocol"]), words(cell["strategy"]), percent(cell["fraction"])
        )
        name = "".join(c if c.isalnum() else "_" for c in cell["task"])
        shown = words(cell["task"]), len(cells) > 1
        figures.append(
            Drawing(f"curves_{name}", curve_figure(points, evidence.looks), CURVES.format(setting=setting), *shown)
        )
        if 0 < shares["true"].nunique() <= MOST_CLASSES:
            caption = CONFUSION.format(setting=setting)
            figures.append(Drawing(f"confusion_{name}", confusion_figure(shares), caption, *shown))
        tables["curves"].append(points.assign(task=cell["task"]))
        tables["confusion"].append(shares.assign(task=cell["task"]))
    if not figures:
        return None
    html = render(evidence, LIMITS, figures=figures, most=MOST_RUNS, note=_note(cells))
    joined_tables = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    return Section(title=TITLE, html=html, figures=figures, tables=joined_tables)


def _cells(evidence: Evidence) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """For each target: the cell of the primary protocol, or its first, at the largest fraction; and its arms."""
    primary: Mapping[str, Any] = evidence.primaries[0]
    runs, _ = at_primary_noise(at_main(evidence.runs, evidence.main_metrics), primary)
    for _, of_task in runs.groupby("task", sort=False):
        chosen = of_task
        for name in ("protocol", "strategy"):
            wanted = primary.get(name)
            has = wanted is not None and (chosen[name] == wanted).any()
            chosen = chosen[chosen[name] == (wanted if has else chosen[name].iloc[0])]
        if chosen["fraction"].notna().any():
            chosen = chosen[chosen["fraction"] == chosen["fraction"].max()]
        cell = chosen[CELL].iloc[0].to_dict()
        chosen = chosen[(chosen[["noise", "noise_sigma"]] == [cell["noise"], cell["noise_sigma"]]).all(axis=1)]
        yield cell, list(dict.fromkeys(chosen["pretraining"]))


def _note(cells: list[tuple[dict[str, Any], list[str]]]) -> str:
    """What the limits leave out, as a sentence."""
    notes = []
    if len(cells) > MOST_TARGETS:
        notes.append(f"the first {MOST_TARGETS} of {len(cells)} targets")
    if any(len(arms) > MOST_ARMS for _, arms in cells):
        notes.append(f"the first {MOST_ARMS} arms")
    return f" Shown are {' and '.join(notes)}." if notes else ""
