"""Section: metric over label fraction."""

from __future__ import annotations

from ssl_transfer.study.report.drawings import drawing, portions, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.figures import learning_curves, with_curves
from ssl_transfer.study.report.section import Section, render

TRIVIAL_BAND = " Dashed, with the 95 % interval as a band: trivial features."
CAPTION = "Learning curves of {metric}: each small point is one run, lines join the means over seeds."
ONE_FRACTION = " Settings with a single label fraction are shown under “Individual seeds” only."


def section(evidence: Evidence) -> Section:
    """A figure per main metric; a panel per target, protocol, strategy and noise."""
    figures = []
    for metric, _, runs, noise in runs_by_metric(evidence):
        curves = with_curves(runs)
        band = evidence.trivial_results
        caption = CAPTION + (ONE_FRACTION if len(curves) < len(runs) else "") + noise
        caption += TRIVIAL_BAND if (band["metric"] == metric).any() else ""
        for portion in portions(curves, ["strategy", "noise", "noise_sigma"]):
            figure = learning_curves(portion.rows, metric, evidence.looks, band)
            figures.append(drawing(evidence, "learning_curves", metric, portion, figure, caption))
    return Section(
        title="Learning curves", html=render(evidence, "{{ drawn(figures) }}", figures=figures), figures=figures
    )
