"""The figures of a report: which are drawn, of what, and what stands under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ssl_transfer.study import figures
from ssl_transfer.study.courses import course_curves
from ssl_transfer.study.drawing import Looks, inline_svg, save, settle
from ssl_transfer.study.headline import MainMetrics, at_main, at_the_setting
from ssl_transfer.study.strategies import strategy_points
from ssl_transfer.study.wording import measure, words

MOST_PANELS = 12  # a figure of more panels has a sister per target
MOST_LINES = 90  # of effects: beyond, only those that the guidance shows as evidence
CAPTIONS = {
    "learning_curves": "Learning curves of {metric}: each small point is one run, lines join the means of the seeds.",
    "robustness_curves": "Robustness of {metric} to noise: each small point is one run, lines join the means of the seeds; "
    "hollow marks at the left: without noise. Panels of a row have one scale and range.",
    "seed_points": "Every seed of {metric}: points are pretraining seeds, fine-tuning seeds averaged within them "
    "(where an arm has one pretraining: its fine-tuning seeds). The bar is the 95 % t-interval of the mean. Panels "
    "of a row have one scale.",
    "effects": "Differences in {metric} with 95 % intervals, not corrected for their number. Filled, in the colour of "
    "the better arm: decided after correction. Hollow: not decided, or equivalent.",
    "strategies": "{metric} of every strategy: with up to three pretrainings, the mean of each and its 95 % interval; with more, "
    "a light mark is the mean of one, and the dark bar their average with its 95 % interval (these pretrainings, other seeds).",
    "courses": "{metric} on validation while adapting: each light line is one run, dark lines are means over runs (one that "
    "stopped early counts with its last value). Dotted: 95 % and 99 % of the best mean in the panel.",
}
ONE_FRACTION = " What was run at one label fraction only is under “Every seed”."
EVIDENCE_ONLY = " Only the contrasts that stand as evidence under “Which pretraining for which target”."


@dataclass(frozen=True)
class Drawing:
    """A figure with the name of its files, a heading (where several of a kind share a section) and a caption."""

    kind: str
    name: str
    figure: Figure
    heading: str
    caption: str

    def shown(self, folder: Path) -> dict:
        """Write its files, and give what the page shows of it."""
        settle(self.figure)
        save(self.figure, folder, self.name)
        return {"svg": Markup(inline_svg(self.figure, self.caption)), "caption": self.caption, "heading": self.heading}


@dataclass(frozen=True)
class Gallery:
    """All figures of a report.

    Attributes:
        frame: A tidy table, complete.
        contrasts, results: At main metrics and the headline's noise setting.
        evidence: Rows of `contrasts` that the guidance shows.
        strategies: Whether strategies are compared.
        courses: See `courses.COURSE_COLUMNS`; None if there are none.
        primary: The first one.
    """

    frame: pd.DataFrame
    contrasts: pd.DataFrame
    results: pd.DataFrame
    evidence: list
    strategies: bool
    courses: pd.DataFrame | None
    primary: Mapping
    main: MainMetrics
    looks: Looks
    random: set[str]

    def drawings(self) -> Iterator[Drawing]:
        """Every figure that has anything to show: for each main metric, and for each target where panels are many."""
        whole = at_main(self.frame, self.main)
        for metric in dict.fromkeys(self.main.values()):
            every = whole[whole["metric"] == metric]
            runs, which = at_the_setting(every, self.primary)
            for ending, heading, own in _portions(
                with_curves := figures.with_curves(runs), ["strategy", "noise", "noise_sigma"]
            ):
                left_out = ONE_FRACTION if len(with_curves) < len(runs) else ""
                figure = figures.learning_curves(own, metric, self.looks)
                yield self._drawing("learning_curves", metric, ending, heading, figure, left_out + which)
            for ending, heading, own in _portions(every, ["strategy", "fraction", "noise"]):
                if figure := figures.robustness_curves(own, metric, self.looks):
                    yield self._drawing("robustness_curves", metric, ending, heading, figure)
            for ending, heading, own in _portions(runs, ["strategy", "fraction", "noise", "noise_sigma"]):
                figure = figures.seed_points(own, metric, self.looks)
                yield self._drawing("seed_points", metric, ending, heading, figure, which)
            yield from self._effects(metric, which)
            yield from self._strategies(metric, which)
        courses = self.frame[:0] if self.courses is None else self.courses
        for metric, checks in courses.groupby("metric", sort=False):
            for ending, heading, own in _portions(checks, ["strategy", "fraction"]):
                yield self._drawing("courses", metric, ending, heading, course_curves(own, self.looks))

    def _effects(self, metric: str, which: str) -> Iterator[Drawing]:
        pairs = self.contrasts[self.contrasts["metric"] == metric]
        many = len(pairs) > MOST_LINES
        if many:
            pairs = pairs.loc[[row for row in self.evidence if row in pairs.index]]
        for ending, heading, own in _by_task(pairs, many):
            figure = figures.effects(own, self.looks)
            yield self._drawing("effects", metric, ending, heading, figure, EVIDENCE_ONLY * many + which)

    def _strategies(self, metric: str, which: str) -> Iterator[Drawing]:
        results = self.results[(self.results["metric"] == metric) & (self.results["strategy"] != "")]
        setting = ["task", "protocol", "fraction", "noise", "noise_sigma"]
        results = results[results.groupby(setting, dropna=False)["strategy"].transform("nunique") > 1]
        for ending, heading, own in _portions(results if self.strategies else results[:0], setting[2:]):
            yield self._drawing("strategies", metric, ending, heading, strategy_points(own, self.looks), which)

    def _drawing(self, kind: str, metric: str, ending: str, heading: str, figure: Figure, more: str = "") -> Drawing:
        caption = CAPTIONS[kind].format(metric=measure(metric)) + more
        if kind != "courses" and self.random & set(self.frame["pretraining"]):
            caption += (
                " “scratch” is random initialisation." if len(self.random) == 1 else " Grey: random initialisation."
            )
        return Drawing(kind, f"{kind}_{metric}{ending}", figure, heading, caption[0].upper() + caption[1:])


def _portions(table: pd.DataFrame, panel: list[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """A table whole, or a portion per target if it would make too many panels: ending of a file's name, heading, rows."""
    return _by_task(table, table.groupby(["task", "protocol", *panel], dropna=False).ngroups > MOST_PANELS)


def _by_task(table: pd.DataFrame, apart: bool) -> Iterator[tuple[str, str, pd.DataFrame]]:
    tasks = list(dict.fromkeys(table["task"]))
    if not apart or len(tasks) < 2:
        yield from [("", "", table)] if len(table) else []
        return
    for task in tasks:
        yield "_" + "".join(c if c.isalnum() else "_" for c in task), words(task), table[table["task"] == task]
