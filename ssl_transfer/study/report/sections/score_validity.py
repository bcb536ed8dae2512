"""Section: do transferability scores and probes predict which pretraining fine-tunes best?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.study.report.drawing import STYLE, Looks, grid, legend
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, parts_by_task, render
from ssl_transfer.study.report.wording import joined, listed, measure, number, percent, words
from ssl_transfer.study.statistics import fine_tuned, score_correlations
from ssl_transfer.study.statistics.score_validity import FEWEST_FOR_INTERVALS, SETTING

COLUMNS = 4
CAPTION = (
    "{metric} after fine-tuning against each criterion, on {where}: small points are pretraining seeds, large ones their means, "
    "on which Kendall’s τ is computed. Scores and probes use training and validation images only."
)
TEMPLATE = """
{% macro coefficient(row, name) -%}
  <td class="num tight" data-v="{{ row[name] | rounded }}">{{ row[name] | number }}
  {%- if row[name ~ "_low"] == row[name ~ "_low"] %}
 <span class="quiet">[{{ row[name ~ "_low"] | number }}, {{ row[name ~ "_high"] | number }}]</span>{% endif %}</td>
{%- endmacro %}
{% macro validity_table(rows, name, overall=false) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ name }}"><table class="sortable">
<caption>{{ name }}</caption>
<thead><tr><th scope="col">Criterion</th>
{% if not overall %}<th scope="col">Strategy</th><th scope="col" class="num">Labels</th>{% endif %}
<th scope="col" class="num">Kendall τ</th><th scope="col" class="num">Weighted τ</th><th scope="col"
class="num">Spearman</th>
<th scope="col" class="num">Pearson</th><th scope="col" class="num">Regret</th><th scope="col" class="num">n</th>
{% if overall %}<th scope="col" class="num">Targets</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="tight">{{ names[row.criterion] }}</td>
{% if not overall %}<td>{{ row.strategy | words }}</td>{{ labels(row) }}{% endif %}
{% for name in ("kendall", "weighted_kendall", "spearman", "pearson") %}{{ coefficient(row, name) }}{% endfor %}
{{ num(row.regret) }}<td class="num">{{ row.n }}</td>{% if overall %}<td class="num">{{ row.targets }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro validity_part(part, name) %}{{ validity_table(part.rows, name) }}{% endmacro %}
<p class="sums">{{ sentence }}</p>
<p class="quiet">Transferability scores, kNN and a linear probe (both cross-validated over patients) are computed from
frozen features of training and validation images. They are correlated with test performance after fine-tuning; each
pretraining is one point, averaged over its seeds. Weighted Kendall’s τ gives more weight to exchanges among the best.
In brackets: 95 % intervals from resampled pretrainings, given from six pretrainings on. Regret is the loss in the
metric, against the best pretraining, from choosing the pretraining that the criterion ranks first.</p>
{{ validity_table(overall, "Correlation with fine-tuning, mean over targets", true) }}
{{ drawn(figures) }}
{{ folded(parts, validity_part, "Correlation with fine-tuning", 0) }}
"""


def section(evidence: Evidence) -> Section | None:
    """A table of criteria, one per target, and a figure per setting; None without scores of enough pretrainings."""
    scores = evidence.scores
    if scores is None or not len(scores):
        return None
    metrics = {task: metric for (task, protocol), metric in evidence.main_metrics.items() if protocol == "finetune"}
    quality = fine_tuned(evidence.runs, metrics)
    correlations, overall = score_correlations(scores, quality)
    if not len(correlations):
        return None
    overall = overall.sort_values("kendall", ascending=False, kind="stable")
    figures = list(_drawings(scores, quality, correlations, evidence.looks))
    html = render(
        evidence,
        TEMPLATE,
        sentence=best_criterion(overall),
        overall=overall.to_dict("records"),
        parts=parts_by_task(correlations),
        names={criterion: criterion_name(criterion) for criterion in overall["criterion"]},
        figures=figures,
    )
    tables = {"scores": scores, "score_validity": correlations, "score_validity_overall": overall}
    return Section(title="Score validity", html=html, tables=tables, figures=figures)


def best_criterion(overall: pd.DataFrame) -> str:
    """In a sentence, which criterion predicts fine-tuning best, and whether its correlation is shown to be positive.

    Args:
        overall: A row per criterion, sorted by Kendall's τ, largest first.
    """
    best, probe = overall.iloc[0], overall[overall["criterion"] == "linear_probe"]
    top = overall[overall["kendall"] == best["kendall"]]["criterion"]
    names = listed([criterion_name(criterion) for criterion in top])
    text = (
        f"{names[0].upper()}{names[1:]} predicted fine-tuning best over {best['targets']} "
        f"{'targets' if best['targets'] > 1 else 'target'}: Kendall’s τ {number(best['kendall'])}"
    )
    if best["n"] >= FEWEST_FOR_INTERVALS:
        text += f" [{number(best['kendall_low'])}, {number(best['kendall_high'])}]"
    if len(probe) and "linear_probe" not in set(top):
        text += f", against {number(probe['kendall'].iloc[0])} for the cross-validated linear probe"
    if best["n"] < FEWEST_FOR_INTERVALS:
        return f"{text}. With {best['n']} pretrainings this is weak evidence."
    positive = overall[overall["kendall_low"] > 0]["criterion"]
    if not len(positive):
        return f"{text}. Every interval includes 0 or lies below: no criterion is shown to be predictive."
    return f"{text}. Intervals above 0: {', '.join(map(criterion_name, positive))}."


def criterion_name(criterion: str) -> str:
    """A criterion as readers know it: `n_leep` -> N-LEEP, `linear_probe` -> linear probe."""
    return SCORES[criterion].title if criterion in SCORES else words(criterion)


def _drawings(
    scores: pd.DataFrame, quality: pd.DataFrame, correlations: pd.DataFrame, looks: Looks
) -> Iterator[Drawing]:
    for number_, (setting, rows) in enumerate(correlations.groupby(SETTING, sort=False)):
        parts: Any = setting
        task, strategy, fraction, metric = parts
        where = joined(words(task), words(strategy), percent(fraction))
        tuned = quality[(quality[SETTING] == list(setting)).all(axis=1)]
        figure = criterion_points(scores[scores["task"] == task], tuned, rows, looks)
        caption = CAPTION.format(metric=measure(metric), where=where)
        yield Drawing(f"score_validity_{number_}", figure, caption[0].upper() + caption[1:], where, True)


def criterion_points(scores: pd.DataFrame, quality: pd.DataFrame, correlations: pd.DataFrame, looks: Looks) -> Figure:
    """Fine-tuned quality over each criterion, a panel per criterion.

    Args:
        scores: Of one task.
        quality: `statistics.fine_tuned` of one setting of that task.
        correlations: Rows of that setting.
        looks: As for `figures.learning_curves`.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = grid(len(correlations), COLUMNS, height=2.1, sharey=True)
        for ax, row in zip(axes, correlations.to_dict("records"), strict=True):
            of_criterion = scores[scores["criterion"] == row["criterion"]]
            points = of_criterion.merge(quality, on=["pretraining", "pretraining_seed"], suffixes=("_score", ""))
            for arm, seeds in points.groupby("pretraining", sort=True):
                (color, marker), x, y = looks[arm], seeds["value_score"], seeds["value"]
                ax.scatter(x, y, s=11, alpha=0.55, color=color, marker=marker, lw=0)
                ax.scatter([x.mean()], [y.mean()], s=38, color=color, marker=marker, label=arm)
            ax.set_title(f"{criterion_name(row['criterion'])}, τ {number(row['kendall'])}")
            ax.tick_params(labelsize=7.5)
        for ax in axes[::COLUMNS]:
            ax.set_ylabel(measure(correlations["metric"].iloc[0]))
        legend(figure, axes)
    return figure
