"""Could it have been told beforehand: fine-tuned quality against every transferability score and probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.measures.transferability import SCORE_NAMES
from ssl_transfer.study.report.drawing import STYLE, Looks, grid, legend
from ssl_transfer.study.report.headline import MainMetrics
from ssl_transfer.study.report.wording import joined, listed, measure, number, percent, words
from ssl_transfer.study.statistics.score_validity import FEWEST_FOR_INTERVALS, SETTING, fine_tuned, foretelling

COLUMNS = 4


@dataclass(frozen=True)
class ScoreValidity:
    """What the page shows of it.

    Attributes:
        scores: pretraining, pretraining_seed, task, criterion, value.
        quality: Fine-tuned, see `foretelling.fine_tuned`.
        correlations: A row per setting and criterion.
        overall: A row per criterion, the best foreteller first.
    """

    scores: pd.DataFrame
    quality: pd.DataFrame
    correlations: pd.DataFrame
    overall: pd.DataFrame

    @classmethod
    def of(cls, scores: pd.DataFrame | None, frame: pd.DataFrame, main: MainMetrics) -> ScoreValidity | None:
        """From a study's scores and tidy frame; None where there are no scores, or no setting has enough pretrainings."""
        if scores is None or not len(scores):
            return None
        metrics = {task: metric for (task, protocol), metric in main.items() if protocol == "finetune"}
        quality = fine_tuned(frame, metrics)
        correlations, overall = foretelling(scores, quality)
        if not len(correlations):
            return None
        return cls(scores, quality, correlations, overall.sort_values("kendall", ascending=False, kind="stable"))

    @property
    def sentence(self) -> str:
        """What it comes to."""
        best, probe = self.overall.iloc[0], self.overall[self.overall["criterion"] == "linear_probe"]
        top = self.overall[self.overall["kendall"] == best["kendall"]]["criterion"]
        names = listed([named(criterion) for criterion in top])
        said = (
            f"{names[0].upper()}{names[1:]} agreed best with fine-tuning over {best['targets']} "
            f"{'targets' if best['targets'] > 1 else 'target'}: Kendall’s τ {number(best['kendall'])}"
            + (
                f" [{number(best['kendall_low'])}, {number(best['kendall_high'])}]"
                if best["n"] >= FEWEST_FOR_INTERVALS
                else ""
            )
        )
        if len(probe) and "linear_probe" not in set(top):
            said += f", against {number(probe['kendall'].iloc[0])} of the cross-validated linear probe"
        if best["n"] < FEWEST_FOR_INTERVALS:
            return f"{said}. With {best['n']} pretrainings that says little."
        surely = self.overall[self.overall["kendall_low"] > 0]["criterion"]
        if not len(surely):
            return f"{said}. Every interval reaches to 0 or below: none has shown here that it can be relied on."
        return f"{said}. Intervals above 0: {', '.join(map(named, surely))}."

    def write(self, folder: Path) -> None:
        """Write `scores.csv`, `foretelling.csv` and `foretelling_overall.csv`."""
        tables = {"scores": self.scores, "foretelling": self.correlations, "foretelling_overall": self.overall}
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)

    def figures(self, looks: Looks) -> Iterator[tuple[str, Figure, str]]:
        """Metric, figure, and what setting it is of."""
        for setting, own in self.correlations.groupby(SETTING, sort=False):
            task, strategy, fraction, metric = setting
            where = joined(words(task), words(strategy), percent(fraction))
            yield metric, self._figure(setting, own, looks), where

    def _figure(self, setting: tuple, rows: pd.DataFrame, looks: Looks) -> Figure:
        task, *_, metric = setting
        worth = self.quality[(self.quality[SETTING] == list(setting)).all(axis=1)]
        with matplotlib.rc_context(STYLE):
            figure, axes = grid(len(rows), COLUMNS, height=2.1, sharey=True)
            for ax, row in zip(axes, rows.to_dict("records"), strict=True):
                own = self.scores[(self.scores["task"] == task) & (self.scores["criterion"] == row["criterion"])]
                points = own.merge(worth, on=["pretraining", "pretraining_seed"], suffixes=("_told", ""))
                for arm, seeds in points.groupby("pretraining", sort=True):
                    color, marker = looks[arm]
                    ax.scatter(seeds["value_told"], seeds["value"], s=11, alpha=0.55, color=color, marker=marker, lw=0)
                    ax.scatter(
                        [seeds["value_told"].mean()],
                        [seeds["value"].mean()],
                        s=38,
                        color=color,
                        marker=marker,
                        label=arm,
                    )
                ax.set_title(f"{named(row['criterion'])}, τ {number(row['kendall'])}")
                ax.tick_params(labelsize=7.5)
            for ax in axes[::COLUMNS]:
                ax.set_ylabel(measure(metric))
            legend(figure, axes)
        return figure


def named(criterion: str) -> str:
    """A criterion in words: `n_leep` -> N-LEEP, `linear_probe` -> linear probe."""
    return SCORE_NAMES.get(criterion) or words(criterion)
