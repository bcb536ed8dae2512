"""Sections on how the results were made: pictures, study design, cost, environment, methods text and commands."""

from __future__ import annotations

import base64
from pathlib import Path

import pandas as pd

from ssl_transfer.cost import Cost
from ssl_transfer.errors import UsageError
from ssl_transfer.study.report.evidence import Attachment, Evidence
from ssl_transfer.study.report.section import Section, render

IMAGE_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
PICTURES = """
{% for picture in pictures %}
<h3>{{ picture.title }}</h3>
<figure><img src="{{ picture.uri }}" alt="{{ picture.title }}"><figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}
"""
DESIGN = """
{% if arms %}
<div class="wide" role="region" tabindex="0" aria-label="Pretrainings"><table class="sortable">
<caption>Pretrainings compared; FLOPs and minutes of one, with those that it starts from</caption>
<thead><tr><th scope="col">Pretraining</th><th scope="col">Source domain</th><th scope="col">Boundary</th>
<th scope="col" class="num">Seeds</th>
<th scope="col" class="num">Images</th><th scope="col" class="num">Steps</th><th scope="col" class="num">FLOPs</th>
<th scope="col" class="num">Minutes</th><th scope="col">Note</th></tr></thead>
<tbody>
{% for arm in arms %}
<tr><td>{{ swatch(arm.name) }}</td><td>{{ arm.domain or "–" }}</td><td>{{ chip(arm.name, arm.boundary) }}</td>
<td class="num" data-v="{{ arm.seeds }}">{{ arm.seeds | default(none) | whole }}</td>
<td class="num" data-v="{{ arm.images }}">{{ arm.images | default(none) | whole }}</td>
<td class="num" data-v="{{ arm.steps }}">{{ arm.steps | default(none) | whole }}</td>
<td class="num" data-v="{{ arm.flops | default(none) | rounded }}">{{ arm.flops | default(none) | powers }}</td>
{{- num(arm.minutes | default(none)) }}<td>{{ arm.note or "" }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
<dl>{% for heading, text in design.items() %}<dt>{{ heading }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
<h3 id="missing">Missing results</h3>
{% if missing %}
<ul>{% for line in missing[:30] %}<li>{{ line }}</li>{% endfor %}</ul>
{% if missing | length > 30 %}
<details><summary>{{ (missing | length - 30) | whole }} more</summary>
<ul>{% for line in missing[30:] %}<li>{{ line }}</li>{% endfor %}</ul></details>
{% endif %}
{% else %}
<p>None: all planned runs are in this report.</p>
{% endif %}
"""
TUNING = """
<p class="quiet">Settings that were tried on validation, as many for every arm, at the first evaluation seed of each pretraining
seed; the best was used for all its evaluation seeds. Trials never read test. All are in <code>tables/tuning.csv</code>.</p>
<div class="wide" role="region" tabindex="0" aria-label="Tuning"><table class="sortable">
<caption>Mean of the metric on validation, and how often a setting was selected</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Protocol</th><th scope="col" class="num">Labels</th>
<th scope="col">Pretraining</th><th scope="col">Settings</th><th scope="col">Metric</th>
<th scope="col" class="num">Validation</th><th scope="col" class="num">Selected</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.task | words }}</td><td>{{ protocol(row) }}</td>{{ labels(row) }}<td>{{ swatch(row.pretraining) }}</td>
<td>{{ row.settings }}</td><td>{{ row.metric | measure }}</td>{{ num(row.value) }}
<td class="num" data-v="{{ row.selected }}">{{ row.selected }} of {{ row.n }}</td></tr>
{% endfor %}
</tbody></table></div>
"""
COST = """
{% macro work(cost) %}
<td class="num" data-v="{{ cost.images }}">{{ cost.images | whole }}</td>
<td class="num" data-v="{{ cost.steps }}">{{ cost.steps | whole }}</td>
<td class="num" data-v="{{ cost.flops | rounded }}">{{ cost.flops | powers }}</td>
<td class="num" data-v="{{ cost.gpu_hours | rounded }}">{{ "%.3g" | format(cost.gpu_hours) }}</td>
<td class="num" data-v="{{ cost.seconds | rounded }}">{{ cost.seconds | duration }}</td>
{%- endmacro %}
<div class="wide"><table class="sortable narrow">
<caption>Cost by stage, summed over jobs</caption>
<thead><tr><th scope="col">Stage</th><th scope="col" class="num">Images</th><th scope="col" class="num">Steps</th>
<th scope="col" class="num">FLOPs</th><th scope="col" class="num">GPU-hours</th><th scope="col" class="num">Time</th>
<th scope="col" class="num">Share</th>
{% if decided %}<th scope="col" class="num">Per decided primary contrast</th>{% endif %}</tr></thead>
<tbody>{% for stage, cost in stages -%}
{% set seconds = cost.seconds %}
<tr><td>{{ stage | words }}</td>{{ work(cost) }}
<td class="num" data-v="{{ seconds | rounded }}">{{ "%.0f" | format(100 * seconds / total.seconds) if total.seconds }} %</td>
{% if decided %}<td class="num" data-v="{{ seconds | rounded }}">{{ (seconds / decided) | duration }}</td>{% endif %}</tr>
{% endfor %}</tbody>
<tfoot><tr><td>Total</td>{{ work(total) }}<td></td>
{% if decided %}<td class="num">{{ (total.seconds / decided) | duration }}</td>{% endif %}</tr></tfoot>
</table></div>
<p class="quiet">FLOPs: floating-point operations of matrix products and convolutions, a multiplication and an addition being
two, of the forward and backward passes of training steps and the forward passes of features, counted in one step or batch;
without normalisation, element-wise operations, optimisers, views, and passes over validation and test.</p>
{% if primaries %}
<p class="quiet">{{ decided }} of {{ primaries }} primary contrasts {{ "is" if decided == 1 else "are" }} decided
{{- ", at %.3g minutes each" | format(total.seconds / 60 / decided) if decided }}.</p>
{% endif %}
"""
ENVIRONMENT = """
<dl>{% for name, value in environment.items() %}<dt>{{ name }}</dt><dd>{% if value is mapping -%}
{% for key, inner in value.items() %}{{ key }} {{ inner }}{{ ", " if not loop.last }}{% endfor %}
{%- else %}{{ value }}{% endif %}</dd>{% endfor %}</dl>
"""
METHODS = """<pre class="paste" tabindex="0">{{ text }}</pre>"""
COMMANDS = """<pre tabindex="0"><code>{{ commands | join("\n") }}</code></pre>"""


