"""Section: the primary contrasts with patients as the unit."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.statistics import patient_contrasts

TEMPLATE = """
{% macro patient_table() %}
<div class="wide" role="region" tabindex="0" aria-label="Patients as the unit"><table class="sortable">
<caption>Primary contrasts with patients as the unit (averaged over seeds)</caption>
<thead><tr><th scope="col">Target</th><th scope="col">A</th><th scope="col">B</th><th scope="col">Metric</th>
<th scope="col" class="num">A − B</th><th scope="col">95 % interval</th><th scope="col" class="num">Cases</th>
<th scope="col" class="num">Patients</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.task | words }}</td><td>{{ swatch(row.a) }}</td><td>{{ swatch(row.b) }}</td><td>{{ row.metric |
measure }}</td>
{{- num(row.difference, true) }}<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.n_cases }}">{{ row.n_cases | int | whole }}</td>
<td class="num" data-v="{{ row.n_patients }}">{{ row.n_patients | int | whole }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<p class="quiet">The contrasts above generalise over seeds, for these test patients. Here scores are averaged over seeds
and patients are resampled with all their cases (percentile bootstrap, not corrected for multiple comparisons): the
intervals generalise over patients, for these trained models.</p>
{% if rows | length > 40 %}
<details><summary>{{ rows | length }} contrasts with patients as the unit</summary>
{{ patient_table() }}
</details>
{% else %}
{{ patient_table() }}
{% endif %}
"""


def section(evidence: Evidence) -> Section | None:
    """A row per primary contrast; None where no predictions were recorded."""
    if evidence.case_scores is None:
        return None
    table = patient_contrasts(evidence.primary_contrasts, evidence.case_scores)
    if not len(table):
        return None
    html = render(evidence, TEMPLATE, rows=table.to_dict("records"))
    return Section(title="Patient bootstrap", html=html, tables={"patients": table})
