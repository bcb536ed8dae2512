"""The figures of a section: one per metric, or one per target if there are many panels, with captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.primary import at_main, at_primary_noise
from ssl_transfer.study.report.section import Drawing
from ssl_transfer.study.report.wording import measure, words

MOST_PANELS = 12  # a figure of more panels is split by target


@dataclass(frozen=True)
class Portion:
    """Rows of a table for one figure: those of one target, or (`target` is empty) of several; `split`: others have their own."""

    rows: pd.DataFrame
    target: str
    split: bool


def portions(table: pd.DataFrame, panel: list[str]) -> Iterator[Portion]:
    """Yield the whole table, or a portion per target if it has more than `MOST_PANELS` panels.

    Args:
        table: Rows with a task and protocol.
        panel: Columns that distinguish panels, besides task and protocol.
    """
    return by_target(table, table.groupby(["task", "protocol", *panel], dropna=False).ngroups > MOST_PANELS)


def by_target(table: pd.DataFrame, split: bool) -> Iterator[Portion]:
    """Yield the whole table, or a portion per target."""
    targets = list(dict.fromkeys(table["task"]))
    if not split or len(targets) < 2:
        yield from [Portion(table, targets[0] if len(targets) == 1 else "", False)] if targets else []
        return
    for target in targets:
        yield Portion(table[table["task"] == target], target, True)


def runs_by_metric(evidence: Evidence) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame, str]]:
    """For each main metric: its runs, those at the noise setting of the primary contrast, and a sentence on that."""
    runs = at_main(evidence.runs, evidence.main_metrics)
    for metric in dict.fromkeys(evidence.main_metrics.values()):
        of_metric = runs[runs["metric"] == metric]
        yield metric, of_metric, *at_primary_noise(of_metric, evidence.primaries[0])


def drawing(
    evidence: Evidence, kind: str, metric: str, portion: Portion, figure: Figure, caption: str, *, grey: bool = True
) -> Drawing:
    """A figure with its name and caption.

    Args:
        evidence: Evidence of the report.
        kind: First part of the name of its files.
        metric: The metric shown; `{metric}` in the caption.
        portion: The data shown.
        figure: The figure.
        caption: Caption.
        grey: Whether random initialisation is grey, which is then stated in the caption.
    """
    caption = caption.replace("{metric}", measure(metric))
    random_init = evidence.random_init
    if grey and random_init & set(evidence.runs["pretraining"]):
        caption += " “scratch” is random initialisation." if len(random_init) == 1 else " Grey: random initialisation."
    ending = "_" + "".join(c if c.isalnum() else "_" for c in portion.target) if portion.split else ""
    caption = caption[0].upper() + caption[1:]
    return Drawing(f"{kind}_{metric}{ending}", figure, caption, words(portion.target), portion.split)
