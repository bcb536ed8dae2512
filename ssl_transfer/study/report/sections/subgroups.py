"""Section: subgroups of the test cases, such as sexes or scanners, and the gap between the best and the worst of them."""

from __future__ import annotations

from ssl_transfer.data.subgroups import NOT_STATED
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.primary import at_primary_noise
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.statistics import subgroup_gaps

TITLE = "Subgroups"
OPEN_ROWS = 24  # a longer table is collapsed
TEMPLATE = """
{% macro unbroken(groups) -%}
  {% for group in groups.split(", ") %}<span class="tight">{{ group }}{{ "," if not loop.last }}</span> {% endfor %}
{%- endmacro %}
<p class="quiet">The metric of the target, for each group of cases of its own test and of external tests. Gap: best − worst group,
paired within a run; its 95 % t-interval is over the seeds. {{ groups }} groups were compared, and the worst of many is low by
chance alone: <em>by chance</em> is the gap that 95 % of the permutations of the groups between patients stay below (mean over
runs), and <em>beyond</em> counts the runs with p ≤ .05. A gap beyond chance says that groups differ, not why: their cases may
differ in difficulty. Groups of few patients or of one class have no score; they, and intervals over patients, are in the result
of each run. In no family of tests.</p>
{% if rows | length > most %}<details><summary>All gaps <span class="quiet">({{ rows | length }} rows)</span></summary>{% endif %}
<div class="wide" role="region" tabindex="0" aria-label="Subgroups">
<table class="sortable">
<caption>Best and worst subgroup by target and pretraining</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Test</th><th scope="col">Grouped by</th><th scope="col">Protocol</th>
<th scope="col" class="num">Labels</th><th scope="col">Pretraining</th><th scope="col">Metric</th><th scope="col">Groups</th>
<th scope="col">Worst</th><th scope="col">Best</th><th scope="col" class="num">Gap</th><th scope="col">95 % interval</th>
<th scope="col" class="num">By chance</th><th scope="col" class="num">Beyond</th><th scope="col" class="num">n</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.task | words }}</td><td>{{ row.store or "own" }}</td>
<td>{{ row.column | words }}</td><td>{{ protocol(row) }}</td>{{ labels(row) }}
<td>{{ swatch(row.pretraining) }}</td><td>{{ row.metric | measure }}</td><td>{{ unbroken(row.groups) }}</td>
<td>{{ row.worst }}</td><td>{{ row.best }}</td>{{ num(row.gap) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row, false) }}</td>
{{- num(row.gap_by_chance) }}<td class="num" data-v="{{ row.beyond_chance }}">{{ row.beyond_chance }} of {{ row.runs }}</td>
<td class="num" data-v="{{ row.n }}">{{ row.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if rows | length > most %}</details>{% endif %}
"""


def section(evidence: Evidence) -> Section | None:
    """Gaps between subgroups; None where no target has subgroups that could be compared."""
    runs = evidence.subgroups
    gaps = None if runs is None else subgroup_gaps(runs)
    if runs is None or gaps is None or gaps.empty:
        return None
    kept, _ = at_primary_noise(gaps, evidence.primaries[0])
    compared = runs[runs["group"] != NOT_STATED]
    groups = compared.groupby(["task", "store", "column"])["group"].nunique().sum()
    rows = evidence.in_page_order(kept).to_dict("records")
    html = render(evidence, TEMPLATE, rows=rows, groups=groups, most=OPEN_ROWS)
    return Section(title=TITLE, html=html, tables={"subgroups": runs, "subgroup_gaps": gaps})
