"""Section: external tests, the score on other stores beside that of the task's own test."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.statistics import external_gaps

TITLE = "External tests"
TEMPLATE = """
<p class="quiet">Every run was trained and selected on the target's own store, and tested once on its own test patients and on
each external store, whose patients and images are others. Gap: external − own, of the classes that both stores have, paired
within a run; its 95 % t-interval is over the seeds. Both means and the gap are of the runs in which the metric is defined on
both tests. In no family of tests. Intervals over test patients are in the result of each run.</p>
<div class="wide" role="region" tabindex="0" aria-label="External tests">
<table class="sortable">
<caption>Scores on external stores</caption>
<thead><tr><th scope="col">Target</th><th scope="col">External store</th><th scope="col">Protocol</th>
<th scope="col" class="num">Labels</th><th scope="col">Pretraining</th><th scope="col">Metric</th>
<th scope="col" class="num">Own test</th><th scope="col" class="num">External</th><th scope="col" class="num">Gap</th>
<th scope="col">95 % interval</th><th scope="col" class="num">Runs</th><th scope="col" class="num">n</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.task | words }}</td><td>{{ row.store }}</td><td>{{ protocol(row) }}</td>{{ labels(row) }}
<td>{{ swatch(row.pretraining) }}</td><td>{{ row.metric | measure }}</td>{{ num(row.own) }}{{ num(row.external) }}
{{- num(row.gap, true) }}<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.runs }}">{{ row.runs }} of {{ row.runs + row.undefined }}</td>
<td class="num" data-v="{{ row.n }}">{{ row.n }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if notes %}<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
"""


def section(evidence: Evidence) -> Section | None:
    """Main metrics on external stores; None without external tests. `tables/external_tests.csv` has all metrics."""
    if evidence.external is None:
        return None
    gaps = external_gaps(evidence.external)
    rows = evidence.at_main(gaps).to_dict("records")
    html = render(evidence, TEMPLATE, rows=rows, notes=evidence.external_notes)
    return Section(title=TITLE, html=html, tables={"external_tests": gaps})
