"""Limits: what the decisions of a study do not say, from its design."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ssl_transfer.domains import DISTANCE
from ssl_transfer.study.report.evidence import Evidence
from ssl_transfer.study.report.wording import listed, percent, whole, words
from ssl_transfer.study.statistics import Decision
from ssl_transfer.study.table import known_boundaries

CROSSING = {"none": "in the domain of", "soft": "across a soft boundary from", "hard": "across a hard boundary from"}


def limits(evidence: Evidence) -> list[tuple[str, str]]:
    """What the declared contrasts do not say: heading and sentence of each limit, as far as the design is known."""
    primaries = [each for each in evidence.decisions if each.family != "gate"] or list(evidence.decisions)
    if not primaries:
        return []
    return [
        *_checkpoints(evidence, primaries),
        *_targets(evidence, primaries),
        *_boundaries(evidence, primaries),
        *_protocols(evidence, primaries),
        *_architectures(evidence),
        *_budgets(evidence),
        *_patients(evidence, primaries),
        *_generated(evidence),
        *_seen(evidence, primaries),
    ]


def _tasks(primaries: Sequence[Decision]) -> list[str]:
    return list(dict.fromkeys(task for each in primaries for task in each.contrast.tasks))


def _checkpoints(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    limited = [each for each in primaries if each.holds_for]
    if limited:
        names = dict.fromkeys(f"{each.contrast.name_a} − {each.contrast.name_b}" for each in limited)
        public = evidence.provenance.scope.public
        sides = [side.get("pretraining", "") for each in limited for side in (each.contrast.a, each.contrast.b)]
        weights = [f"{side} ({public[side]})" for side in dict.fromkeys(sides) if side in public]
        whose = "its" if len(weights) == 1 else "their"
        what = f"{listed(weights)} with {whose} own network and training" if weights else "these weights"
        yield "Other checkpoints", f"{listed(list(names))}: compared for {what}; another pretraining run may differ."


def _targets(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    tasks = _tasks(primaries)
    others = [words(task) for task in dict.fromkeys(evidence.runs["task"]) if task not in tasks]
    decided = listed([words(task) for task in tasks]) if tasks else "no target"
    text = f"the primary contrasts are on {decided}"
    yield (
        "Other targets",
        f"{text}; {listed(others, most=4)} {'are' if len(others) > 1 else 'is'} secondary."
        if others
        else f"{text} alone.",
    )


def _boundaries(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    """Boundaries between the domain of side a and the targets that no primary contrast crosses."""
    boundaries = known_boundaries(evidence.runs)
    crossed: dict[str, None] = {}
    for each in primaries:
        arm = each.contrast.a.get("pretraining")
        crossed |= dict.fromkeys(boundaries.get((arm, task), "") for task in each.contrast.tasks if arm)
    known = [name for name in DISTANCE if name in crossed]
    missing = [name for name in DISTANCE if name not in crossed]
    if known and missing:
        arms = listed(
            list(
                dict.fromkeys(each.contrast.a["pretraining"] for each in primaries if "pretraining" in each.contrast.a)
            )
        )
        tested = listed([CROSSING[name] for name in known])
        untested = listed(
            [
                {"none": "in-domain targets", "soft": "a soft boundary", "hard": "a hard boundary"}[name]
                for name in missing
            ],
            "or",
        )
        yield "Other boundaries", f"these targets lie {tested} {arms}; nothing is decided on {untested}."


def _protocols(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    protocols = {each.contrast.protocol for each in primaries}
    others = [words(name) for name in dict.fromkeys(evidence.runs["protocol"]) if name not in protocols]
    rows = [each.contrast.runs(evidence.runs)["fraction"].dropna() for each in primaries]
    used = {float(fraction) for fractions in rows for fraction in fractions}
    of_protocols = evidence.runs[evidence.runs["protocol"].isin(protocols)]["fraction"].dropna()
    shares = [percent(float(value)) for value in sorted(of_protocols.unique()) if float(value) not in used]
    parts = ([listed(others)] if others else []) + ([f"{listed(shares)} of the labels"] if shares else [])
    if parts:
        yield (
            "Other protocols and numbers of labels",
            f"{' and '.join(parts)} {'are' if len(others + shares) > 1 else 'is'} secondary.",
        )


def _architectures(evidence: Evidence) -> Iterator[tuple[str, str]]:
    scope = evidence.provenance.scope
    if scope.architectures:
        sizes = f" at {listed([str(size) for size in scope.sizes])} px" if scope.sizes else ""
        methods = f", pretrained by {listed([words(method) for method in scope.methods])}" if scope.methods else ""
        one = "one architecture: " if len(scope.architectures) == 1 else ""
        yield "Other architectures and methods", f"{one}{listed(scope.architectures)}{sizes}{methods}."


def _budgets(evidence: Evidence) -> Iterator[tuple[str, str]]:
    trained = [arm for arm in evidence.arms if arm["name"] not in evidence.random_init]
    for images, steps in {(arm.get("images"), arm.get("steps")) for arm in trained} if trained else ():
        if images and steps and len({(arm.get("images"), arm.get("steps")) for arm in trained}) == 1:
            yield (
                "Other budgets",
                f"every arm was pretrained on {whole(images)} images for {whole(steps)} steps; the order may change with more.",
            )


def _patients(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    test, parts = evidence.provenance.scope.test, []
    for task in _tasks(primaries):
        images, patients = test.get(task, (None, None))
        if images:
            parts.append(f"{whole(patients)} test patients" if patients else f"{whole(images)} test images")
            parts[-1] += f" of {words(task)}"
    if parts:
        yield "Other patients", f"intervals are over pretraining seeds, for the same {listed(parts)}."


def _generated(evidence: Evidence) -> Iterator[tuple[str, str]]:
    stores = evidence.provenance.scope.generated
    if stores:
        yield (
            "Real archives",
            (
                f"the images of {listed([words(name) for name in stores])} come with the package (generated, or crops of a few "
                "photographs): this page says nothing about real archives."
            ),
        )


def _seen(evidence: Evidence, primaries: Sequence[Decision]) -> Iterator[tuple[str, str]]:
    """Targets of primary contrasts whose test cases an arm has seen in pretraining."""
    known = evidence.contamination
    if known is None:
        return
    of_primaries = known[known["task"].isin(_tasks(primaries)) & (known["seen"] > 0)]
    parts = [
        f"{row.pretraining} has seen {whole(row.seen)} of the {whole(row.cases)} test cases of {words(str(row.task))}"
        for row in of_primaries.itertuples()
    ]
    if parts:
        yield "Unseen cases", f"{listed(parts, most=3)} in pretraining; scores on the others stand beside those on all."
