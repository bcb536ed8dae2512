"""Section "Over targets": the mean difference of two pretrainings over targets, and how much it varies between targets.

A contrast holds for one target. Where a study has several, this section gives for every pair of pretrainings the random-effects
summary of its differences: the mean, the heterogeneity between targets, and what a further target of the same kind may show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.measures.metrics import has_unit, metric_sign
from ssl_transfer.palette import INK
from ssl_transfer.study.report.drawing import STYLE, Looks, grid
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, render
from ssl_transfer.study.report.wording import difference, joined, measure, noisy, words
from ssl_transfer.study.statistics import over_targets, target_effects
from ssl_transfer.study.statistics.meta_analysis import BOUNDARIES, EVERY, SETTING

TITLE = "Over targets"
OPEN_ROWS = 24  # a longer table is collapsed
MOST_GROUPS = 14  # pairs of pretrainings in a figure; the table has all
CAPTION = (
    "Differences in {metric}, {boundaries}: on each target with its 95 % interval, and (diamond) their random-effects mean with "
    "its interval; the thin line is the prediction interval for a further target.{cut}"
)
CUT = " The first {shown} of {all} pairs; tables/over_targets.csv has all."
TEMPLATE = """
{% macro boundary(name) -%}{% if name == "all" %}all{% else %}{{ chip("", name) or name }}{% endif %}{%- endmacro %}
<p class="quiet">Random-effects summaries of the differences between two pretrainings over targets, by the boundary
between each source domain and the targets (restricted maximum likelihood, interval by Hartung and Knapp with targets − 1
degrees of freedom). Label fractions of a target are averaged first. τ is the standard deviation of the true differences
between targets, I² the share of the variance that it explains. The prediction interval (from three targets on) is for the
true difference on a further target of the same kind. “Without one” is the range of the mean if one target is left out.
Targets share the pretraining seeds, so a summary generalises over targets for these pretrainings; with two or three
targets its interval is wide because little is known. Metrics with a unit, such as MAE, are not averaged over targets.</p>
{% macro summary_table() %}
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}"><table class="sortable dense">
<caption>Mean difference over targets</caption> <thead><tr><th scope="col">Boundary A, B</th><th
scope="col">Protocol</th><th scope="col">Metric</th><th scope="col">A</th> <th scope="col">B</th><th scope="col"
class="num">Targets</th><th scope="col" class="num">Mean A − B</th><th scope="col">95 % interval</th><th scope="col"
class="num">p</th><th scope="col" class="num">τ</th><th scope="col" class="num">I²</th><th scope="col" class="num">p,
Q</th><th scope="col">Prediction</th><th scope="col">Without one</th></tr></thead> <tbody>
{% for row in rows %}
<tr><td class="tight">{{ boundary(row.boundary_a) }} {{ boundary(row.boundary_b) if row.boundary_a != "all" }}</td>
<td>{{ protocol(row) }}{% if row.noise != "none" %} ({{ row.noise }}, σ {{ "%g" | format(row.noise_sigma) }}){% endif %}</td>
<td>{{ row.metric | measure }}</td><td>{{ swatch(row.a) }}</td><td>{{ swatch(row.b) }}</td>
<td class="num" data-v="{{ row.k }}">{{ row.k }}</td>{{ num(row.estimate, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.p_value | rounded }}">{{ row.p_value | p }}</td>{{ num(row.tau) }}
<td class="num" data-v="{{ row.i2 | rounded }}">{{ "%.0f %%" | format(100 * row.i2) if row.i2 == row.i2 else "–" }}</td>
<td class="num" data-v="{{ row.q_p | rounded }}">{{ row.q_p | p }}</td>
<td class="tight">{{ interval({"ci_low": row.predicted_low, "ci_high": row.predicted_high}) }}</td>
<td class="tight">{{ interval({"ci_low": row.without_low, "ci_high": row.without_high}) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% if rows | length > most %}
<details><summary>Mean difference over targets <span class="quiet">({{ rows | length }} rows)</span></summary>
{{ summary_table() }}
</details>
{% else %}
{{ summary_table() }}
{% endif %}
{{ drawn(figures) }}
"""


def section(evidence: Evidence) -> Section | None:
    """A row per pair of pretrainings and pair of boundaries with several targets, and a forest plot per pair of boundaries."""
    if not len(evidence.main_contrasts):
        return None
    contrasts = evidence.main_contrasts
    effects = target_effects(contrasts[~contrasts["metric"].map(has_unit).astype(bool)])
    every = over_targets(effects)
    secondary = every["protocol"] != evidence.primaries[0]["protocol"]
    every = every.iloc[np.argsort(secondary.to_numpy(), kind="stable")]
    summaries = every[every["k"] > 1]
    if not len(summaries):
        return None
    figures = list(_drawings(effects, summaries, evidence.looks))
    html = render(evidence, TEMPLATE, title=TITLE, most=OPEN_ROWS, rows=summaries.to_dict("records"), figures=figures)
    tables = {"over_targets": every, "target_effects": effects}
    return Section(title=TITLE, html=html, tables=tables, figures=figures)


def _drawings(effects: pd.DataFrame, summaries: pd.DataFrame, looks: Looks) -> Iterator[Drawing]:
    """A forest plot per metric and pair of boundaries."""
    keys = ["metric", *BOUNDARIES]
    within = summaries[summaries["boundary_a"] != EVERY]
    groups = list(within.groupby(keys, dropna=False, sort=False))
    key: Any
    for number, (key, rows) in enumerate(groups):
        metric, *boundaries = key
        shown = rows.head(MOST_GROUPS)
        of_class = effects[(effects[keys] == list(key)).all(axis=1)]
        where = f"source domains {' and '.join(_in_words(name) for name in boundaries)}"
        cut = CUT.format(shown=len(shown), all=len(rows)) if len(shown) < len(rows) else ""
        caption = CAPTION.format(metric=measure(metric), boundaries=where, cut=cut)
        title = joined(measure(metric), f"boundaries {' and '.join(filter(None, boundaries)) or 'unknown'}")
        yield Drawing(f"forest_{metric}_{number}", forest(of_class, shown, looks), caption, title, len(groups) > 1)


def _in_words(boundary: str) -> str:
    """How far a source domain lies from the targets."""
    known = {"none": "the targets’ own", "soft": "of a related modality", "hard": "of another kind", "scratch": "none"}
    return known.get(boundary, boundary or "unknown")


def forest(effects: pd.DataFrame, summaries: pd.DataFrame, looks: Looks) -> Figure:
    """Differences on single targets and their summaries, below each other.

    Args:
        effects: `statistics.target_effects` of one metric and pair of boundaries.
        summaries: `statistics.over_targets` of these.
        looks: Colour and marker of each arm.
    """
    lines = 0.0
    ticks: list[tuple[float, str, bool]] = []
    height = sum(summaries["k"]) + 2.6 * len(summaries)
    with matplotlib.rc_context(STYLE):
        figure, (ax,) = grid(1, 1, height=0.5 + 0.235 * height)
        summary: Any
        for summary in summaries.to_dict("records"):
            setting = [summary[name] for name in SETTING]
            targets = effects[(effects[SETTING] == setting).all(axis=1)]
            ticks.append((lines, _heading(summary), True))
            for target in targets.to_dict("records"):
                lines += 1
                _point(ax, target, lines)
                ticks.append((lines, words(target["task"]), False))
            lines += 1
            _diamond(ax, summary, lines, looks)
            ticks.append((lines, f"mean of {summary['k']}", False))
            lines += 1.6
        ax.axvline(0, color=INK, linewidth=0.9)
        metric = summaries["metric"].iloc[0]
        less = "; less is better" if metric_sign(metric) < 0 else ""
        ax.set_xlabel(f"difference in {words(metric)} (first − second{less})")
        ax.set_yticks([y for y, _, _ in ticks], [text for _, text, _ in ticks])
        for label, (_, _, heading) in zip(ax.get_yticklabels(), ticks, strict=True):
            label.set_fontweight("bold" if heading else "normal")
        ax.set_ylim(lines - 0.8, -0.7)
        ax.grid(axis="y", visible=False)
    return figure


def _heading(summary: dict[str, Any]) -> str:
    noise = noisy(summary["noise"], summary["noise_sigma"])
    return joined(difference(summary["a"], summary["b"]), words(summary["protocol"]), words(summary["strategy"]), noise)


def _point(ax: Axes, target: dict[str, Any], y: float) -> None:
    ax.plot([target["ci_low"], target["ci_high"]], [y, y], color=INK, linewidth=1.3, alpha=0.7)
    ax.plot(target["difference"], y, marker="s", color=INK, markersize=4.5)


def _diamond(ax: Axes, summary: dict[str, Any], y: float, looks: Looks) -> None:
    """The mean with its interval as a diamond, in the colour of the better arm where the interval excludes 0."""
    low, mean, high = (summary[name] for name in ("ci_low", "estimate", "ci_high"))
    decided = low > 0 or high < 0
    better = (mean > 0) == (metric_sign(summary["metric"]) > 0)
    color = looks[summary["a" if better else "b"]][0] if decided else INK
    ax.plot([summary["predicted_low"], summary["predicted_high"]], [y, y], color=color, linewidth=0.8)
    ax.fill(
        [low, mean, high, mean],
        [y, y - 0.3, y, y + 0.3],
        facecolor=color if decided else "none",
        edgecolor=color,
        linewidth=1.3,
    )
