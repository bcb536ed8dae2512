"""Section "Patients": the primary contrasts over resampled test patients, and over seeds and patients together.

A contrast of pretraining seeds says what other seeds would give on these test patients. This table adds what other patients would
give, in the metric of the contrast, and how probable it is that the arm with the better mean is not the better one.
"""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.statistics import (
    PatientContrast,
    declared_patient_contrasts,
    patient_contrasts,
    patient_contrasts_of,
)
from ssl_transfer.study.statistics.patients import MOST_CONTRASTS

TITLE = "Patients"
TEMPLATE = """
{% macro ends(row, name) -%}
{% set low, high = row[name ~ "_low"], row[name ~ "_high"] %}
<td class="tight" data-v="{{ low | rounded }}">
{%- if low == low %}{{ low | number(sign=true) }} to {{ high | number(sign=true) }}{% else %}–{% endif %}</td>
{%- endmacro %}
<p class="quiet">The contrasts above generalise over pretraining seeds, for these test patients. Here test patients are
resampled with all their images ({{ resamples | whole }} times, the same patients for all runs of a target), and the
metric of the contrast is computed anew for every run. <em>Over patients</em>: bootstrap interval over patients, for these
trained models. <em>Over seeds and patients</em>: interval over both, by the method of Obuchowski and Rockette with
pretraining seeds in place of readers; SE is the standard error that seeds, and patients, contribute to the difference.
<em>P(false)</em>: probability that the arm with the better mean is not truly better (Claims Reloaded, arXiv 2505.04720),
over patients alone and over seeds and patients; .5 means that the data do not favour either arm.
Intervals are at {{ "95 %, not corrected for multiple comparisons" if standard else "the level that decides the contrast" }}.
{%- if left_out %} Shown are {{ rows | length }} of {{ rows | length + left_out }} contrasts: for the others there are no
predictions of the same test cases, or the limit of {{ most }} was reached.{% endif %}</p>
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}"><table class="sortable dense">
<caption>Primary contrasts over patients, and over seeds and patients</caption>
<thead><tr><th scope="col">Family</th><th scope="col">Target</th><th scope="col">Protocol</th>
<th scope="col" class="num">Labels</th>
<th scope="col">Metric</th><th scope="col">A</th><th scope="col">B</th><th scope="col" class="num tight">A − B</th>
<th scope="col">Over patients</th><th scope="col">Over seeds and patients</th><th scope="col" class="num">SE, seeds</th>
<th scope="col" class="num">SE, patients</th><th scope="col" class="num">P(false), patients</th>
<th scope="col" class="num">P(false), both</th><th scope="col" class="num">Seeds</th><th scope="col" class="num">Patients</th>
<th scope="col" class="num">Cases</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.family or "pair" }}</td><td>{{ row.task | words }}</td><td>{{ protocol(row) }}</td>
{{- labels(row) }}<td>{{ row.metric | measure }}</td>
<td>{{ swatch(row.a) }}</td><td>{{ swatch(row.b) }}</td>{{ num(row.difference, true) }}
{{- ends(row, "patients") }}{{ ends(row, "ci") }}{{ num(row.se_seeds) }}{{ num(row.se_patients) }}
<td class="num" data-v="{{ row.p_false_patients | rounded }}">{{ row.p_false_patients | p }}</td>
<td class="num" data-v="{{ row.p_false | rounded }}">{{ row.p_false | p }}</td>
<td class="num" data-v="{{ row.n_a + row.n_b }}">
{{- row.n_a if row.test == "paired" else row.n_a ~ " / " ~ row.n_b }}
{%- if row.unit == "seed" %} <span class="quiet">(one checkpoint)</span>{% endif %}</td>
<td class="num" data-v="{{ row.n_patients }}">{{ row.n_patients | int | whole }}</td>
<td class="num" data-v="{{ row.n_cases }}">{{ row.n_cases | int | whole }}</td></tr>
{% endfor %}
</tbody></table></div>
"""


def section(evidence: Evidence) -> Section | None:
    """A row per declared contrast and pair of the primary contrasts, at most `MOST_CONTRASTS`; None without predictions."""
    if evidence.predictions is None or not len(evidence.frame):
        return None
    declared = declared_patient_contrasts(evidence.decisions, evidence.frame)
    pairs = [pair for pair in patient_contrasts_of(evidence.primary_contrasts) if not _is_declared(pair, declared)]
    contrasts = [*declared, *pairs]
    table = patient_contrasts(contrasts, evidence.predictions)
    if not len(table):
        return None
    html = render(
        evidence,
        TEMPLATE,
        title=TITLE,
        rows=table.to_dict("records"),
        resamples=int(table["resamples"].min()),
        standard=(table["level"] == 0.05).all(),
        left_out=len(contrasts) - len(table),
        most=MOST_CONTRASTS,
    )
    return Section(title=TITLE, html=html, tables={"patients": table})


def _is_declared(pair: PatientContrast, declared: list[PatientContrast]) -> bool:
    """Whether a pair of pretrainings in one cell is a declared contrast, in either direction."""
    sides = pair.cells[0]
    return any(list(contrast.cells) in ([sides], [sides[::-1]]) for contrast in declared)
