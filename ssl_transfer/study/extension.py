"""What would decide the open contrasts of a study: conditional power at the looks that are left, its price, and the command."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.study.comparisons import Statistics
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.decided import study_decisions
from ssl_transfer.study.finished import finished_table
from ssl_transfer.study.job_state import status
from ssl_transfer.study.look_by_look import gate_closed, in_words
from ssl_transfer.study.plan import RESOLVED, Plan
from ssl_transfer.study.planned_contrasts import arms_of_contrast, jobs_of_seeds, planned_seeds, with_inputs
from ssl_transfer.study.power import StudyPower, named_contrast
from ssl_transfer.study.statistics import Decision, outlook
from ssl_transfer.study.statistics.power import Start, look_power
from ssl_transfer.study.statistics.power_components import FixedSide

MOST_SEEDS = 500  # of a replication


def extension(plan: Plan) -> dict[str, Any]:
    """What is open in a study and what would decide it.

    Returns:
        `study`; `contrasts`, one JSON object per gate and primary contrast: its verdict or status in `words`, and if it is open
        `looks`: for each look that is left its seeds, seeds and minutes to add, and the probability to be decided by then, if
        the true difference is the estimate or `relevant`; `command`, which does the next look; or, where no look is left,
        `replication`: the command of a study with fresh seeds, and its power.
    """
    frame, states = finished_table(plan), status(plan).states
    decisions = study_decisions(plan, frame, states)
    closed = gate_closed(decisions)
    extend = _Extension(plan, decisions, states)
    rows = [extend.row(decision, closed and decision.family != "gate") for decision in decisions]
    answer: dict[str, Any] = {"study": plan.name, "contrasts": rows}
    if any("looks" in row for row in rows):
        answer["command"] = f"ssl-transfer study run {shlex.quote(str(plan.folder))}"
    if over := [decision for decision, row in zip(decisions, rows, strict=True) if row["status"] == "over"]:
        answer["replication"] = extend.replication(over)
    return answer


class _Extension:
    def __init__(self, plan: Plan, decisions: Sequence[Decision], states: dict[str, str]):
        self.plan, self.decisions, self.states = plan, decisions, states
        self.costs, self.power = Costs.recorded(plan.folder), StudyPower(plan)
        self.statistics: Statistics = self.power.statistics
        self.seeds = planned_seeds(plan, [decision.contrast for decision in decisions])

    def row(self, decision: Decision, closed: bool) -> dict[str, Any]:
        """A contrast; its status is `decided`, `open`, `over` (no look is left), `closed` (by the gate), `waiting` (no look)."""
        row = {
            **named_contrast(decision.family, decision.contrast),
            "verdict": decision.verdict,
            "words": in_words(decision),
        }
        if decision.found:
            return {**row, "status": "decided"}
        if decision.at_last_look:
            return {**row, "status": "over"}
        if closed:
            return {**row, "status": "closed"}
        values, against = _growing(decision)
        if len(values) < 2 or (against is not None and against.n < 2):
            return {**row, "status": "waiting"}
        return {**row, "status": "open", **self.looks_left(decision, values, against)}

    def looks_left(self, decision: Decision, values: np.ndarray, against: FixedSide | None) -> dict[str, Any]:
        """The looks that are left, with conditional power: see `_growing`."""
        taken = len(decision.looks)
        looks, levels = decision.planned_looks[taken:], decision.levels[taken:]
        estimate, sd, start = float(values.mean()), float(values.std(ddof=1)), Start.of(values)
        relevant = self.statistics.relevant_for(decision.contrast.metric)
        truths = {"estimate": estimate} | ({} if relevant is None else {"relevant": math.copysign(relevant, estimate)})
        power = {
            name: look_power(looks, levels, truth, sd, decision.margin, against=against, start=start)
            for name, truth in truths.items()
        }
        minutes = [self.minutes(decision, look) for look in looks]
        rows = [
            {
                "look": taken + 1 + i,
                "seeds": look,
                "seeds_to_add": look - decision.planned_looks[taken - 1],
                "minutes_to_add": minutes[i],
                "level": levels[i],
                **{f"decided_at_{name}": float(each.decided[i]) for name, each in power.items()},
            }
            for i, look in enumerate(looks)
        ]
        expected = {
            f"expected_{what}_at_{name}": each.expected(amounts)
            for name, each in power.items()
            for what, amounts in (("seeds", looks), ("minutes", minutes))
        }
        needed = self.seeds_needed(decision)
        return {"estimate": estimate, "sd": sd, "relevant": relevant, "looks": rows, **expected, "seeds_needed": needed}

    def seeds_needed(self, decision: Decision) -> int | None:
        """Pairs that find `relevant` with 80 % power at the last look's level, as in the report; None: unknown, or too many."""
        found = outlook(decision, self.statistics.relevant_for(decision.contrast.metric))
        return None if found is None or decision.units.test != "paired" else found.needed

    def minutes(self, decision: Decision, look: int) -> float:
        """Minutes of the jobs that a contrast still needs for a look."""
        arms = arms_of_contrast(self.plan, decision.contrast)
        jobs = jobs_of_seeds(self.plan, dict.fromkeys(arms, self.seeds[:look]))
        needed = with_inputs(self.plan, [job.id for job in jobs])
        return sum(self.costs.seconds(job) for job in needed if self.states[job.id] != "done") / 60

    def replication(self, over: Sequence[Decision]) -> dict[str, Any]:
        """A study of the same design with fresh pretraining seeds, for contrasts that no look is left of."""
        count = max(decision.planned_looks[-1] for decision in over)
        needed = [self.seeds_needed(decision) for decision in over]
        seeds = max([count, *(n for n in needed if n is not None and n <= MOST_SEEDS)])
        first = max(planned_seeds(self.plan)) + 1
        fresh = f"[{','.join(str(seed) for seed in range(first, first + seeds))}]"
        own = [name for name, arm in self.plan.recipe["pretrainings"].items() if arm.get("seeds") is not None]
        name = f"{self.plan.name}_replication"
        words = [
            *("ssl-transfer", "study", "run", str(self.plan.folder / RESOLVED)),
            *(f"name={name}", f"pretraining_seeds={fresh}", *(f"pretrainings.{arm}.seeds={fresh}" for arm in own)),
            *("--out", str(Path(self.plan.folder).with_name(name))),
        ]
        looks = self.statistics.looks
        if looks and seeds > looks[-1]:
            words.insert(5, f"statistics.looks=[{','.join(map(str, [*looks, seeds]))}]")
        return {
            "why": "The last look of these contrasts is past: more seeds may not be added to their tests, because the looks have "
            "spent all of alpha. A replication with fresh pretraining seeds is a study of its own.",
            "contrasts": [f"{each.contrast.name_a} against {each.contrast.name_b}" for each in over],
            "seeds": seeds,
            "seeds_for_80_percent_power_at_relevant": None
            if None in needed
            else max(n for n in needed if n is not None),
            "command": shlex.join(words),
        }


def _growing(decision: Decision) -> tuple[np.ndarray, FixedSide | None]:
    """The values of the latest look that pretraining seeds add to.

    Returns:
        Differences of the pairs; or, against public weights, those of the trained side's units from the mean of the public
        ones, in the direction of the contrast, and the public side. Empty without a look.
    """
    if not decision.looks:
        return np.zeros(0), None
    units = decision.units_at[-1]
    a, b = units.values()
    if units.test == "paired":
        return a - b, None
    fixed = a if units.by_pretraining["b"] else b
    if len(fixed) < 2 or not any(units.by_pretraining.values()):
        return np.zeros(0), None
    values = fixed.mean() - b if fixed is a else a - fixed.mean()
    return values, FixedSide(len(fixed), float(fixed.std(ddof=1)), measured=True)
