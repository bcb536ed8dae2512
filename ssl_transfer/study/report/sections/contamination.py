"""Section: test cases that were seen in pretraining, and the score on the others beside the score on all."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.primary import at_main, at_primary_noise
from ssl_transfer.study.report.section import Section, render

TITLE = "Test cases seen in pretraining"
TEMPLATE = """
<p class="quiet">A test case was seen if a training image of any stage of the pretraining has the same patient (keyed hash), the
same pixels (digest), or is a near-duplicate of it (fingerprint: another size, window, orientation or file format). Images behind
public weights are unknown. {{ sentence }} Counts are the largest of any run of an arm; scores are means over its runs.</p>
<div class="wide" role="region" tabindex="0" aria-label="Test cases seen in pretraining">
<table class="sortable">
<caption>Test cases by target and pretraining</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Pretraining</th><th scope="col">Any image of the target seen</th>
<th scope="col" class="num">Test cases</th><th scope="col" class="num">Seen</th><th scope="col" class="num">Patient</th>
<th scope="col" class="num">Pixels</th><th scope="col" class="num">Near-duplicate</th>
<th scope="col" class="num">Unknown</th></tr></thead>
<tbody>
{% for row in known %}
<tr><td>{{ row.task | words }}</td><td>{{ swatch(row.pretraining) }}</td><td>{{ row.statement }}</td>
{%- for name in counts %}<td class="num" data-v="{{ row[name] }}">{{ row[name] | whole }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% if scores %}
<div class="wide" role="region" tabindex="0" aria-label="Scores without the seen test cases">
<table class="sortable">
<caption>Scores on all test cases, and on those that are not known to be seen</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Protocol</th><th scope="col" class="num">Labels</th>
<th scope="col">Pretraining</th><th scope="col">Metric</th><th scope="col" class="num">All</th>
<th scope="col" class="num">Not seen</th><th scope="col" class="num">Runs</th></tr></thead>
<tbody>
{% for row in scores %}
<tr><td>{{ row.task | words }}</td><td>{{ protocol(row) }}</td>{{ labels(row) }}<td>{{ swatch(row.pretraining) }}</td>
<td>{{ row.metric | measure }}</td>{{ num(row.value) }}{{ num(row.value_clean) }}
<td class="num" data-v="{{ row.runs }}">{{ row.runs }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""
CELL = ["task", "protocol", "strategy", "fraction", "pretraining", "metric"]


def section(evidence: Evidence) -> Section | None:
    """What is known of the test cases; None for results of other programs."""
    known = evidence.contamination
    if known is None:
        return None
    scores, seen = _scores(evidence), int((known["seen"] > 0).sum())
    sentence = (
        f"Of {len(known)} pairs of target and pretraining, {seen} {'has' if seen == 1 else 'have'} test cases that were seen."
        if seen
        else "No test case is known to be seen."
    )
    html = render(
        evidence,
        TEMPLATE,
        known=known.to_dict("records"),
        counts=list(known.columns[3:]),
        scores=scores.to_dict("records"),
        sentence=sentence,
    )
    return Section(title=TITLE, html=html, tables={"contamination": known, "scores_not_seen": scores})


def _scores(evidence: Evidence) -> pd.DataFrame:
    """Means of main metrics on all test cases, and on those not seen, over all runs of an arm of which one has seen some."""
    runs = evidence.runs.reindex(columns=[*evidence.runs.columns.union(["seen_cases", "value_clean"], sort=False)])
    runs = runs[runs["value_clean"].notna()]
    most = runs.groupby(CELL, dropna=False)["seen_cases"].transform("max")
    runs = runs[(most > 0).fillna(False).astype(bool)]
    if len(runs):
        kept, _ = at_primary_noise(runs, evidence.primaries[0])
        runs = at_main(kept, evidence.main_metrics)
    cells = runs.groupby(CELL, dropna=False, sort=False)
    return cells.agg(value=("value", "mean"), value_clean=("value_clean", "mean"), runs=("value", "size")).reset_index()
