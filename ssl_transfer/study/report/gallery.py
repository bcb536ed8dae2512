"""The figures of a report: which are drawn, of what, and what stands under them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from ssl_transfer.study.report import figures
from ssl_transfer.study.report.drawing import Looks, inline_svg, save, settle
from ssl_transfer.study.report.headline import MainMetrics, at_main, at_the_setting
from ssl_transfer.study.report.score_validity import ScoreValidity
from ssl_transfer.study.report.strategies import strategy_points
from ssl_transfer.study.report.validation_curves import course_curves
from ssl_transfer.study.report.wording import measure, words

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
    "a faint mark is the mean of one, and the heavy bar their average with its 95 % interval (these pretrainings, other seeds).",
    "foretold": "{metric} after fine-tuning against what was told beforehand, on {where}: small points are pretraining seeds, "
    "large ones their means, on which Kendall’s τ rests. Scores and probes have seen training and validation images, never test.",
    "courses": "{metric} on validation while adapting: each faint line is one run, heavy lines are means over runs (one that "
    "stopped early counts with its last value). Dotted: 95 % and 99 % of the best mean in the panel.",
}
ONE_FRACTION = " What was run at one label fraction only is under “Every seed”."
EVIDENCE_ONLY = " Only the contrasts that stand as evidence under “Which pretraining for which target”."


@dataclass(frozen=True)
class Drawing:
    """A figure with the name of its files, the target that it is of (empty: several) and a caption; `apart`: it has sisters."""

    kind: str
    name: str
    figure: Figure
    target: str
    apart: bool
    caption: str

    def shown(self, folder: Path) -> dict:
        """Write its files, and give what the page shows of it."""
        settle(self.figure)
        save(self.figure, folder, self.name)
        svg = Markup(inline_svg(self.figure, self.caption))
        return {"svg": svg, "caption": self.caption, "target": self.target, "apart": self.apart}


@dataclass(frozen=True)
class Gallery:
    """All figures of a report.

    Attributes:
        frame: A tidy table, complete.
        contrasts, results: At main metrics and the headline's noise setting.
        evidence: Rows of `contrasts` that the guidance shows.
        strategies: Whether strategies are compared.
        courses: See `courses.COURSE_COLUMNS`; None if there are none.
        foretold: None if nothing was scored beforehand.
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
    foretold: ScoreValidity | None

    def drawings(self) -> Iterator[Drawing]:
        """Every figure that has anything to show: for each main metric, and for each target where panels are many."""
        whole = at_main(self.frame, self.main)
        for metric in dict.fromkeys(self.main.values()):
            every = whole[whole["metric"] == metric]
            runs, which = at_the_setting(every, self.primary)
            curves = figures.with_curves(runs)
            left_out = ONE_FRACTION if len(curves) < len(runs) else ""
            for portion in _portions(curves, ["strategy", "noise", "noise_sigma"]):
                figure = figures.learning_curves(portion.rows, metric, self.looks)
                yield self._drawing("learning_curves", metric, portion, figure, left_out + which)
            for portion in _portions(every, ["strategy", "fraction", "noise"]):
                if figure := figures.robustness_curves(portion.rows, metric, self.looks):
                    yield self._drawing("robustness_curves", metric, portion, figure)
            for portion in _portions(runs, ["strategy", "fraction", "noise", "noise_sigma"]):
                figure = figures.seed_points(portion.rows, metric, self.looks)
                yield self._drawing("seed_points", metric, portion, figure, which)
            yield from self._effects(metric, which)
            yield from self._strategies(metric, which)
        courses = self.frame[:0] if self.courses is None else self.courses
        for metric, checks in courses.groupby("metric", sort=False):
            for portion in _portions(checks, ["strategy", "fraction"]):
                yield self._drawing("courses", metric, portion, course_curves(portion.rows, self.looks))
        for number, (metric, figure, where) in enumerate(self.foretold.figures(self.looks) if self.foretold else ()):
            caption = CAPTIONS["foretold"].format(metric=measure(metric), where=where)
            yield Drawing("foretold", f"foretold_{number}", figure, where, True, caption[0].upper() + caption[1:])

    def _effects(self, metric: str, which: str) -> Iterator[Drawing]:
        pairs = self.contrasts[self.contrasts["metric"] == metric]
        many = len(pairs) > MOST_LINES
        if many:
            pairs = pairs.loc[[row for row in self.evidence if row in pairs.index]]
        for portion in _by_target(pairs, many):
            figure = figures.effects(portion.rows, self.looks)
            yield self._drawing("effects", metric, portion, figure, EVIDENCE_ONLY * many + which)

    def _strategies(self, metric: str, which: str) -> Iterator[Drawing]:
        results = self.results[(self.results["metric"] == metric) & (self.results["strategy"] != "")]
        setting = ["task", "protocol", "fraction", "noise", "noise_sigma"]
        results = results[results.groupby(setting, dropna=False)["strategy"].transform("nunique") > 1]
        for portion in _portions(results if self.strategies else results[:0], setting[2:]):
            yield self._drawing("strategies", metric, portion, strategy_points(portion.rows, self.looks), which)

    def _drawing(self, kind: str, metric: str, portion: _Portion, figure: Figure, more: str = "") -> Drawing:
        caption = CAPTIONS[kind].format(metric=measure(metric)) + more
        if kind != "courses" and self.random & set(self.frame["pretraining"]):
            caption += (
                " “scratch” is random initialisation." if len(self.random) == 1 else " Grey: random initialisation."
            )
        ending = "_" + "".join(c if c.isalnum() else "_" for c in portion.target) if portion.apart else ""
        caption = caption[0].upper() + caption[1:]
        return Drawing(kind, f"{kind}_{metric}{ending}", figure, words(portion.target), portion.apart, caption)


@dataclass(frozen=True)
class _Portion:
    """Rows of a table for one figure: those of one target, or (`target` is empty) of several; `apart`: others have their own."""

    rows: pd.DataFrame
    target: str
    apart: bool


def _portions(table: pd.DataFrame, panel: list[str]) -> Iterator[_Portion]:
    """A table whole, or a portion per target if it would make too many panels."""
    return _by_target(table, table.groupby(["task", "protocol", *panel], dropna=False).ngroups > MOST_PANELS)


def _by_target(table: pd.DataFrame, apart: bool) -> Iterator[_Portion]:
    targets = list(dict.fromkeys(table["task"]))
    if not apart or len(targets) < 2:
        yield from [_Portion(table, targets[0] if len(targets) == 1 else "", False)] if targets else []
        return
    for target in targets:
        yield _Portion(table[table["task"] == target], target, True)
