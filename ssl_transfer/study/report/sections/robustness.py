"""Section: metric over the strength of noise."""

from __future__ import annotations

from ssl_transfer.study.report.drawings import drawing, portions, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.figures import robustness_curves
from ssl_transfer.study.report.section import Section, render

CAPTION = (
    "Robustness of {metric} to noise: each small point is one run, lines join the means over seeds; hollow markers at the "
    "left: without noise. Panels of a row share their y axis."
)


def section(evidence: Evidence) -> Section | None:
    """A figure per main metric; None where no setting was run at two strengths of noise."""
    figures = []
    for metric, runs, _, _ in runs_by_metric(evidence):
        for portion in portions(runs, ["strategy", "fraction", "noise"]):
            if figure := robustness_curves(portion.rows, metric, evidence.looks):
                figures.append(drawing(evidence, "robustness_curves", metric, portion, figure, CAPTION))
    if not figures:
        return None
    html = render(evidence, "{{ drawn(figures) }}", figures=figures)
    return Section(title="Robustness to noise", html=html, figures=figures)
