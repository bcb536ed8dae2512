"""Section "Fine-tuning strategies": which way of fine-tuning is best, judged on the same pretrained backbones.

A strategy says which layers are trained, when and at which rate (`full`, `lp_ft`, `l2_sp`, …). Every strategy starts
from the same backbones, so two strategies are compared in pairs, separately for every pretraining. The section has three
parts, from coarse to fine:

1. a table that counts, for each target and label fraction, for how many pretrainings each strategy is undominated: no
   other strategy is better, and it is better than at least one;
2. a figure of the means of all strategies;
3. a table of all contrasts of two strategies.

All show runs at the main metric of a target; `tables/strategies.csv` has every metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_transfer.measures.metrics import metric_range
from ssl_transfer.palette import INK
from ssl_transfer.study.report.drawing import STYLE, Looks, filled, grid, legend
from ssl_transfer.study.report.drawings import drawing, portions, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, parts_by_task, render
from ssl_transfer.study.report.tables import for_latex, inference_columns, verdicts, with_cell
from ssl_transfer.study.report.wording import joined, measure, noisy, percent, words
from ssl_transfer.study.statistics import averaged, strategy_wins
from ssl_transfer.study.statistics.strategies import STRATEGY_SETTING

FEW_ARMS = 3  # up to here each arm has its own interval in a figure
CAPTION = (
    "{metric} of each strategy. Up to three pretrainings: the mean of each with its 95 % interval, as far as the metric reaches. "
    "More: a light marker is the mean of one pretraining, and the dark bar is the average over pretrainings with its 95 % "
    "interval (over seeds, for these pretrainings)."
)
TEMPLATE = """
{% macro count_table() %}
<div class="wide" role="region" tabindex="0" aria-label="Undominated strategies"><table class="sortable">
<caption>Number of pretrainings for which a strategy is undominated (no strategy is better, and it is better than
another)</caption>
<thead><tr>{% if several_tasks %}<th scope="col">Target</th>{% endif %}<th scope="col">Protocol</th>
<th scope="col" class="num">Labels</th>{% if has_noise %}<th scope="col">Noise</th>{% endif %}
<th scope="col" class="num">Pretrainings</th>
{% for name in names %}<th scope="col" class="num">{{ name | words }}</th>{% endfor %}
<th scope="col" class="num">no strategy</th></tr></thead>
<tbody>
{% for row in wins %}
<tr>{% if several_tasks %}<td>{{ row.task | words }}</td>{% endif %}
<td>{{ row.protocol | words }}{{ " (these weights)" if row.checkpoint }}</td>{{ labels(row) }}
{% if has_noise %}<td>{{ row.noise }}{{ ", σ %g" | format(row.noise_sigma) if row.noise != "none" }}</td>{% endif %}
<td class="num">{{ row.arms }}</td>
{% for name in names -%}
<td class="num{{ " quiet" if not row.counts.get(name) }}" data-v="{{ row.counts.get(name, -1) }}">
{{- row.counts.get(name, "–") }}</td>
{%- endfor %}<td class="num">{{ row.undecided }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro strategy_table(part, name) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ name }}"><table class="sortable dense">
<caption>{{ name }}</caption>
<thead><tr><th scope="col">Protocol</th><th scope="col" class="num">Labels</th><th scope="col">Pretraining</th>
{% if part.metrics | length > 1 %}<th scope="col">Metric</th>{% endif %}<th scope="col">A</th><th scope="col">A is</th>
<th scope="col">B</th><th scope="col" class="num">Pairs</th><th scope="col" class="num tight">Mean A</th>
<th scope="col" class="num tight">Mean B</th><th scope="col" class="num tight">A − B</th><th scope="col">Interval</th>
<th scope="col" class="num">t (df)</th><th scope="col" class="num">Level</th>
<th scope="col" class="num">p, corrected</th></tr></thead>
<tbody>
{% for row in part.rows %}
<tr><td>{{ row.protocol | words }}
{%- if row.noise != "none" %} ({{ row.noise }}, σ {{ "%g" | format(row.noise_sigma) }}){% endif %}</td>{{ labels(row) }}
<td>{{ row.pretraining }}</td>{% if part.metrics | length > 1 %}<td>{{ row.metric | measure }}</td>{% endif %}
<td>{{ row.a | words }}</td><td class="is">{{ verdict(row) }}</td><td>{{ row.b | words }}</td>
<td class="num">{{ row.n }}</td>{{ num(row.mean_a) }}{{ num(row.mean_b) }}{{ num(row.difference, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.t | rounded }}">{{ row.t | t(row.df) }}</td>
<td class="num" data-v="{{ row.level | rounded }}">{{ row.level | nominal }}</td>{{ corrected_p(row) }}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<p class="quiet">Two strategies start from the same pretrained backbones, so they are compared by a t-test paired over
pretraining seeds, each averaged over its evaluation seeds (paired over evaluation seeds where there is a single
checkpoint), separately for each pretraining. P-values are corrected within the declared family, by Holm’s rule (exploratory
ones by Benjamini and Hochberg’s). Intervals have the confidence 1 − level.</p>
{{ count_table() }}
{{ drawn(figures) }}
{{ folded(parts, strategy_table, "Contrasts of strategies", 0) }}
<p class="quiet">All {{ n | whole }} contrasts of strategies are in tables/strategies.csv.</p>
"""


def section(evidence: Evidence) -> Section | None:
    """Counts of undominated strategies, a figure per main metric, and all contrasts; None where no strategies are compared."""
    contrasts = evidence.strategies
    if not len(contrasts):
        return None
    at_main_metrics, figures = evidence.at_main(contrasts), list(_drawings(evidence))
    html = render(
        evidence,
        TEMPLATE,
        wins=strategy_wins(at_main_metrics),
        names=sorted({*contrasts["a"], *contrasts["b"]}),
        parts=parts_by_task(at_main_metrics),
        figures=figures,
        n=len(contrasts),
    )
    return Section(
        title="Fine-tuning strategies",
        html=html,
        tables={"strategies": contrasts},
        latex={"strategies": _latex(for_latex(evidence, contrasts))},
        figures=figures,
    )


def _latex(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The table of contrasts in LaTeX; each row is of two strategies, so the column for one strategy stays empty."""
    names = {"Pretraining": contrasts["pretraining"], "A": contrasts["a"].map(words), "B": contrasts["b"].map(words)}
    test = inference_columns(contrasts)
    return with_cell(contrasts.assign(strategy=""), **names, n=contrasts["n"], **test, Verdict=verdicts(contrasts))


def _drawings(evidence: Evidence) -> Iterator[Drawing]:
    """Yield a figure per main metric (split by target where it has many panels) of what was run with several strategies."""
    panel = [name for name in STRATEGY_SETTING if name != "metric"]
    for metric, _, _, noise_sentence in runs_by_metric(evidence):
        results = evidence.main_results
        results = results[(results["metric"] == metric) & (results["strategy"] != "")]
        results = results[results.groupby(panel, dropna=False)["strategy"].transform("nunique") > 1]
        for portion in portions(results, [name for name in panel if name not in ("task", "protocol")]):
            figure = strategy_means(portion.rows, evidence.looks)
            yield drawing(evidence, "strategies", metric, portion, figure, CAPTION + noise_sentence)


def strategy_means(results: pd.DataFrame, looks: Looks) -> Figure:
    """Means of all strategies: a panel per target, protocol, label fraction and noise, in each a row per strategy.

    With up to `FEW_ARMS` pretrainings each has its 95 % interval. With more, each is a light marker, and a dark bar is their
    average with its 95 % interval: over seeds of these pretrainings, not over pretrainings.

    Args:
        results: `statistics.summary` of runs with a strategy, at one metric.
        looks: Colour and marker of each pretraining, as for `figures.learning_curves`.
    """
    panels = list(results.groupby(STRATEGY_SETTING, dropna=False))
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    strategies = sorted(set(results["strategy"]))
    several_tasks = results["task"].nunique() > 1
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(panels), columns, height=0.85 + 0.3 * len(strategies))
        for position, (ax, (setting, rows)) in enumerate(zip(axes, panels, strict=True)):
            _strategy_rows(ax, rows, strategies, looks)
            ax.set_title(filled(_panel_title(setting, several_tasks), columns))
            leftmost, lowest = position % columns == 0, position >= len(panels) - columns
            ax.set_yticks(range(len(strategies)), [words(name) if leftmost else "" for name in strategies])
            if lowest:
                ax.set_xlabel(measure(rows["metric"].iloc[0]))
        legend(figure, axes)
    return figure


