"""Section: differences between pretrainings with their intervals (forest plot)."""

from __future__ import annotations

from ssl_transfer.study.report.drawings import by_target, drawing, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.figures import effects
from ssl_transfer.study.report.section import Section, render

MOST_LINES = 90  # of a metric: beyond, only those contrasts that the recommendations show as evidence
CAPTION = (
    "Differences in {metric}, with intervals at the level that decides each of them (corrected for multiple tests; of an "
    "equivalence, the interval of two one-sided tests). Filled, in "
    "the colour of the better arm: significant. Hollow: not decided, or equivalent."
)
EVIDENCE_ONLY = " Only the contrasts shown under “Recommendation by target”."


def section(evidence: Evidence) -> Section:
    """A figure per main metric, a line per contrast."""
    figures = []
    for metric, _, _, noise in runs_by_metric(evidence):
        pairs = evidence.main_contrasts[evidence.main_contrasts["metric"] == metric]
        many = len(pairs) > MOST_LINES
        if many:
            pairs = pairs.loc[[row for row in _shown(evidence) if row in pairs.index]]
        for portion in by_target(pairs, many):
            figure = effects(portion.rows, evidence.looks)
            caption = CAPTION + EVIDENCE_ONLY * many + noise
            figures.append(drawing(evidence, "effects", metric, portion, figure, caption))
    return Section(
        title="Effect estimates", html=render(evidence, "{{ drawn(figures) }}", figures=figures), figures=figures
    )


def _shown(evidence: Evidence) -> list:
    """Index of the contrasts that the recommendations show."""
    rows = [row for target in evidence.recommendations for row in target["rows"]]
    return [row[side]["row"] for row in rows for side in ("across", "random_init") if row[side]]
