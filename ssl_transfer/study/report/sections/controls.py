"""Section: controls of the study: trivial features, arms against themselves, and permuted labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.wording import joined, listed, measure, noisy, number, p_value, percent, words

TITLE = "Controls"
TEMPLATE = """
{% if trivial %}
<h3>Trivial features</h3>
<p class="quiet">Corner means, percentiles, histogram and an 8 × 8 thumbnail of the image, evaluated by the same linear probe at
the same draws. A target on which they are as good as the best arm, or within the margin of it, is solved without any
network, or is learnt by none; it says nothing about pretrainings. Difference: best arm − trivial features, with the 95 %
interval over the draws that both have (public weights share none: Welch’s interval over the units of each); the arm was chosen
as the best, which the interval ignores. In no family of tests.</p>
<div class="wide" role="region" tabindex="0" aria-label="Trivial features">
<table class="sortable">
<caption>Trivial features and the best arm</caption>
<thead><tr><th scope="col">Target</th><th scope="col" class="num">Labels</th><th scope="col">Metric</th>
<th scope="col" class="num">Trivial</th><th scope="col">Best arm</th><th scope="col" class="num">Its mean</th>
<th scope="col" class="num">Difference</th><th scope="col">95 % interval</th><th scope="col" class="num">n</th>
<th scope="col" class="num">Margin</th><th scope="col">As good</th></tr></thead>
<tbody>
{% for row in trivial %}
<tr><td>{{ row.task | words }}{{ ", " ~ row.noisy if row.noisy }}</td>{{ labels(row) }}<td>{{ row.metric | measure }}</td>
{{- num(row.trivial) }}<td>{{ swatch(row.best) }}</td>{{ num(row.mean) }}{{ num(row.difference, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.n }}">{{ row.n }}</td>
{{- num(row.margin) }}<td>{{ "as good as the best arm" if row.solved else "no" }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if aa %}
<h3>A/A contrasts</h3>
<p class="quiet">One half of the seeds of each arm against the other half, in the settings of the primary contrasts: Welch’s
t-test, Holm’s correction over these rows. The halves must not differ; with enough seeds they are equivalent within the margin.
{{ counts }}</p>
<div class="wide" role="region" tabindex="0" aria-label="A/A contrasts">
<table class="sortable">
<caption>Halves of the seeds of one arm</caption>
<thead><tr><th scope="col">Arm</th><th scope="col">Target</th><th scope="col">Protocol</th><th scope="col" class="num">Labels</th>
<th scope="col" class="num">n</th><th scope="col" class="num">Difference</th><th scope="col">95 % interval</th>
<th scope="col" class="num">p, Holm</th><th scope="col" class="num">p, equivalence</th>
<th scope="col">The halves are</th></tr></thead>
<tbody>
{% for row in aa %}
<tr><td>{{ swatch(row.pretraining) }}</td><td>{{ row.task | words }}</td><td>{{ protocol(row) }}</td>{{ labels(row) }}
<td class="num" data-v="{{ row.n_a + row.n_b }}">{{ row.n_a }} / {{ row.n_b }}</td>{{ num(row.difference, true) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row) }}</td>
<td class="num" data-v="{{ row.p_holm | rounded }}">{{ row.p_holm | p }}</td>
<td class="num" data-v="{{ row.p_tost | rounded }}">{{ row.p_tost | p }}</td><td>{{ row.verdict }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if permutations %}
<h3>Permuted labels</h3>
<p class="quiet">The linear probe fitted to, and selected by, labels that were permuted between patients, and evaluated on test
with its true labels. The metric must be at chance, else something leaks from test into training. Intervals hold for all rows
together (level .05 divided by their number).</p>
<div class="wide" role="region" tabindex="0" aria-label="Permuted labels">
<table class="sortable">
<caption>Linear probes of permuted labels</caption>
<thead><tr><th scope="col">Target</th><th scope="col">Arm</th><th scope="col" class="num">Labels</th>
<th scope="col" class="num">Runs</th><th scope="col">Metric</th><th scope="col" class="num">Mean</th>
<th scope="col" class="num">Chance</th><th scope="col">Interval</th>
<th scope="col">Is</th></tr></thead>
<tbody>
{% for row in permutations %}
<tr><td>{{ row.task | words }}</td><td>{{ swatch(row.pretraining) }}</td>{{ labels(row) }}
<td class="num" data-v="{{ row.n }}">{{ row.n }}</td><td>{{ row.metric | words }}</td>{{ num(row.mean) }}
{{- num(row.chance) }}
<td class="tight" data-v="{{ row.ci_low | rounded }}">{{ interval(row, false) }}</td><td>{{ row.verdict }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""


def section(evidence: Evidence) -> Section | None:
    """The controls that the study has; None without any."""
    trivial, aa, permutations = evidence.against_trivial, evidence.aa_contrasts, evidence.permutations
    tables = {"trivial_features": trivial, "aa_contrasts": aa, "label_permutation": permutations}
    if not any(map(len, tables.values())):
        return None
    rows = [{**row, "noisy": noisy(row["noise"], row["noise_sigma"])} for row in trivial.to_dict("records")]
    values = {"aa": aa.to_dict("records"), "permutations": permutations.to_dict("records"), "counts": _counts(aa)}
    return Section(
        title=TITLE,
        html=render(evidence, TEMPLATE, trivial=rows, **values),
        tables={name: table for name, table in tables.items() if len(table)},
    )


def _counts(aa: pd.DataFrame) -> str:
    """How the A/A contrasts came out: `Of 6, 0 are different, 4 equivalent.`"""
    verdicts = aa["verdict"].value_counts()
    return f"Of {len(aa)}, {verdicts.get('different', 0)} are different, {verdicts.get('equivalent', 0)} equivalent."


def warnings(evidence: Evidence) -> list[str]:
    """Sentences for the top of the page: targets that trivial features solve, arms that differ from themselves, and leaks."""
    aa, permutations = evidence.aa_contrasts, evidence.permutations
    differ = aa[aa["verdict"] == "different"]
    above = permutations[permutations["verdict"] == "above chance"]
    return [
        *_solved(evidence.against_trivial),
        *(
            f"A/A contrast: two halves of the seeds of {row['pretraining']} differ on {words(row['task'])} "
            f"({number(row['difference'], True)}, corrected p {p_value(row['p_holm'])}): by chance, as in one of 20 studies, "
            "or because something besides the seed differs among its runs."
            for row in differ.to_dict("records")
        ),
        *(
            f"A probe of permuted labels is above chance on {words(row['task'])}: {words(row['metric'])} {number(row['mean'])} "
            f"[{number(row['ci_low'])}, {number(row['ci_high'])}]. Look for a leak from test into training."
            for row in above.to_dict("records")
        ),
    ]


def _solved(trivial: pd.DataFrame) -> Iterator[str]:
    solved = trivial[trivial["solved"].astype(bool)]
    for (task, metric), rows in solved.groupby(["task", "metric"], sort=False):
        cells = [_cell(row) for row in rows.to_dict("records")]
        yield (
            f"On {words(task)}, trivial features are as good as the best arm ({measure(metric)}; within "
            f"{number(rows['margin'].iloc[0])}): {'; '.join(cells)}. There, this target does not tell pretrainings apart."
        )


def _cell(row: dict[str, Any]) -> str:
    """Where, and both means: `1 %: trivial features 0.998, CT 0.999`."""
    where = joined(percent(row["fraction"]), noisy(row["noise"], row["noise_sigma"]))
    values = listed([f"trivial features {number(row['trivial'])}", f"{row['best']} {number(row['mean'])}"])
    return f"{where}: {values}" if where else values