def _panel_title(setting: Any, several_tasks: bool) -> str:
    """The values of `STRATEGY_SETTING` in words; the target only where the figure has several."""
    task, protocol, fraction, noise, sigma, _ = setting
    return joined(words(protocol), words(task) if several_tasks else "", percent(fraction), noisy(noise, sigma))


def _strategy_rows(ax: Axes, results: pd.DataFrame, strategies: list[str], looks: Looks) -> None:
    """Draw one panel: strategies below each other, in each row a marker per pretraining."""
    arms = list(dict.fromkeys(results["pretraining"]))
    few = len(arms) <= FEW_ARMS
    for position, arm in enumerate(arms):
        color, marker = looks[arm]
        means = results[results["pretraining"] == arm]
        apart = 0.22 * (position - (len(arms) - 1) / 2) if few else 0.0
        y, alpha = means["strategy"].map(strategies.index) + apart, 1 if few else 0.55
        look = {"linestyle": "none", "color": color, "marker": marker, "markersize": 5, "alpha": alpha}
        ax.plot(means["mean"], y, label=arm, **look)
        if few:
            possible = metric_range(str(means["metric"].iloc[0]))
            low, high = (means[end].clip(*possible) for end in ("ci_low", "ci_high"))
            ax.hlines(y, low, high, color=color, linewidth=1.6)
    if not few:
        _averages(ax, results, strategies)
    ax.set_ylim(len(strategies) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)


def _averages(ax: Axes, results: pd.DataFrame, strategies: list[str]) -> None:
    """A dark bar per strategy: the average of the pretrainings with its interval."""
    for y, name in enumerate(strategies):
        mean, low, high = averaged(results[results["strategy"] == name])
        ax.plot([low, high], [y, y], color=INK, linewidth=2.2)
        ax.plot(mean, y, color=INK, marker="|", markersize=13, markeredgewidth=2.2)
