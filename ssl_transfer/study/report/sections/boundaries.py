"""Section: in-domain against cross-domain pretraining, counted over all contrasts."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.statistics import by_boundary

TITLE = "In-domain versus cross-domain"
TEMPLATE = """
{% macro bar(kind, count, n) -%}
<span class="{{ kind }}" style="width:{{ (100 * count / n) | rounded }}%"></span>
{%- endmacro %}
<p class="quiet">All contrasts at main metrics ({{ metrics | map("measure") | list | listed }}), by the boundary
between each side’s source domain and the target. Differences are positive where the nearer side is better
{{- "; their median mixes metrics" if metrics | length > 1 }}. Within one boundary, and where one is unknown,
neither side is nearer: shown are the number of significant
differences and the median absolute difference. Contrasts share runs and are not independent: these counts are
descriptive, not a test.</p>
<div class="wide" role="region" tabindex="0" aria-label="Contrasts counted by boundary"><table>
<caption>Contrasts by the boundaries of both sides, the nearer one first</caption>
<thead><tr><th scope="col">Nearer</th><th scope="col">Farther</th><th scope="col" class="num">Contrasts</th>
<th scope="col"><span class="tight">Share</span></th><th scope="col" class="num">
<span class="key better"></span>Nearer better</th>
<th scope="col" class="num"><span class="key worse"></span>Nearer worse</th>
<th scope="col" class="num"><span class="key equivalent"></span>Equivalent</th>
<th scope="col" class="num"><span class="key"></span>Not decided</th>
<th scope="col" class="num">Median difference</th></tr></thead>
<tbody>
{% for row in rows %}
{% set decided = row.better + row.worse %}
<tr><td>{{ chip("", row.near) }}</td><td>{{ chip("", row.far) }}</td><td class="num">{{ row.n | whole }}</td>
<td><div class="bar" aria-hidden="true">
{%- if row.within %}{{ bar("apart", decided, row.n) }}
{%- else %}{{ bar("better", row.better, row.n) }}{{ bar("worse", row.worse, row.n) }}{% endif %}
{{- bar("equivalent", row.equivalent, row.n) }}</div></td>
{% if row.within %}<td class="num" colspan="2"><span class="key apart"></span>{{ decided | whole }} different</td>
{% else %}<td class="num">{{ row.better | whole }}</td><td class="num">{{ row.worse | whole }}</td>{% endif %}
<td class="num">{{ row.equivalent | whole }}</td><td class="num">{{ row.undecided | whole }}</td>
<td class="num">{{ ("± " ~ (row.median | number)) if row.within else row.median | number(sign=true) }}</td></tr>
{% endfor %}
</tbody></table></div>
"""


def section(evidence: Evidence) -> Section | None:
    """Counts for every pair of boundaries; None without contrasts."""
    pairs = evidence.main_contrasts
    if not len(pairs):
        return None
    html = render(evidence, TEMPLATE, rows=by_boundary(pairs), metrics=dict.fromkeys(pairs["metric"]))
    return Section(title=TITLE, html=html)
