"""Section "Score validity": do transferability scores and probes predict which pretraining fine-tunes best?

Two tables of correlations with fine-tuning, without and with the arm that is random initialisation, because that arm
alone can make every score look valid; p-values hold for all scores at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ssl_transfer.measures.transferability import SCORES
from ssl_transfer.study.report.drawing import STYLE, Looks, grid, legend
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, parts_by_task, render
from ssl_transfer.study.report.wording import joined, listed, measure, number, p_value, percent, words
from ssl_transfer.study.statistics import fine_tuned, score_validity
from ssl_transfer.study.statistics.score_validity import ALL, FEWEST_ARMS, FEWEST_FOR_VALIDITY, PRETRAINED, SETTING

TITLE = "Score validity"
TOO_FEW = """<p class="quiet">Nothing to show: whether scores predict fine-tuning takes at least {{ fewest }} pretrainings
that were ranked and fine-tuned, and this study has {{ pretrainings }}. tables/scores.csv has the scores.</p>"""
COLUMNS = 4
CAPTION = (
    "{metric} after fine-tuning against each criterion, on {where}: small points are pretraining seeds, large ones their means, "
    "on which Kendall’s τ is computed{without}. Scores and probes use training and validation images only."
)
WITHOUT = ", leaving out random initialisation"
CAPTIONS = {
    PRETRAINED: "Correlation with fine-tuning without random initialisation, mean over targets",
    ALL: "Correlation with fine-tuning with random initialisation among the arms, mean over targets",
}
NO_RANDOM_INIT = "Correlation with fine-tuning, mean over targets"
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
{% if not overall %}<th scope="col">Strategy</th><th scope="col" class="num">Labels</th><th scope="col">Arms</th>{% endif %}
<th scope="col" class="num">Kendall τ</th><th scope="col" class="num">p, all scores</th>
<th scope="col" class="num">Weighted τ</th><th scope="col"
class="num">Spearman</th>
<th scope="col" class="num">Pearson</th><th scope="col" class="num">Regret</th><th scope="col" class="num">n</th>
{% if overall %}<th scope="col" class="num">Targets</th><th scope="col">Valid</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
<tr><td class="tight">{{ names[row.criterion] }}</td>
{% if not overall %}<td>{{ row.strategy | words }}</td>{{ labels(row) }}<td>{{ row.arms }}</td>{% endif %}
{{ coefficient(row, "kendall") }}
<td class="num" data-v="{{ row.kendall_p_max | rounded }}">{{ row.kendall_p_max | p }}</td>
{% for name in ("weighted_kendall", "spearman", "pearson") %}{{ coefficient(row, name) }}{% endfor %}
{{ num(row.regret) }}<td class="num">{{ row.n }}</td>
{%- if overall %}<td class="num">{{ row.targets }}</td><td>{{ "yes" if row.valid else "not shown" }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
{% macro validity_part(part, name) %}{{ validity_table(part.rows, name) }}{% endmacro %}
<p class="sums">{{ sentence }}</p>
<p class="quiet">Transferability scores, kNN and a linear probe (both cross-validated over patients) are computed from
frozen features of training and validation images. They are correlated with test performance after fine-tuning; each
pretraining is one point, averaged over its seeds. Weighted Kendall’s τ gives more weight to exchanges among the best.
In brackets: 95 % intervals of a single criterion from resampled pretrainings, given from six pretrainings on. “p, all scores” is
corrected for the number of criteria: the share of the permutations of the pretrainings in which any criterion has a |τ| as
large. A criterion is valid if τ is positive and this p is below .05. Regret is the loss in the
metric, against the best pretraining, from choosing the pretraining that the criterion ranks first.</p>
{% for part in overall %}
{{ validity_table(part.rows, part.caption, true) }}
{% endfor %}
{{ drawn(figures) }}
{{ folded(parts, validity_part, "Correlation with fine-tuning", 0) }}
"""


