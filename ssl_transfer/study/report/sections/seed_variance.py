"""Section: variance between seeds, and the differences that it lets a study detect."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, parts_by_task, render
from ssl_transfer.study.statistics import detectable_differences, variance_components
from ssl_transfer.study.statistics.seed_variance import EFFECTS

TEMPLATE = """
{% macro variance_table(part, name) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ name }}"><table class="sortable">
<caption>{{ name }}</caption>
<thead><tr><th scope="col">Protocol</th><th scope="col" class="num">Labels</th>
{% if part.metrics | length > 1 %}<th scope="col">Metric</th>{% endif %}
<th scope="col" class="num">SD, pretraining seeds</th><th scope="col" class="num">SD, fine-tuning seeds</th>
<th scope="col">Share of pretraining</th><th scope="col" class="num">n × runs</th><th scope="col"
class="num">Detectable</th>
{% for effect in effects %}<th scope="col" class="num">n for {{ "%g" | format(effect) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr><td class="tight">{{ protocol(row) }}
{%- if row.noise != "none" %} ({{ row.noise }}, σ {{ "%g" | format(row.noise_sigma) }}){% endif %}</td>{{ labels(row) }}
{% if part.metrics | length > 1 %}<td>{{ row.metric | measure }}</td>{% endif %}
<td class="num" data-v="{{ row.sd_pretraining | rounded }}">{{ row.sd_pretraining | fine }}{{ "*" if row.method ==
"total" }}</td>
<td class="num" data-v="{{ row.sd_seed | rounded }}">{{ row.sd_seed | fine }}</td>
<td data-v="{{ row.share | rounded }}">{% if row.share == row.share -%}
<span class="bar short" aria-hidden="true"><span class="apart" style="width:{{ (100 * row.share) | rounded }}%">
</span></span>
<span class="tight">{{ "%.0f" | format(100 * row.share) }} %</span>{% else %}–{% endif %}</td>
<td class="num" data-v="{{ row.n }}">{{ row.n }}
{{- " × " ~ ("%.3g" | format(row.runs_per_unit)) if row.unit == "pretraining_seed" else " seeds, one checkpoint" }}</td>
{{- num(row.detects) }}
{% for effect in effects %}{% set needed = row["seeds_for_%g" % effect] -%}
<td class="num" data-v="{{ needed | rounded }}">{{ (needed | int | whole) if needed == needed else "–" }}</td>{%
endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<p class="quiet">Standard deviations between pretraining seeds, and between fine-tuning seeds of one pretraining, within
arms; and the share of pretraining seeds in the variance of a single run. n is the number of pretraining seeds per arm
(the smallest), × runs of each. “Detectable” is the true difference, in units of the metric, that a contrast of n
against n detects with 80 % power before correction; the last columns are the seeds per side needed to detect a
difference of {{ effects | join(" or ") }}. An asterisk: one run per pretraining seed, so that the value includes the
variance between fine-tuning seeds.</p>
{{ folded(parts, variance_table, "Seed variance") }}
"""


def section(evidence: Evidence) -> Section | None:
    """Variance components of every cell, on the page at main metrics; None without runs."""
    table = detectable_differences(variance_components(evidence.frame), evidence.results)
    if not len(table):
        return None
    html = render(evidence, TEMPLATE, parts=parts_by_task(evidence.at_main(table)), effects=EFFECTS)
    return Section(title="Seed variance", html=html, tables={"variance": table})
