"""Section: the value of every seed."""

from __future__ import annotations

from ssl_transfer.study.report.drawings import drawing, portions, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.figures import seed_points
from ssl_transfer.study.report.section import Section, render

CAPTION = (
    "{metric} of every pretraining seed, its evaluation seeds averaged (of every evaluation seed, for an arm with one "
    "pretraining seed). Bar: mean of the arm and its 95 % interval. Arms are compared in pairs of seeds, so overlapping bars do "
    "not show that arms are equal. The axes of a row have the same scale, but not the same ends."
)


def section(evidence: Evidence) -> Section:
    """A figure per main metric; a row of panels per target, protocol, strategy and noise."""
    figures = []
    for metric, _, runs, noise in runs_by_metric(evidence):
        for portion in portions(runs, ["strategy", "fraction", "noise", "noise_sigma"]):
            figure = seed_points(portion.rows, metric, evidence.looks)
            figures.append(drawing(evidence, "seed_points", metric, portion, figure, CAPTION + noise))
    return Section(
        title="Individual seeds", html=render(evidence, "{{ drawn(figures) }}", figures=figures), figures=figures
    )
