"""Section: validation curves, and the steps that fine-tuning needs to come near the best."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.palette import INK
from ssl_transfer.study.report.drawing import STYLE, Looks, filled, grid, legend
from ssl_transfer.study.report.drawings import drawing, portions
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, parts_by_task, render
from ssl_transfer.study.report.wording import joined, measure, percent, words
from ssl_transfer.study.statistics import time_to_quality
from ssl_transfer.study.statistics.validation_curves import SHARES, Arms, curve_panels, quality_targets

CAPTION = (
    "{metric} on validation during fine-tuning: each faint line is one run, heavy lines are means over runs (a run that stopped "
    "early is carried forward with its last value). Dotted: 95 % and 99 % of the best mean in the panel."
)
TEMPLATE = """
{% macro reached(steps, seconds) -%}
  <td class="num" data-v="{{ steps | rounded }}">
  {%- if steps == steps %}{{ steps | int | whole }}{% else %}<span class="quiet">never</span>{% endif %}</td>
  <td class="num quiet" data-v="{{ seconds | rounded }}">{% if seconds == seconds %}{{ seconds | duration }}{% else
%}–{% endif %}</td>
{%- endmacro %}
{% macro time_table(part, name) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ name }}"><table class="sortable">
<caption>{{ name }}</caption>
<thead><tr><th scope="col">Protocol</th><th scope="col" class="num">Labels</th><th scope="col">Pretraining</th>
<th scope="col" class="num">Runs</th><th scope="col" class="num">Best mean</th>
{% for share in shares %}<th scope="col" class="num">Steps to {{ share }} %</th><th scope="col"
class="num">Time</th>{% endfor %}
</tr></thead>
<tbody>
{% for row in part.rows %}
<tr><td class="tight">{{ protocol(row) }}</td>{{ labels(row) }}<td>{{ swatch(row.pretraining) }}</td><td
class="num">{{ row.n }}</td>
{{- num(row.best) }}{% for share in shares %}{{ reached(row["steps_%d" % share], row["seconds_%d" % share]) }}{%
endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<p class="quiet">Steps, and training time, until an arm’s mean validation value first reaches {{ shares | join(" % and
") }} % of the best mean of any arm with the same protocol, strategy and label fraction (105 % and 101 % where less is
better). The resolution is the interval between validations; times depend on the machines used.</p>
{{ drawn(figures) }}
{{ folded(parts, time_table, "Time to quality") }}
"""


def section(evidence: Evidence) -> Section | None:
    """A figure per metric and a table per target; None where no validation curves were recorded."""
    curves = evidence.curves
    if curves is None or not len(curves):
        return None
    figures = []
    for metric, checks in curves.groupby("metric", sort=False):
        for portion in portions(checks, ["strategy", "fraction"]):
            figure = validation_curves(portion.rows, evidence.looks)
            figures.append(drawing(evidence, "validation_curves", str(metric), portion, figure, CAPTION, grey=False))
    times = evidence.in_page_order(time_to_quality(curves))
    html = render(evidence, TEMPLATE, parts=parts_by_task(times), figures=figures, shares=SHARES)
    return Section(title="Time to quality", html=html, tables={"time_to_quality": times}, figures=figures)


def validation_curves(checks: pd.DataFrame, looks: Looks) -> Figure:
    """Validation value over steps: a light line per run, and the mean of each arm.

    A panel per target, protocol, strategy and label fraction; dotted lines are 95 % and 99 % of its best mean.

    Args:
        checks: As `statistics.tidy_curves` returns them; one metric.
        looks: As for `figures.learning_curves`.
    """
    panels, several_tasks = list(curve_panels(checks)), checks["task"].nunique() > 1
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=2.6)
        for position, (ax, (key, arms)) in enumerate(zip(axes, panels, strict=True)):
            task, protocol, strategy, fraction, metric = key
            _curves(ax, arms, looks)
            for target in quality_targets(key, arms).values():
                ax.axhline(target, color=INK, linewidth=0.7, linestyle=(0, (1, 2)))
            title = joined(words(protocol), words(strategy), words(task) if several_tasks else "", percent(fraction))
            ax.set_title(filled(title, columns))
            if position % columns == 0:
                ax.set_ylabel(f"{measure(metric)}, validation")
            if position >= len(panels) - columns:
                ax.set_xlabel("steps")
        legend(figure, axes)
    return figure


def _curves(ax: Axes, arms: Arms, looks: Looks) -> None:
    for arm, (runs, curve) in arms.items():
        (color, marker), mean = looks[arm], curve["value"]
        for _, run in runs.groupby("run"):
            ax.plot(run["step"], run["value"], color=color, linewidth=0.6, alpha=0.3)
        every = max(1, len(mean) // 6)
        ax.plot(mean.index, mean, color=color, marker=marker, markersize=4.5, markevery=every, linewidth=1.6, label=arm)