def pictures(evidence: Evidence) -> Section | None:
    """Attachments, embedded.

    Raises:
        UsageError: If one is missing or is neither PNG nor SVG.
    """
    embedded = [_embedded(attachment) for attachment in evidence.provenance.attachments]
    return Section(title="Pictures", html=render(evidence, PICTURES, pictures=embedded)) if embedded else None


def _embedded(attachment: Attachment) -> dict[str, str]:
    path = Path(attachment.path)
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: a report attaches PNG and SVG files, not '{path.suffix}'. Save it as one of them.")
    if not path.is_file():
        raise UsageError(f"{path}: no such file to attach to the report. Make it first, or leave it out.")
    data = base64.b64encode(path.read_bytes()).decode()
    return {"title": attachment.title, "caption": attachment.caption, "uri": f"data:{kind};base64,{data}"}


def design(evidence: Evidence) -> Section:
    """What was run, and what is missing."""
    made = evidence.provenance
    html = render(evidence, DESIGN, arms=evidence.arms, design=made.design, missing=made.missing)
    tables = {"arms": pd.DataFrame(evidence.arms)} if evidence.arms else {}
    return Section(title="Study design", html=html, tables=tables)


def tuning(evidence: Evidence) -> Section | None:
    """Settings that were tried on validation; None if none were."""
    trials = evidence.provenance.tuning
    if trials is None:
        return None
    cell = ["task", "protocol", "strategy", "fraction", "pretraining", "settings", "metric"]
    of_cells = trials.fillna({"strategy": ""}).groupby(cell, sort=False)
    rows = of_cells.agg(value=("value", "mean"), selected=("selected", "sum"), n=("selected", "size")).reset_index()
    html = render(evidence, TUNING, rows=rows.to_dict("records"))
    return Section(title="Tuning", html=html, tables={"tuning": trials})


def cost(evidence: Evidence) -> Section:
    """Images, steps, FLOPs, GPU-hours and wall time by stage, and time per decided primary contrast."""
    stages = evidence.provenance.cost
    primaries = [each for each in evidence.decisions if each.family != "gate"]
    html = render(
        evidence,
        COST,
        stages=stages,
        total=sum((cost for _, cost in stages), Cost()),
        primaries=len(primaries),
        decided=sum(each.decided for each in primaries),
    )
    rows = [{"stage": stage, **vars(cost)} for stage, cost in stages]
    table = pd.DataFrame(rows, columns=["stage", *vars(Cost())])  # a table without rows has columns, too
    return Section(title="Cost", html=html, tables={"cost": table})


def environment(evidence: Evidence) -> Section:
    """Versions and devices."""
    html = render(evidence, ENVIRONMENT, environment=evidence.provenance.environment)
    return Section(title="Environment", html=html)


def methods(evidence: Evidence) -> Section:
    """A methods text for a paper."""
    text = evidence.provenance.methods_text.strip()
    return Section(title="Methods text", html=render(evidence, METHODS, text=text))


def commands(evidence: Evidence) -> Section:
    """Commands that make the report again."""
    html = render(evidence, COMMANDS, commands=evidence.provenance.commands)
    return Section(title="Commands", html=html)