def section(evidence: Evidence) -> Section | None:
    """A table of criteria, one per target, and a figure per setting; None without scores."""
    scores = evidence.scores
    if scores is None or not len(scores):
        return None
    metrics = {task: metric for (task, protocol), metric in evidence.main_metrics.items() if protocol == "finetune"}
    quality = fine_tuned(evidence.runs, metrics)
    correlations, overall = score_validity(scores, quality, evidence.random_init)
    if not len(correlations):
        pretrainings = len(set(scores["pretraining"]) & set(quality["pretraining"]))
        html = render(evidence, TOO_FEW, fewest=FEWEST_ARMS, pretrainings=pretrainings)
        return Section(title=TITLE, html=html, tables={"scores": scores})
    overall = overall.sort_values("kendall", ascending=False, kind="stable")
    by_arms = {arms: overall[overall["arms"] == arms] for arms in (PRETRAINED, ALL)}
    by_arms = {arms: rows for arms, rows in by_arms.items() if len(rows)}
    figures = list(_drawings(scores, quality, correlations, evidence.looks))
    html = render(
        evidence,
        TEMPLATE,
        sentence=validity_sentences(by_arms),
        overall=[
            {
                "caption": CAPTIONS[arms] if evidence.random_init & set(quality["pretraining"]) else NO_RANDOM_INIT,
                "rows": rows.to_dict("records"),
            }
            for arms, rows in by_arms.items()
        ],
        parts=parts_by_task(correlations),
        names={criterion: criterion_name(criterion) for criterion in overall["criterion"]},
        figures=figures,
    )
    tables = {"scores": scores, "score_validity": correlations, "score_validity_overall": overall}
    return Section(title=TITLE, html=html, tables=tables, figures=figures)


def validity_sentences(by_arms: Mapping[str, pd.DataFrame]) -> str:
    """Which criteria are valid, and what random initialisation among the arms would have made of them.

    Args:
        by_arms: `pretrained` and, with random initialisation, `all` -> a row per criterion, the largest τ first.
    """
    if PRETRAINED not in by_arms:
        text = best_criterion(by_arms[ALL])
        return f"{text} Random initialisation is one of these arms; without it there are too few pretrainings to tell."
    text = best_criterion(by_arms[PRETRAINED])
    if ALL not in by_arms:
        return text
    valid, with_random = (int(by_arms[arms]["valid"].sum()) for arms in (PRETRAINED, ALL))
    text += (
        f" With random initialisation among the arms, {with_random or 'none'} of {len(by_arms[ALL])} criteria would be called "
        f"valid, without it {valid or 'none'}"
    )
    return text + (": a score need not rank pretrainings to tell them from none." if with_random > valid else ".")


def best_criterion(overall: pd.DataFrame) -> str:
    """In a sentence, which criterion predicts fine-tuning best, and which are shown to predict it.

    Args:
        overall: A row per criterion, sorted by Kendall's τ, largest first.
    """
    best, probe = overall.iloc[0], overall[overall["criterion"] == "linear_probe"]
    top = overall[overall["kendall"] == best["kendall"]]["criterion"]
    names = listed([criterion_name(criterion) for criterion in top])
    p = p_value(best["kendall_p_max"])
    text = (
        f"{names[0].upper()}{names[1:]} predicted fine-tuning best over {best['targets']} "
        f"{'targets' if best['targets'] > 1 else 'target'} and {best['n']} pretrainings: Kendall’s τ {number(best['kendall'])}, "
        f"p {'' if '<' in p else '= '}{p} corrected for {len(overall)} {'criteria' if len(overall) > 1 else 'criterion'}"
    )
    if len(probe) and "linear_probe" not in set(top):
        text += f", against {number(probe['kendall'].iloc[0])} for the cross-validated linear probe"
    if best["n"] < FEWEST_FOR_VALIDITY:
        return f"{text}. With {best['n']} pretrainings no correlation can be significant."
    valid = overall[overall["valid"]]["criterion"]
    if not len(valid):
        return f"{text}. No criterion is shown to be predictive."
    return f"{text}. Shown to be predictive: {', '.join(map(criterion_name, valid))}."


def criterion_name(criterion: str) -> str:
    """A criterion as readers know it: `n_leep` -> N-LEEP, `linear_probe` -> linear probe."""
    return SCORES[criterion].title if criterion in SCORES else words(criterion)


def _drawings(
    scores: pd.DataFrame, quality: pd.DataFrame, correlations: pd.DataFrame, looks: Looks
) -> Iterator[Drawing]:
    random_left_out = PRETRAINED in set(correlations["arms"]) and ALL in set(correlations["arms"])
    shown = correlations[correlations["arms"] == (PRETRAINED if PRETRAINED in set(correlations["arms"]) else ALL)]
    for number_, (setting, rows) in enumerate(shown.groupby(SETTING, sort=False)):
        parts: Any = setting
        task, strategy, fraction, metric = parts
        where = joined(words(task), words(strategy), percent(fraction))
        tuned = quality[(quality[SETTING] == list(setting)).all(axis=1)]
        figure = criterion_points(scores[scores["task"] == task], tuned, rows, looks)
        caption = CAPTION.format(metric=measure(metric), where=where, without=WITHOUT if random_left_out else "")
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
