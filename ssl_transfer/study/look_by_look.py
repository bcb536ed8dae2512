"""A study with looks is run look by look: it stops adding pretraining seeds once its gate and primary contrasts are settled."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ssl_transfer.console import say
from ssl_transfer.run import write_json
from ssl_transfer.study.decided import study_decisions
from ssl_transfer.study.finished import finished_table
from ssl_transfer.study.job_state import status
from ssl_transfer.study.look_record import write_looks
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.planned_contrasts import arms_of_contrast, jobs_of_seeds, planned_seeds, with_inputs
from ssl_transfer.study.statistics import Decision

TARGETS = "targets.json"


@dataclass(frozen=True)
class NextLook:
    """What a study needs next.

    Attributes:
        decisions: The gate and the primary contrasts on the results there are.
        seeds: Arm of the gate or of a primary contrast -> the pretraining seeds that it needs up to its next look.
        jobs: Jobs of these seeds that are not done, and all that they depend on.
        others: Jobs that are not done of arms in neither gate nor primary contrasts, likewise.
    """

    decisions: list[Decision]
    seeds: dict[str, list[int]]
    jobs: list[Job]
    others: list[Job]

    @property
    def settled(self) -> bool:
        """No more seeds are needed: all contrasts are settled, or the gate is and is not passed."""
        return gate_closed(self.decisions) or all(decision.settled for decision in self.decisions)


def next_look(plan: Plan, attempted: Collection[str] = ()) -> NextLook:
    """Decide on the results there are, and find out what the next look needs.

    Args:
        plan: The plan of a study with looks.
        attempted: Ids of jobs that are not tried again. The looks wait for all other jobs, those that failed too.
    """
    states = {
        name: "missing" if state in ("failed", "blocked") and name not in attempted else state
        for name, state in status(plan).states.items()
    }
    decisions = study_decisions(plan, finished_table(plan), states)
    seeds = needed_seeds(plan, decisions)
    missing = {name for name, state in states.items() if state != "done" and name not in attempted}
    chosen = with_inputs(plan, [job.id for job in jobs_of_seeds(plan, seeds) if job.id in missing])
    ends = [job for job in plan.jobs if job.runs or job.stage == "rank"]  # what is needed for its own sake
    others = with_inputs(plan, [job.id for job in ends if job.about["arm"] not in seeds and job.id in missing])
    return NextLook(
        decisions=decisions,
        seeds=seeds,
        jobs=[job for job in chosen if job.id in missing],
        others=[job for job in others if job.id in missing],
    )


def needed_seeds(plan: Plan, decisions: list[Decision]) -> dict[str, list[int]]:
    """Arm of the gate or of a primary contrast -> pretraining seeds up to the next look of any of its open contrasts.

    A contrast that is settled needs the seeds of the looks it has had. If the gate is settled and not passed, no primary
    contrast can be claimed any more, and they need no further look.
    """
    order = planned_seeds(plan, [decision.contrast for decision in decisions])
    closed = gate_closed(decisions)
    counts: dict[str, int] = {}
    for decision in decisions:
        taken = len(decision.looks)
        goes_on = not decision.settled and not (closed and decision.family != "gate" and taken)
        if decision.settled and decision.at is not None:
            taken = decision.at + 1
        look = taken + 1 if goes_on else taken
        seeds = decision.planned_looks[min(look, len(decision.planned_looks)) - 1] if look else 0
        for name in arms_of_contrast(plan, decision.contrast):
            counts[name] = max(counts.get(name, 0), seeds)
    return {name: order[:count] for name, count in counts.items()}


def gate_closed(decisions: list[Decision]) -> bool:
    """Whether the gate is settled and not passed, so that no primary contrast can be claimed any more."""
    return any(each.family == "gate" and each.settled and each.ungated != "better" for each in decisions)


def rounds(plan: Plan) -> Iterator[list[str]]:
    """Ids of the jobs of each look, until no more seeds are needed; then those of all other arms.

    Every look is decided, and recorded in the study's folder, on the results of the jobs before it.
    """
    attempted: set[str] = set()
    while (found := next_look(plan, attempted)).jobs:
        write_looks(plan, found.decisions, None)
        say(_next_in_words(found))
        jobs = [job.id for job in found.jobs]
        attempted |= set(jobs)
        yield jobs
    write_looks(plan, found.decisions, _not_needed(plan, found))
    for decision in found.decisions:
        say(in_words(decision))
    if not found.settled:
        say("looks: open contrasts wait for runs that failed; the next `study run` tries them again")
    yield [job.id for job in found.others]


def _not_needed(plan: Plan, found: NextLook) -> dict[str, list[int]] | None:
    """Arm of the gate or of a primary contrast -> its pretraining seeds that are not needed; None before it is settled."""
    if not found.settled:
        return None
    seeds = {arm["name"]: arm["seeds"] for arm in plan.arms if arm["name"] in found.seeds and arm["seeds"] != [None]}
    left = {name: [seed for seed in of_arm if seed not in found.seeds[name]] for name, of_arm in seeds.items()}
    return {name: of_arm for name, of_arm in left.items() if of_arm}


def write_targets(plan: Plan) -> NextLook:
    """Decide, record the looks, and write `targets.json`: the jobs that are to be run now, for another engine.

    Jobs that failed are not among them, and not waited for: the other engine has tried them again.
    """
    failed = [name for name, state in status(plan).states.items() if state in ("failed", "blocked")]
    found = next_look(plan, failed)
    write_looks(plan, found.decisions, _not_needed(plan, found))
    jobs = [job.id for job in (*found.jobs, *found.others)]
    write_json(plan.folder / TARGETS, {"schema": 1, "kind": "targets", "jobs": jobs})
    return found


def _next_in_words(found: NextLook) -> str:
    goes_on = [decision for decision in found.decisions if not decision.settled]
    names = [f"{each.contrast.name_a} against {each.contrast.name_b}" for each in goes_on]
    seeds = max(map(len, found.seeds.values()), default=0)
    return f"looks: {'; '.join(names) or 'runs that are missing'}: up to {seeds} pretraining seeds"


def in_words(decision: Decision) -> str:
    """A decision as a line: sides, verdict, look, difference, interval and p-value."""
    name = f"{decision.family}: {decision.contrast.name_a} against {decision.contrast.name_b}"
    if (look := decision.look) is None or decision.at is None:
        return f"{name}: no results yet"
    reason = f" ({decision.reason})" if decision.reason else ""
    seeds = f"{look.planned} seeds" if any(decision.units.by_pretraining.values()) else ""
    units = ", ".join(filter(None, (seeds, decision.holds_for)))
    test = "no test is possible"
    if math.isfinite(look.p_value):
        p = f"equivalence p {look.p_tost:.2g}" if look.equivalent else f"p {look.p_value:.2g}"
        test = f"[{look.ci_low:.3g}, {look.ci_high:.3g}], {p}, level {look.decides_at:.2g}"
    return (
        f"{name}: {decision.verdict}{reason} at look {decision.at + 1} of {len(decision.planned_looks)} ({units}): "
        f"{look.difference:+.3g} {test}"
    )
