"""The report: a page with the recommended pretraining, its uncertainty, and all evidence."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.first_screen import drawings, first_screen
from ssl_transfer.study.report.guidance import unequal_budget
from ssl_transfer.study.report.primary import primary_noise
from ssl_transfer.study.report.section import Drawing, Section, jinja_environment, render
from ssl_transfer.study.report.sections import (
    boundaries,
    case_curves,
    contamination,
    contrasts,
    controls,
    declared,
    effects,
    external_tests,
    flow,
    learning_curves,
    over_targets,
    patients,
    provenance,
    published,
    ranks,
    recommendation,
    results,
    robustness,
    score_validity,
    seed_variance,
    seeds,
    strategies,
    subgroups,
    time_to_quality,
)
from ssl_transfer.study.report.wording import measure, noisy, words
from ssl_transfer.study.table import write_table

# In the order of the page; a section that returns None is left out.
SECTIONS: list[Callable[[Evidence], Section | None]] = [
    declared.gate,
    declared.primaries,
    published.section,
    recommendation.section,
    contrasts.section,
    effects.section,
    boundaries.section,
    flow.section,
    contamination.section,
    external_tests.section,
    subgroups.section,
    over_targets.section,
    learning_curves.section,
    case_curves.section,
    robustness.section,
    seeds.section,
    seed_variance.section,
    patients.section,
    ranks.section,
    strategies.section,
    time_to_quality.section,
    score_validity.section,
    controls.section,
    provenance.cost,
    results.section,
    provenance.pictures,
    provenance.design,
    provenance.tuning,
    provenance.environment,
    provenance.methods,
    provenance.commands,
]


WARNINGS = """
{% if warnings %}
<div class="note" role="note"><strong>Read with care</strong>
<ul>{% for warning in warnings %}<li>{{ warning }}</li>{% endfor %}</ul></div>
{% endif %}
"""


def write_report(out: str | Path, evidence: Evidence) -> Path:
    """Write `report.html` into a folder, with `tables/` (CSV, LaTeX) and `figures/` (PNG, SVG) beside it.

    The page is self-contained: it opens from disk, without a network, in light or dark mode. It is written last and
    atomically.

    Args:
        out: Folder; created if missing.
        evidence: Results and statistics of the report.

    Returns:
        Path of the page.

    Raises:
        UsageError: If an attachment is missing or is neither PNG nor SVG.
    """
    out = Path(out)
    write_table(evidence.frame, out / "tables")
    first = drawings(evidence) if evidence.headline else []
    for drawing in first:
        drawing.write(out / "figures")
    sections = []
    for make in SECTIONS:
        if section := make(evidence):
            section.write(out)
            sections.append({"title": section.title, "anchor": section.anchor, "html": section.html})
    page = (
        jinja_environment()
        .get_template("page.html.jinja")
        .render(
            title=evidence.provenance.title,
            question=evidence.provenance.question,
            answer=_answer(evidence, first),
            sections=sections,
        )
    )
    unfinished = out / "report.html.part"
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, out / "report.html")
    return out / "report.html"


def _answer(evidence: Evidence, figures: list[Drawing]) -> Markup:
    """Top of the page: the answer, and warnings."""
    made, frame = evidence.provenance, evidence.frame
    if evidence.headline is not None:
        answer = first_screen(evidence, evidence.headline, figures)
    else:
        answer = render(
            evidence,
            (Path(__file__).parent / "answer.html.jinja").read_text(encoding="utf-8"),
            answers=evidence.answers,
            missing=made.missing,
            runs=frame["run_id"].nunique() if "run_id" in frame else len(frame),
            primaries="; ".join(_in_words(primary, evidence.has_noise) for primary in evidence.primaries),
        )
    warnings = [*made.warnings, *controls.warnings(evidence), *evidence.metric_warnings, *unequal_budget(evidence.arms)]
    return answer + render(evidence, WARNINGS, warnings=warnings)


def _in_words(primary: Mapping[str, Any], has_noise: bool) -> str:
    """A primary contrast: protocol and metric, and its noise where runs differ in it."""
    setting = primary_noise(primary)
    noise = noisy(setting.get("noise", "noise"), setting.get("noise_sigma")) or "without noise"
    parts = [words(primary["protocol"]), measure(primary["metric"])]
    return ", ".join([*parts, noise] if has_noise else parts)
