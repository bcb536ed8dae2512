"""Section: mean and standard deviation of every arm in every cell."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.tables import for_latex, page_parts, with_cell
from ssl_transfer.study.report.wording import number
from ssl_transfer.study.table import CELL

TITLE = "Results"
TEMPLATE = """
{% macro result_table(part, caption) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ caption }}">
<table class="sortable">
<caption>{{ caption }}</caption>
<thead><tr>
  {% if several_tasks and not part.named %}<th scope="col">Target</th>{% endif %}<th scope="col">Protocol</th>
  <th scope="col" class="num">Labels</th>{{ extra_heads(part) }}<th scope="col">Pretraining</th><th
scope="col">Boundary</th>
  <th scope="col" class="num">Seeds</th><th scope="col" class="num">Mean ± SD</th><th scope="col">95 % interval</th>
</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>{% if several_tasks and not part.named %}<td>{{ row.task | words }}</td>{% endif %}<td>{{ protocol(row) }}</td>{{
labels(row) }}
{{- extra_cells(part, row) }}
<td>{{ swatch(row.pretraining) }}</td><td>{{ chip(row.pretraining, row.boundary) }}</td>
<td class="num" data-v="{{ row.n }}">{{ row.n }}{{ " (one checkpoint)" if row.unit == "seed" }}</td>
<td class="num" data-v="{{ row.mean | rounded }}">{{ row.mean | number }} ± {{ row.sd | number }}</td>
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row, false) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
<p class="quiet">Mean ± standard deviation (ddof 1) over pretraining seeds, on the test split. All tables are beside
this page in <code>tables/</code> as CSV and LaTeX, all figures in <code>figures/</code> as PNG and SVG.</p>
{{ table_parts(parts, note, result_table, "Results", "no run has a result") }}
"""


def section(evidence: Evidence) -> Section:
    """All results, or those at main metrics where they are too many for a page."""
    results = _with_trivial(evidence)
    parts, note = page_parts(evidence, results, "results")
    return Section(
        title=TITLE,
        html=render(evidence, TEMPLATE, parts=parts, note=note),
        tables={"results": results},
        latex={"results": _latex(for_latex(evidence, results))},
    )


def _with_trivial(evidence: Evidence) -> pd.DataFrame:
    """The results of the arms, those of trivial features at the end of each cell."""
    if evidence.trivial_results.empty:
        return evidence.results
    both = pd.concat([evidence.results, evidence.trivial_results], ignore_index=True)
    first = both.groupby(CELL, dropna=False, sort=False).ngroup()  # cells in the order of the arms' results
    return both.iloc[first.argsort(kind="stable")].reset_index(drop=True)


def _latex(table: pd.DataFrame) -> pd.DataFrame:
    mean_sd = [f"{number(mean)} ± {number(sd)}" for mean, sd in zip(table["mean"], table["sd"], strict=True)]
    shown = {"Pretraining": table["pretraining"], "Boundary": table["boundary"], "n": table["n"], "Mean ± SD": mean_sd}
    return with_cell(table, **shown)
