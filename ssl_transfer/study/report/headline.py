"""The headline of a report: what the gate and the primary contrasts of a study say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_transfer.study.report.claims import CONSTANT, Claim, Terms, claim, undecided
from ssl_transfer.study.report.wording import listed
from ssl_transfer.study.statistics import Decision
from ssl_transfer.study.statistics.verdicts import BETTER, WITHIN_MARGIN, WORSE

NOT_PASSED = "Nothing is claimed on the primary contrasts before this gate is passed."


@dataclass(frozen=True)
class Headline:
    """The first screen in words.

    Attributes:
        claims: What the study says, the first sentence first.
        evidence: The contrasts behind combined claims, and the gate, each with its decision: no sentence stands twice.
    """

    claims: tuple[Claim, ...]
    evidence: tuple[tuple[Claim, Decision], ...] = ()

    @property
    def sentences(self) -> list[str]:
        """All of it as text, for `--json`."""
        return [str(each) for each in (*self.claims, *(claimed for claimed, _ in self.evidence))]


def headline(decisions: Sequence[Decision], terms: Terms) -> Headline | None:
    """Combine the decisions of a study.

    A gate that is not passed is the first sentence, and no primary contrast is claimed. Else the primary contrasts of one side a
    in one setting make one sentence.

    Args:
        decisions: As `statistics.decide` returns them.
        terms: What the words depend on.

    Returns:
        None without decisions.
    """
    gates = [each for each in decisions if each.family == "gate"]
    primaries = [each for each in decisions if each.family != "gate"]
    if not decisions:
        return None
    if gates and gates[0].verdict != BETTER:
        of_gate = claim(gates[0], terms)
        first = Claim(of_gate.text, of_gate.numbers, f"{of_gate.scope} {NOT_PASSED}".strip())
        return Headline((first,), tuple((claim(each, terms), each) for each in primaries))
    groups = _groups(primaries, terms)
    if not groups:
        return Headline((claim(gates[0], terms),))
    settings = {terms.setting(each.contrast) for each in decisions}
    claims, behind = [], [*gates]
    for group in groups:
        if len(group) == 1:
            claims.append(claim(group[0], terms))
        else:
            claims.append(Claim(_combined(group, terms), scope=_scope(group)))
            behind += group
    evidence = ((claim(each, terms, names_setting=len(settings) > 1), each) for each in behind)
    return Headline(tuple(claims), tuple(evidence))


def _groups(primaries: Sequence[Decision], terms: Terms) -> list[list[Decision]]:
    """Contrasts of one side a in one setting."""
    groups: dict[tuple[str, str], list[Decision]] = {}
    for decision in primaries:
        key = (terms.side(decision.contrast.a), terms.setting(decision.contrast))
        groups.setdefault(key, []).append(decision)
    return list(groups.values())


def _scope(group: Sequence[Decision]) -> str:
    limited = [each for each in group if each.holds_for and each.decided]
    return "Some of this holds for the weights compared, not for the way they were trained." if limited else ""


def _combined(group: Sequence[Decision], terms: Terms) -> str:
    """One sentence on side a of several contrasts: against whom it is better, worse, equivalent, or open."""
    a, setting = terms.side(group[0].contrast.a), terms.setting(group[0].contrast)
    metric = group[0].contrast.metric
    better, worse = (_others(group, terms, (verdict,)) for verdict in (BETTER, WORSE))
    equivalent, open_ones = _others(group, terms, WITHIN_MARGIN), [each for each in group if not each.decided]
    untested = _names([each for each in open_ones if each.is_constant], terms)
    open_ones = [each for each in open_ones if not each.is_constant]
    few, rest = ([each for each in open_ones if terms.is_large(each) == large] for large in (True, False))
    parts = []
    if worse:
        parts = [f"Do not take {a} for {setting}: worse than {listed(worse)}"]
        parts += [f"better than {listed(better)}"] if better else []
    elif better:
        parts = [f"Take {a} for {setting}: better than {listed(better)}"]
    if equivalent:
        of = f"equivalent to {listed(equivalent)} {terms.within_margin(metric)}"
        parts.append(of if parts else f"{a} is {of} for {setting}")
    if not parts:
        texts = [undecided(terms, metric, a, _names(of, terms), of is few) for of in (few, rest) if of]
        texts += [f"No test of {a} against {listed(untested)} ({CONSTANT})"] if untested else []
        return "; ".join(text if text is texts[0] else text[0].lower() + text[1:] for text in texts) + f" for {setting}"
    parts += [f"too few seeds to tell against {listed(_names(few, terms))}"] if few else []
    parts += [f"not decided against {listed(_names(rest, terms))}"] if rest else []
    parts += [f"no test against {listed(untested)} ({CONSTANT})"] if untested else []
    return "; ".join(parts)


def _names(group: Sequence[Decision], terms: Terms) -> list[str]:
    """Side b of contrasts."""
    return [terms.sides(each.contrast)[1] for each in group]


def _others(group: Sequence[Decision], terms: Terms, verdicts: Sequence[str]) -> list[str]:
    """Side b of the contrasts with one of these verdicts."""
    return _names([each for each in group if each.verdict in verdicts], terms)
