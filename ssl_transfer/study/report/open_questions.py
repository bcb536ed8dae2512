"""What would decide what is open: for each open contrast the next look, the detectable difference and the seeds needed."""

from __future__ import annotations

from ssl_transfer.study.report.claims import Terms
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.wording import nominal, number
from ssl_transfer.study.statistics import Decision, Outlook, outlook
from ssl_transfer.study.statistics.contrast_units import PAIRED, contrast_sides
from ssl_transfer.study.statistics.detectable import equivalence_pairs_needed
from ssl_transfer.study.statistics.verdicts import EQUIVALENT


def open_questions(evidence: Evidence) -> list[tuple[str, str]]:
    """Heading and text for each declared contrast that is open, the gate first."""
    terms = evidence.terms
    open_ones = [each for each in evidence.decisions if not each.found]
    several = len({terms.setting(each.contrast) for each in open_ones}) > 1
    return [(_heading(each, terms, several), " ".join(_sentences(each, terms))) for each in open_ones]


def would_decide(decision: Decision, terms: Terms) -> str:
    """The seeds that would decide an open contrast, as a sentence; for equivalence those that it needs if nothing differs."""
    if decision.found:
        return f"The data decide, but {decision.reason}."
    metric = decision.contrast.metric
    found, margin = outlook(decision, terms.relevant_for(metric)), decision.margin
    if found is None or _has_single_seed(decision, terms):
        return _sentences(decision, terms)[-1]
    if decision.contrast.expect != EQUIVALENT or not margin > 0 or decision.units.test != PAIRED:
        return _needed(decision, found, metric)
    pairs = equivalence_pairs_needed(margin / found.sd, alpha=decision.level_tost)
    if pairs is None:
        return f"No practicable number of seeds shows equivalence {terms.within_margin(metric)}."
    return (
        f"Equivalence {terms.within_margin(metric)} needs {pairs} {_pairs(decision)} at level {nominal(decision.level_tost)}, "
        "if nothing differs."
    )


def _has_single_seed(decision: Decision, terms: Terms) -> bool:
    """Whether a side has evaluations of one pretraining seed alone; public weights have none."""
    sides = zip("ab", contrast_sides(terms.runs, decision.contrast), strict=True)
    return any(
        not decision.units.by_pretraining[side]
        and runs.loc[runs["value"].notna(), "pretraining_seed"].nunique(dropna=False) == 1
        and bool(runs["pretraining_seed"].notna().any())
        for side, runs in sides
    )


def _heading(decision: Decision, terms: Terms, several: bool) -> str:
    a, b = terms.sides(decision.contrast)
    return f"{a} − {b}" + (f", {terms.setting(decision.contrast)}" if several else "")


def _sentences(decision: Decision, terms: Terms) -> list[str]:
    metric = decision.contrast.metric
    found = outlook(decision, terms.relevant_for(metric))
    if _has_single_seed(decision, terms):
        return ["One pretraining seed on a side: only further pretraining seeds can decide about the pretrainings."]
    if found is None and decision.is_constant:
        return [f"{_next(decision)} The differences of all pairs are equal: nothing can be estimated from them."]
    if found is None:
        return [f"{_next(decision)} Two units on each side are needed before anything can be estimated."]
    return [_next(decision), _detects(decision, found), _needed(decision, found, metric)]


def _next(decision: Decision) -> str:
    left = decision.planned_looks[len(decision.looks) :]
    if not left:
        return "No look is left." if len(decision.planned_looks) > 1 else "The study looks once, and has."
    which, level = "Next" if decision.looks else "First", decision.levels[len(decision.looks)]
    return f"{which} look at {left[0]} pretraining seeds (level {nominal(level)})."


def _detects(decision: Decision, found: Outlook) -> str:
    ahead = found.next_look is not None
    where = f"The last look, at {found.last_look} seeds" if ahead else f"With {_n(decision)}"
    at = f"{where} and level {nominal(found.level)},"
    return f"{at} {'detects' if ahead else 'the study detects'} a true difference of {number(found.detects)} with 80 % power."


def _n(decision: Decision) -> str:
    look = decision.look
    a, b = (look.n_a, look.n_b) if look else map(len, decision.units.values())
    return f"{a} pairs" if decision.units.test == PAIRED else f"{a} and {b} seeds"


def _needed(decision: Decision, found: Outlook, metric: str) -> str:
    if found.effect is None:
        return f"The study states no smallest relevant difference in {metric}: statistics.relevant."
    unit = _pairs(decision) if decision.units.test == PAIRED else "seeds on each side"
    if found.needed is None:
        return f"No practicable number of seeds detects a difference of {found.effect:g}."
    return f"A difference of {found.effect:g} needs {found.needed} {unit} at this level."


def _pairs(decision: Decision) -> str:
    return f"pairs of {'pretraining' if decision.units.by_pretraining['a'] else 'evaluation'} seeds"
