"""Sections on the declared contrasts: the gate, and the primary contrasts with their looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ssl_transfer.study.report.decision_figures import monitoring
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Drawing, Section, render
from ssl_transfer.study.statistics import Decision

MONITORING = (
    "{which}, look by look: difference of means with its interval at the level of the look (if it finds equivalence, of two "
    "one-sided tests). Dashed: the boundary of each "
    "look, beyond which it decides that the sides differ (for looks to come, with the standard deviation so far). Filled: the "
    "look that decided; faint: looks after it, which change nothing.{band}"
)
BAND = " Grey band: the margin of equivalence."
TEMPLATE = """
<p class="quiet">{{ intro }}</p>
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}"><table class="sortable dense">
<caption>{{ title }}: the look that decided, or the latest</caption>
<thead><tr><th scope="col">A</th><th scope="col">B</th><th scope="col">Target and protocol</th><th scope="col">A is</th>
<th scope="col" class="num">Look</th><th scope="col" class="num">n</th><th scope="col" class="num">Level</th>
<th scope="col" class="num tight">Mean A</th><th scope="col" class="num tight">Mean B</th>
<th scope="col" class="num tight">A − B</th>
<th scope="col">Interval</th><th scope="col" class="num">t (df)</th><th scope="col" class="num">p</th>
<th scope="col" class="num">p, equivalence</th><th scope="col" class="num">Left out</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.a }}</td><td>{{ row.b }}</td><td>{{ row.setting }}</td><td class="is">{{ verdict(row) }}
{%- if row.reason %}<br><span class="quiet">{{ row.reason }}</span>{% endif %}</td>
{% if row.look is none %}<td class="num" data-v="0">–</td>{% for _ in range(10) %}<td class="num" data-v="nan">–</td>{% endfor %}
{% else %}
{% set look = row.look %}
<td class="num" data-v="{{ row.at }}">{{ row.at }} of {{ row.planned }}</td>
<td class="num" data-v="{{ look.n_a + look.n_b }}">{{ look.n_a if row.paired else look.n_a ~ " / " ~ look.n_b }}</td>
<td class="num" data-v="{{ look.decides_at | rounded }}">{{ look.decides_at | nominal }}</td>
{{- num(look.mean_a) }}{{ num(look.mean_b) }}
{{- num(look.difference, true) }}<td class="tight" data-v="{{ look.ci_low | rounded }}">{{ interval(look) }}</td>
<td class="num" data-v="{{ look.t | rounded }}">{{ look.t | t(look.df) }}</td>
<td class="num" data-v="{{ look.p_value | rounded }}">{{ look.p_value | p }}</td>
<td class="num" data-v="{{ look.p_tost | rounded }}">{{ look.p_tost | p }}</td>
<td class="num" data-v="{{ row.left_out }}">{{ row.left_out }}</td>
{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% if figures %}{{ drawn(figures) }}{% endif %}
"""
GATE_INTRO = (
    "Before anything else: is the pretraining better than random initialisation where it should help most? Unless it is, no "
    "primary contrast is claimed."
)


def gate(evidence: Evidence) -> Section | None:
    """The gate; None where the study has none."""
    return _section(evidence, "Gate", [each for each in evidence.decisions if each.family == "gate"], GATE_INTRO)


def primaries(evidence: Evidence) -> Section | None:
    """The primary contrasts; None where the study declares none."""
    decisions = [each for each in evidence.decisions if each.family != "gate"]
    return _section(evidence, "Primary contrasts", decisions, _intro(decisions))


def _intro(decisions: Sequence[Decision]) -> str:
    """How the primary contrasts are decided."""
    if not decisions:
        return ""
    looks = decisions[0].planned_looks
    several = (
        f", looked at with {', '.join(map(str, looks))} pretraining seeds with spent alpha" if len(looks) > 1 else ""
    )
    tests = "one test" if len(decisions) == 1 else f"{len(decisions)} tests by Holm’s rule"
    return (
        f"Declared before the results: {tests} at a familywise error of .05{several}. The unit is the pretraining seed; both "
        "sides are averaged within it over evaluation seeds, label fractions and targets, and compared in pairs where they "
        "share their random draws. The interval has the confidence 1 − level of its row: it excludes 0 if and only if the look "
        "decides that A and B differ. Where they are equivalent it has the confidence 1 − 2 · level of that test, and lies "
        "within the margin. “Left out”: runs without a counterpart on the other side."
    )


def _section(evidence: Evidence, title: str, decisions: Sequence[Decision], intro: str) -> Section | None:
    if not decisions:
        return None
    terms = evidence.terms
    name = "gate" if title == "Gate" else "primary"
    figure = monitoring(decisions, terms, evidence.looks)
    figures = [] if figure is None else [Drawing(f"monitoring_{name}", figure, _caption(evidence, title))]
    html = render(
        evidence, TEMPLATE, title=title, intro=intro, rows=[_row(evidence, each) for each in decisions], figures=figures
    )
    return Section(title=title, html=html, tables={f"{name}_looks": _looks(evidence, decisions)}, figures=figures)


def _caption(evidence: Evidence, title: str) -> str:
    return MONITORING.format(which=title, band=BAND if evidence.margin is not None else "")


def _row(evidence: Evidence, decision: Decision) -> dict[str, Any]:
    a, b = evidence.terms.sides(decision.contrast)
    return {
        "a": a,
        "b": b,
        "setting": evidence.terms.setting(decision.contrast),
        "verdict": decision.verdict,
        "holds_for": decision.holds_for,
        "reason": decision.reason,
        "look": decision.look,
        "at": (decision.at or 0) + 1,
        "planned": len(decision.planned_looks),
        "paired": decision.units.test == "paired",
        "left_out": decision.units.left_out,
    }


def _looks(evidence: Evidence, decisions: Sequence[Decision]) -> pd.DataFrame:
    """A row per contrast and look, for `tables/`."""
    rows = [
        {
            "a": decision.contrast.name_a,
            "b": decision.contrast.name_b,
            "setting": evidence.terms.setting(decision.contrast),
            "look": number + 1,
            **vars(look),
            "decided": decision.decided and number == decision.at,
        }
        for decision in decisions
        for number, look in enumerate(decision.looks)
    ]
    return pd.DataFrame(rows)
