"""Section: every contrast of two pretrainings."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.tables import for_latex, inference_columns, page_parts, verdicts, with_cell
from ssl_transfer.study.report.wording import listed, number, words

TITLE = "Contrasts"
TEMPLATE = """
{% macro contrast_table(part, caption) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ caption }}">
<table class="sortable dense">
<caption>{{ caption }}</caption>
<thead><tr>
  <th scope="col">Boundary A, B</th>
  {% if several_tasks and not part.named %}<th scope="col">Target</th>{% endif %}<th scope="col">Protocol</th>
  <th scope="col" class="num">Labels</th>{{ extra_heads(part) }}<th scope="col">A</th><th scope="col">A is</th><th
scope="col">B</th>
  <th scope="col" class="num">n</th><th scope="col" class="num tight">Mean A</th><th scope="col" class="num tight">Mean B</th>
  <th scope="col" class="num tight">A − B</th><th scope="col">Interval</th><th scope="col" class="num">Level</th>
  <th scope="col" class="num">p, corrected</th><th scope="col" class="num">Hedges’ g</th><th scope="col" class="num">t (df)</th>
  <th scope="col">Test</th>
</tr></thead>
<tbody>
{% for row in part.rows %}
<tr><td class="tight">{{ chip(row.a, row.boundary_a) }} {{ chip(row.b, row.boundary_b) }}</td>
{% if several_tasks and not part.named %}<td>{{ row.task | words }}</td>{% endif %}<td>{{ protocol(row) }}</td>{{
labels(row) }}
{{- extra_cells(part, row) }}
<td>{{ row.a }}</td><td class="is">{{ verdict(row) }}</td><td>{{ row.b }}</td>
<td class="num" data-v="{{ row.n_a + row.n_b }}">{{ row.n_a }} / {{ row.n_b }}</td>{{ num(row.mean_a) }}{{
num(row.mean_b) }}
{{- num(row.difference, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.level | rounded }}">{{ row.level | nominal }}</td>{{ corrected_p(row) }}
{{-  num(row.hedges_g) }}
<td class="num" data-v="{{ row.t | rounded }}">{{ row.t | t(row.df) }}</td>
<td>{{ row.test }}, {{ row.family }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
<p class="quiet">Each row compares two pretrainings on one target, protocol and label fraction. Boundary is the
distance between the source domain of A, of B, and the target: none (same modality), soft (another modality of the
same family), hard (another kind of image). “Paired”: both arms were evaluated with the same pretraining seeds and
evaluation seeds, so with the same label subsets; evaluation seeds are averaged within the pretraining seed, and a paired
t-test runs over pretraining seeds (over evaluation seeds where both share a single one: the verdict then holds for these
checkpoints only). “Welch”: Welch’s t-test, where one of the arms has no pretraining seeds or draws are not shared. Secondary
contrasts are corrected by Holm’s rule, exploratory ones by Benjamini and Hochberg’s, each within one {{ family }} and over
{{ "all tests that the study plans" if planned else "all tests" }}. Level: that at which the verdict was reached, or at which
the contrast is still open; the interval has the confidence 1 − level, of an equivalence 1 − 2 · level, as two one-sided tests
have. “Not decided” does not mean “equal”.
{%- if declared %} Pairs of the gate and the primary contrasts stand here again, as one of their family; what is said of them
above counts.{% endif %}
{{- left_out }} Click a column heading to sort.
{%- if has_noise %} Runs with noise are compared within one kind and σ of noise; all of them count in the family.{% endif %}
 tables/contrasts.csv also has both corrections of every p-value.</p>
{{ table_parts(parts, note, contrast_table, "Contrasts", "no two pretrainings share a task, protocol and metric") }}
"""


def section(evidence: Evidence) -> Section:
    """All contrasts, or those at main metrics where they are too many for a page."""
    parts, note = page_parts(evidence, evidence.contrasts, "contrasts")
    return Section(
        title=TITLE,
        html=render(
            evidence,
            TEMPLATE,
            parts=parts,
            note=note,
            family=listed([words(name) for name in evidence.family]) if evidence.family else "study",
            planned=evidence.planned is not None,
            declared=bool(len(evidence.declared_contrasts)),
            left_out=_left_out(evidence.contrasts),
        ),
        tables={"contrasts": pd.concat([evidence.declared_contrasts, evidence.contrasts], ignore_index=True)},
        latex={"contrasts": _latex(for_latex(evidence, evidence.contrasts))},
    )


def _left_out(table: pd.DataFrame) -> str:
    """A sentence on the runs that pairs leave out; empty if there are none."""
    pairs = table[table["test"] == "paired"]
    counts = {
        "without a counterpart on the other side": pairs["unpaired_a"] + pairs["unpaired_b"],
        "without a value": pairs["missing_a"] + pairs["missing_b"],
    }
    parts = [
        f"runs {what} in {(count > 0).sum():,} contrasts (up to {count.max():,} in one)"
        for what, count in counts.items()
        if (count > 0).any()
    ]
    return f" Left out of the pairs: {listed(parts)}; tables/contrasts.csv counts them." if parts else ""


def _latex(table: pd.DataFrame) -> pd.DataFrame:
    n = table["n_a"].astype(str) + "/" + table["n_b"].astype(str)
    test = {**inference_columns(table), "g": table["hedges_g"].map(number), "Verdict": verdicts(table)}
    return with_cell(table, A=table["a"], B=table["b"], n=n, **test)
