"""Section: variance components, and the differences that they let a study detect."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, parts_by_task, render
from ssl_transfer.study.statistics import detectable_differences, variance_components
from ssl_transfer.study.statistics.seed_variance import EFFECTS

TITLE = "Variance components"
TEMPLATE = """
{% macro sd(value) -%}
<td class="num" data-v="{{ value | rounded }}">{{ value | fine }}</td>
{%- endmacro %}
{% macro variance_table(part, name) %}
<div class="wide" role="region" tabindex="0" aria-label="{{ name }}"><table class="sortable">
<caption>{{ name }}</caption>
<thead><tr><th scope="col">Protocol</th><th scope="col" class="num">Labels</th>
{% if part.metrics | length > 1 %}<th scope="col">Metric</th>{% endif %}
<th scope="col" class="num">Pretraining</th><th scope="col" class="num">Subset</th>
<th scope="col" class="num">Arm × subset</th><th scope="col" class="num">Residual</th>
<th scope="col" class="num">n × runs</th><th scope="col" class="num">SD of a difference</th>
<th scope="col">Of it pretraining</th><th scope="col" class="num">Level</th><th scope="col" class="num">Detectable</th>
{% for effect in effects %}<th scope="col" class="num">n for {{ "%g" | format(effect) }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in part.rows %}
<tr><td class="tight">{{ protocol(row) }}
{%- if row.noise != "none" %} ({{ row.noise }}, σ {{ "%g" | format(row.noise_sigma) }}){% endif %}</td>{{ labels(row) }}
{% if part.metrics | length > 1 %}<td>{{ row.metric | measure }}</td>{% endif %}
{{ sd(row.sd_pretraining) }}{{ sd(row.sd_subset) }}{{ sd(row.sd_arm_subset) }}{{ sd(row.sd_residual) }}
<td class="num" data-v="{{ row.n }}">{{ row.n }}
{{- " × " ~ ("%.3g" | format(row.runs_per_unit)) if row.unit == "pretraining_seed" else " seeds, one checkpoint" }}</td>
{{ sd(row.sd_difference) }}
<td data-v="{{ row.share_pretraining | rounded }}">{% if row.share_pretraining == row.share_pretraining -%}
<span class="bar short" aria-hidden="true">
<span class="apart" style="width:{{ (100 * row.share_pretraining) | rounded }}%"></span></span>
<span class="tight">{{ "%.0f" | format(100 * row.share_pretraining) }} %</span>{% else %}–{% endif %}</td>
<td class="num" data-v="{{ row.level | rounded }}">{{ row.level | nominal }}</td>
{{- num(row.detects) }}
{% for effect in effects %}{% set needed = row["seeds_for_%g" % effect] -%}
<td class="num" data-v="{{ needed | rounded }}">{{ (needed | int | whole) if needed == needed else "–" }}</td>{%
endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<p class="quiet">The first four columns are standard deviations: between pretraining seeds of one arm; between label subsets,
which are the same for all arms; between label subsets where they suit one arm more than another; and of everything else
(head, order of images). A dash: this design cannot separate the component; the column “method” of tables/variance.csv says
which other one includes it.</p>
<p class="quiet">A difference of two arms is averaged over the runs of a pretraining seed (n pretraining seeds, × runs of each).
Subsets cancel in it, and more runs reduce all but the share of pretraining: where this share is high buy pretraining seeds,
where it is low buy runs. “Detectable” is the true difference, in units of the metric, that n seeds per arm detect with 80 %
power at the level that decides; the last columns are the pretraining seeds per arm that detect a difference of
{{ effects | join(" or ") }}, with as many runs of each.</p>
{{ folded(parts, variance_table, title) }}
"""


def section(evidence: Evidence) -> Section | None:
    """Variance components of every cell, on the page at main metrics; None without runs."""
    variance = variance_components(evidence.frame)
    table = detectable_differences(variance, evidence.results, evidence.contrasts)
    if not len(table):
        return None
    html = render(evidence, TEMPLATE, parts=parts_by_task(evidence.at_main(table)), effects=EFFECTS, title=TITLE)
    return Section(title=TITLE, html=html, tables={"variance": table})
