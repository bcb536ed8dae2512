"""Section: claims of the literature that the declared contrasts test, each with the published effect beside ours."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.open_questions import would_decide
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.wording import units_used
from ssl_transfer.study.statistics import ALPHA, Decision
from ssl_transfer.study.statistics.verdicts import UNDECIDED, WITHIN_MARGIN, replication

TITLE = "Published claims"
TEMPLATE = """
<p class="quiet">What each claim expects was declared before the results. Replicated: A is as expected. Equivalent: A and B differ
by less than the margin, where a difference was claimed. Contrary: A is decided, and not as expected. Undecided: neither; the last
column says what would decide it. Intervals are at the level of the verdict.</p>
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}"><table class="sortable dense">
<caption>Claims of the literature, and what this study finds</caption>
<thead><tr><th scope="col">Claim</th><th scope="col">Published</th><th scope="col">A</th><th scope="col">B</th>
<th scope="col">Target and protocol</th><th scope="col">A is expected</th><th scope="col" class="num tight">A − B</th>
<th scope="col">Interval</th><th scope="col" class="num">Level</th><th scope="col" class="num">p, corrected</th>
<th scope="col">n</th><th scope="col">The claim is</th><th scope="col">What would decide</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.claim }}</td><td>{{ row.published or "–" }}</td><td>{{ row.a }}</td><td>{{ row.b }}</td>
<td>{{ row.setting }}</td>
<td>{{ row.expected }}</td>{{ num(row.difference, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.level | rounded }}">{{ row.level | nominal }}</td>
<td class="num" data-v="{{ row.p_corrected | rounded }}">{{ row.p_corrected | p }}</td>
<td>{{ row.n }}</td><td class="is">{{ row.outcome }}</td><td>{{ row.would_decide or "–" }}</td></tr>
{% endfor %}
</tbody></table></div>
"""


def section(evidence: Evidence) -> Section | None:
    """A row per declared contrast that tests a claim; None without any."""
    rows = [_row(evidence, each) for each in evidence.decisions if each.contrast.claim]
    if not rows:
        return None
    html = render(evidence, TEMPLATE, title=TITLE, rows=rows)
    return Section(title=TITLE, html=html, tables={"claims": pd.DataFrame(rows)})


def _row(evidence: Evidence, decision: Decision) -> dict[str, Any]:
    contrast, look, nan = decision.contrast, decision.look, float("nan")
    a, b = evidence.terms.sides(contrast)
    outcome = replication(decision.verdict, contrast.expect or "")
    return {
        "claim": contrast.claim,
        "published": contrast.published,
        "a": a,
        "b": b,
        "setting": evidence.terms.setting(contrast),
        "expected": contrast.expect,
        "difference": look.difference if look else nan,
        "ci_low": look.ci_low if look else nan,
        "ci_high": look.ci_high if look else nan,
        "level": look.decides_at if look else nan,
        "p_corrected": _corrected(decision),
        "n": units_used(look.n_a, look.n_b, decision.units.test) if look else "",
        "verdict": decision.verdict,
        "outcome": outcome,
        "would_decide": would_decide(decision, evidence.terms) if outcome == UNDECIDED else "",
    }


def _corrected(decision: Decision) -> float:
    """The p-value behind the verdict, that of equivalence where A is equivalent, times .05 / level: .05 decides."""
    look = decision.look
    if look is None:
        return float("nan")
    p, level = (look.p_tost, look.level_tost) if decision.verdict in WITHIN_MARGIN else (look.p_value, look.level)
    return min(1.0, p * ALPHA / level) if math.isfinite(p) else float("nan")  # NaN: no test is possible
