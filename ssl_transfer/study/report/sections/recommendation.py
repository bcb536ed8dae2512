"""Section: which pretraining to take for which target."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.recommendations import FEW
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.wording import listed, words

TITLE = "Recommendation by target"
TEMPLATE = """
{% macro comparison(row, name) -%}
  {% if row %}
<td data-v="{{ row.difference | rounded }}">{% if name %}<span class="pair">{{ name }}</span>
{{ chip(row.other, row.boundary) if row.boundary != "scratch" and row.other not in random_init }}<br>
{% endif %}
<span class="verdict {{ row.verdict }}"
 title="{{ row.best }} is {{ row.verdict }} against {{ row.other }}{{ ", for " ~ row.holds_for if row.holds_for -}}
, at level {{ row.level | nominal }}">
{{- glyph(row.verdict) }} {{ row.difference | number(sign=true) }}</span>
<span class="quiet">{% if row.ci_low == row.ci_low %}({{ interval(row, false) }}), {{ corrected(row.p) }}
{%- else %}no test{% endif %}</span></td>
  {%- else %}
<td data-v="nan" class="quiet">–</td>
  {%- endif %}
{%- endmacro %}
{% macro taken(row) -%}
  {% if row.any %}
any <span class="bond">(all {{ row.arms }} are equivalent)</span>
  {%- elif not row.take %}
<span class="quiet">{{ "too few seeds to tell" if row.few_seeds else "not decided" }}</span>
  {%- elif row.all_but is not none %}
all but {{ row.all_but | listed }} <span class="bond">({{ row.bond }})</span>
  {%- elif row.take | length > few %}
<details><summary>{{ row.take | length }} of {{ row.arms }} arms
{% for arm in row.take %}{{ mark(arm) }}{% endfor %}<span class="bond">({{ row.bond }})</span></summary>
{% for arm in row.take %}<span class="arm">{{ mark(arm) }}{{ arm }}{{ "," if not loop.last }}</span> {% endfor %}</details>
  {%- else %}
{% for arm in row.take -%}
<span class="arm">{{ mark(arm) }}{{ "random initialisation" if arm in random_init and arm == "scratch" else arm }}
{{- "," if not loop.last }}</span> {% endfor %}{% if row.bond %}<span class="bond">({{ row.bond }})</span>{% endif %}
  {%- endif %}
  {% if row.checkpoint %} <span class="bond">(these weights)</span>{% endif %}
{%- endmacro %}
<p class="quiet">Secondary contrasts: one row per protocol and label fraction, at the target’s main metric. An arm is
recommended if no other is significantly better and at least one is significantly worse; several recommended arms may
differ by less than the study detects. Evidence: the recommended arm with the highest mean (of all arms, where none is
recommended) against the best arm of another boundary and against random initialisation: difference, interval at the level
that decides the row, and p corrected within {{ family }}. n, of the contrast with the fewest seeds: pairs of pretraining
seeds, or seeds of each side where they are not paired. “Detectable”: the true difference that the weakest contrast of the row
finds with 80 % power, at the level that decides it. “Too few seeds”: an open contrast
{{ "has an estimate above the margin" if margin else "may hide a difference of any size: no margin is stated" }}.</p>
{% for target in targets %}
<h3>{{ target.task | words }} <span class="quiet">by {{ target.metrics }}</span></h3>
<p class="sums">{{ target.sentence }}</p>
<div class="wide" role="region" tabindex="0" aria-label="Recommended for {{ target.task | words }}">
<table class="sortable guide">
<colgroup><col style="width:11%"><col style="width:6%"><col style="width:22%"><col style="width:10%"><col style="width:24%">
<col style="width:13%"><col style="width:6.5%"><col style="width:7.5%"></colgroup>
<thead><tr><th scope="col">Protocol</th><th scope="col" class="num">Labels</th><th scope="col">Recommended</th>
<th scope="col">Boundary</th><th scope="col">Versus best of another boundary</th><th scope="col">Versus random init</th>
<th scope="col" class="num">n</th><th scope="col" class="num">Detectable</th></tr></thead>
<tbody>
{% for row in target.rows %}
<tr><td>{{ protocol(row) }}
{%- if row.noise != "none" %}<br><span class="quiet">{{ row.noise }}, σ {{ "%g" | format(row.noise_sigma) }}</span>{%
endif %}
{% if target.several_metrics %}<br><span class="quiet">{{ row.metric | measure }}</span>{% endif %}</td>{{ labels(row) }}
<td class="take">{{ taken(row) }}</td><td>{% for boundary, count in row.boundaries -%}
<span class="tight">{{ chip("", boundary or "unknown") }}{{ " × " ~ count if count > 1 }}</span>{{ " " if not loop.last }}
{%- endfor %}</td>
{{ comparison(row.across, row.across and (row.across.name if row.take | length != 1 else "− " ~ row.across.other)) }}
{{ comparison(row.random_init, row.random_init and not row.random_init.alike and "− " ~ row.random_init.other) }}
<td class="num">{{ row.n }}</td>{{ num(row.detects) }}</tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
"""


def section(evidence: Evidence) -> Section | None:
    """A table for each target; None where no two pretrainings share a cell."""
    targets = evidence.recommendations
    if not targets:
        return None
    family = f"one {listed([words(name) for name in evidence.family])}" if evidence.family else "all contrasts"
    html = render(evidence, TEMPLATE, targets=targets, few=FEW, family=family, margin=evidence.margin is not None)
    return Section(title=TITLE, html=html)
