"""The first screen: the answer in a sentence, its figure, what it does not say, and what would decide what is open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from ssl_transfer.study.report.decision_figures import MOST_PANELS, by_setting, unit_differences, unit_values
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.headline import Headline
from ssl_transfer.study.report.limits import limits
from ssl_transfer.study.report.open_questions import open_questions
from ssl_transfer.study.report.section import Drawing, render
from ssl_transfer.study.report.wording import listed, number, words
from ssl_transfer.study.statistics import Decision

VALUES = (
    "Every unit is a point: a pretraining seed (its evaluation seeds averaged), of public weights an evaluation seed. Thin "
    "lines join the pairs of arms beside each other that are paired. Bars: mean of each arm with its 95 % interval.{chance}{more}"
)
DIFFERENCES = (
    "Difference of every pair, where sides are paired, and above it the mean difference with its interval at the level that "
    "decides (of an equivalence, that of two one-sided tests). Filled, in the colour of the better arm: decided.{band}"
)
BAND = " Grey band: the margin of equivalence."


def drawings(evidence: Evidence) -> list[Drawing]:
    """The figure of the first screen in its two parts: values and differences."""
    primaries = [each for each in evidence.decisions if each.family != "gate"] or evidence.decisions
    values = unit_values(primaries, evidence.terms, evidence.looks)
    differences = unit_differences(evidence.decisions, evidence.terms, evidence.looks)
    many = len(by_setting(primaries, evidence.terms)) > MOST_PANELS
    more = f" Shown are the first {MOST_PANELS} settings." if many else ""
    band = BAND if evidence.margin is not None else ""
    parts = [
        ("units", values, VALUES.format(chance=_chance(evidence, primaries), more=more)),
        ("differences", differences, DIFFERENCES.format(band=band)),
    ]
    return [Drawing(f"answer_{name}", figure, caption) for name, figure, caption in parts if figure is not None]


def _chance(evidence: Evidence, primaries: Sequence[Decision]) -> str:
    """What guessing gives, as a sentence, where the metric is the balanced accuracy; else empty."""
    targets = [
        task for each in primaries if each.contrast.metric == "balanced_accuracy" for task in each.contrast.tasks
    ]
    classes = evidence.provenance.scope.classes
    parts = [f"{number(1 / classes[task])} on {words(task)}" for task in dict.fromkeys(targets) if task in classes]
    return f" By chance, balanced accuracy is {listed(parts)}." if parts else ""


def first_screen(evidence: Evidence, headline: Headline, figures: list[Drawing]) -> Markup:
    """The first screen of a study with declared contrasts.

    Args:
        evidence: Evidence of the report.
        headline: What the declared contrasts say together.
        figures: As `drawings` returns them.
    """
    template = (Path(__file__).parent / "first_screen.html.jinja").read_text(encoding="utf-8")
    return render(
        evidence,
        template,
        headline=headline,
        figures=figures,
        limits=limits(evidence),
        questions=open_questions(evidence),
        extend=evidence.provenance.extend,
        looks_left=any(len(each.planned_looks) > len(each.looks) for each in evidence.decisions if not each.found),
    )
