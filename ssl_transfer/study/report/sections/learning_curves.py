"""Section: metric over label fraction."""

from __future__ import annotations

import pandas as pd

from ssl_transfer.study.report.drawings import drawing, portions, runs_by_metric
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.figures import learning_curves, with_curves
from ssl_transfer.study.report.section import Section, render
from ssl_transfer.study.report.wording import listed

BANDS = " Bands are 95 % intervals of {names}, drawn within the range of the metric."
RANDOM_BAND, TRIVIAL_BAND = "random initialisation (dotted)", "trivial features (dashed)"
PERMUTED_BAND = "a probe of permuted labels (dash-dotted)"
CAPTION = "Learning curves of {metric}: each small point is one run, lines join the means over seeds."
ONE_FRACTION = " Settings with a single label fraction are shown under “Individual seeds” only."


def section(evidence: Evidence) -> Section:
    """A figure per main metric; a panel per target, protocol, strategy and noise."""
    figures = []
    trivial, permuted = evidence.trivial_results, evidence.permuted_results
    for metric, _, runs, noise in runs_by_metric(evidence):
        curves = with_curves(runs, [table[table["metric"] == metric] for table in (trivial, permuted)])
        random_init, lines = _apart(curves, evidence)
        bands = {RANDOM_BAND: random_init, TRIVIAL_BAND: trivial, PERMUTED_BAND: permuted}
        tables = [table for table in bands.values() if len(table)]
        controls = pd.concat(tables) if tables else None  # empty tables have no types
        names = [name for name, table in bands.items() if (table["metric"] == metric).any()]
        caption = CAPTION + (ONE_FRACTION if len(curves) < len(runs) else "") + noise
        caption += BANDS.format(names=listed(names)) if names else ""
        for portion in portions(lines, ["strategy", "noise", "noise_sigma"]):
            figure = learning_curves(portion.rows, metric, evidence.looks, controls)
            figures.append(drawing(evidence, "learning_curves", metric, portion, figure, caption, grey=False))
    return Section(
        title="Learning curves", html=render(evidence, "{{ drawn(figures) }}", figures=figures), figures=figures
    )


def _apart(runs: pd.DataFrame, evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Results of random initialisation, and the runs of the other arms; all runs where there are no others."""
    is_random = runs["pretraining"].isin(evidence.random_init)
    results = evidence.results
    if is_random.all():
        return results.iloc[:0], runs
    return results[results["pretraining"].isin(evidence.random_init & set(runs["pretraining"]))], runs[~is_random]
