"""Section: images and patients of each split, by target and label fraction."""

from __future__ import annotations

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render

TITLE = "Images and patients"
TEMPLATE = """
<p class="quiet">What every run learns from, selects on, and is tested on. All labels of validation are used for selection, at any
label fraction: with few labels they are more than those that are learnt from. Ranges are over draws.</p>
<div class="wide" role="region" tabindex="0" aria-label="{{ title }}"><table class="sortable">
<caption>Images (patients) by target and label fraction</caption>
<thead><tr><th scope="col">Target</th><th scope="col" class="num">Labels</th><th scope="col">Learnt from</th>
<th scope="col">Selected on</th><th scope="col">Tested on</th></tr></thead>
<tbody>
{% for row in rows %}
<tr><td>{{ row.task | words }}</td>{{ labels(row) }}
{%- for split in ("train", "val", "test") %}<td>{{ row[split ~ "_images"] }}
{%- if row[split ~ "_patients"] %} ({{ row[split ~ "_patients"] }}){% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""


def section(evidence: Evidence) -> Section | None:
    """A row per target and label fraction; None for results of other programs."""
    if evidence.flow is None:
        return None
    html = render(evidence, TEMPLATE, title=TITLE, rows=evidence.flow.to_dict("records"))
    return Section(title=TITLE, html=html, tables={"flow": evidence.flow})
