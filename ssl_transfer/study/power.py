"""The power of a study: what its gate and primary contrasts can decide at each look, and at what price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from ssl_transfer.errors import UsageError
from ssl_transfer.study.comparisons import Comparisons, looks_of
from ssl_transfer.study.costs import Costs
from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.finished import finished_table
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.study.planned_contrasts import (
    arms_of_contrast,
    jobs_of_seeds,
    planned_seeds,
    study_comparisons,
    with_inputs,
)
from ssl_transfer.study.statistics import ALPHA
from ssl_transfer.study.statistics.contrast_units import paired_differences, side_values
from ssl_transfer.study.statistics.power import MOST_SEEDS, allocations, detectable_difference, look_power
from ssl_transfer.study.statistics.power_components import (
    FixedSide,
    PairComponents,
    WelchComponents,
    pair_components,
    welch_components,
)
from ssl_transfer.study.statistics.sequential import holm_levels
from ssl_transfer.study.table import complete

NO_COMPONENTS = (
    "its power is not known: state `statistics.components: {pretraining: …, residual: …}`, give `--pilot STUDYFOLDER`, "
    "or run at least two pretraining seeds"
)
PUBLIC_ALONE = (
    "public weights have no pretraining seeds: they are tested once, over evaluation seeds, and the verdict holds for these "
    "weights"
)
SINGLE_DRAW = (
    "no test is possible: the public weights have fewer than two evaluation seeds (a linear probe of all labels does not depend "
    "on the seed, and is planned once)"
)
NO_SUBSET = (
    "the SD between label subsets, which does not cancel against public weights, is not known: the power is an upper limit. "
    "State `statistics.components.subset`"
)


@dataclass(frozen=True)
class Records:
    """Results that variance components are estimated from.

    Attributes:
        frame: A complete tidy frame.
        source: Where they are from, in words.
    """

    frame: pd.DataFrame
    source: str

    def components(self, contrast: DeclaredContrast) -> PairComponents | None:
        """Components of a contrast; None if they have fewer than two pretraining seeds of both sides."""
        differences = paired_differences(self.frame, contrast)
        seeds = differences["pretraining_seed"].nunique()
        return pair_components(differences, f"{seeds} pretraining seeds of {self.source}")

    def welch_components(self, contrast: DeclaredContrast, public: str) -> WelchComponents | None:
        """Components of a contrast with public weights, on side `a` or `b`; None: as above, of the trained side."""
        a, b = side_values(self.frame, contrast)
        trained, fixed = (b, a) if public == "a" else (a, b)
        seeds = trained["pretraining_seed"].nunique() if "pretraining_seed" in trained else 0
        return welch_components(trained, fixed, f"{seeds} pretraining seeds of {self.source}") if seeds else None


class StudyPower:
    """The power of the gate and the primary contrasts of a plan.

    Args:
        plan: The plan.
        pilot: Folder of another study with the same arms and targets, for variance components; None: the study's own results,
            or those that it states.

    Raises:
        UsageError: If the pilot is not a planned study, or has no results.
    """

    def __init__(self, plan: Plan, pilot: str | Path | None = None):
        self.plan, self.costs = plan, Costs.recorded(plan.folder)
        own = finished_table(plan)
        self.records = Records(complete(own), str(plan.folder)) if len(own) else None
        if pilot is not None:
            other = finished_table(Plan.load(pilot))
            if other.empty:
                raise UsageError(f"--pilot {pilot}: no results. Run it first: ssl-transfer study run {pilot}")
            self.records = Records(complete(other), f"the pilot {pilot}")
        known = own if len(own) or self.records is None else self.records.frame
        self.comparisons: Comparisons = study_comparisons(plan, known if len(known) else None)
        self.statistics = self.comparisons.statistics
        gate, self.primaries = self.comparisons.gate(), self.comparisons.primaries()
        self.contrasts = [*([("gate", gate)] if gate else []), *(("primary", each) for each in self.primaries)]
        self.seeds = planned_seeds(plan, [contrast for _, contrast in self.contrasts])
        self.looks = looks_of(self.statistics, self.seeds)

    def answer(self) -> list[dict[str, Any]]:
        """For each contrast what its looks can decide, and its cheapest allocation: JSON objects."""
        return [self._contrast(family, contrast) for family, contrast in self.contrasts]

    def _contrast(self, family: str, contrast: DeclaredContrast) -> dict[str, Any]:
        tests = 1 if family == "gate" else len(self.primaries)
        margin, relevant = (of(contrast.metric) for of in (self.statistics.margin_of, self.statistics.relevant_for))
        named: dict[str, Any] = {
            **named_contrast(family, contrast),
            "margin": margin,
            "relevant": relevant,
            "tests": tests,
        }
        public = [self.plan_seeds(name) == [None] for name in arms_of_contrast(self.plan, contrast)]
        if any(public) and (all(public) or "pretraining" not in contrast.a):
            return {**named, "note": PUBLIC_ALONE}
        side = self.public_side(contrast)
        components = self.components(contrast) if side is None else self.welch_components(contrast, side)
        if components is None:
            return {**named, "note": NO_COMPONENTS}
        draws, effective = self.draws(contrast)
        against = None if side is None else components.against(self.evaluation_seeds(contrast, side))
        if against is not None and against.n < 2:
            return {**named, "note": SINGLE_DRAW}
        sd = components.unit_sd(effective if components.df is None else draws)
        levels = holm_levels(ALPHA, tests, 0, self.looks, self.statistics.spent)
        shown = {**vars(components), "draws": draws, "unit_sd": sd, "unit_sd_upper": components.highest_sd(draws)}
        if against is not None:
            shown |= {"public_seeds": against.n, "warning": self._no_subset(contrast, components)}
        return {
            **named,
            "components": {key: _known(value) for key, value in shown.items()},
            **self._looks(levels, sd, margin, relevant, against),
            "allocation": self.allocation(contrast, components, relevant, ALPHA / tests, draws),
        }

    def public_side(self, contrast: DeclaredContrast) -> str | None:
        """The side of a contrast, `a` or `b`, that is public weights; None: both have pretraining seeds."""
        names = {"a": contrast.a.get("pretraining"), "b": contrast.b.get("pretraining")}
        return next((side for side, name in names.items() if name and self.plan_seeds(name) == [None]), None)

    def welch_components(self, contrast: DeclaredContrast, public: str) -> WelchComponents | None:
        """Variance components of a contrast with public weights on one side, likewise."""
        if self.records and (estimated := self.records.welch_components(contrast, public)):
            return estimated
        if (stated := self.statistics.components) is None:
            return None
        residual = math.hypot(stated.residual, (stated.subset or 0.0) * self._has_subsets(contrast))
        return WelchComponents(stated.pretraining, residual, residual)

    def evaluation_seeds(self, contrast: DeclaredContrast, side: str) -> int:
        """Evaluation seeds of public weights: those that all cells of the contrast have."""
        name = (contrast.a if side == "a" else contrast.b)["pretraining"]
        cells: dict[tuple, set[int]] = {}
        for run in self.runs(contrast):
            if run["pretraining"] == name:
                cells.setdefault((run["task"], run["fraction"], run["strategy"]), set()).add(run["seed"])
        return len(set.intersection(*cells.values())) if cells else 0

    def _no_subset(self, contrast: DeclaredContrast, components: WelchComponents | PairComponents) -> str | None:
        stated = self.statistics.components
        unknown = components.df is None and stated is not None and stated.subset is None
        return NO_SUBSET if unknown and self._has_subsets(contrast) else None

    def _has_subsets(self, contrast: DeclaredContrast) -> bool:
        """Whether a cell of the contrast learns from a label subset."""
        return any(run["fraction"] < 1 for run in self.runs(contrast))

    def plan_seeds(self, arm: str) -> list[int | None]:
        """Pretraining seeds of an arm; [None] for public weights."""
        return next(card["seeds"] for card in self.plan.arms if card["name"] == arm)

    def components(self, contrast: DeclaredContrast) -> PairComponents | None:
        """Variance components of a contrast: of records if they have two pretraining seeds, else those that are stated."""
        if self.records and (estimated := self.records.components(contrast)):
            return estimated
        stated = self.statistics.components
        return stated and PairComponents(stated.pretraining, stated.residual)

    def draws(self, contrast: DeclaredContrast) -> tuple[int, float]:
        """Evaluation seeds per pretraining seed, at most and as the harmonic mean over the cells that are averaged.

        Those of public weights, which have no pretraining seeds, count only where both sides are public.
        """
        cells: dict[tuple, set[int]] = {}
        runs = list(self.runs(contrast))
        for run in [run for run in runs if run["pretraining_seed"] is not None] or runs:
            cells.setdefault((run["task"], run["fraction"], run["strategy"]), set()).add(run["seed"])
        counts = [len(seeds) for seeds in cells.values()] or [1]
        return max(counts), len(counts) / sum(1 / count for count in counts)

    def runs(self, contrast: DeclaredContrast) -> Iterator[dict[str, Any]]:
        """Planned runs of a contrast, of both sides."""
        return (run for run in self.plan.runs if is_run_of(contrast, run))

    def _looks(
        self,
        levels: tuple[float, ...],
        sd: float,
        margin: float | None,
        relevant: float | None,
        against: FixedSide | None,
    ) -> dict[str, Any]:
        """A row per look, and what is expected over all of them."""
        power = partial(look_power, self.looks, levels, sd=sd, margin=margin, against=against)
        at_relevant, at_none = None if relevant is None else power(difference=relevant), power(difference=0.0)
        hours = [self.hours(look) for look in self.looks]
        rows = [
            {
                "look": i + 1,
                "seeds": look,
                "level": levels[i],
                "detectable": detectable_difference(look, levels[i], sd, against=against),
                "power": at_relevant and float(at_relevant.different[i]),
                "decided": at_relevant and float(at_relevant.decided[i]),
                "decided_if_equal": float(at_none.decided[i]),
                "hours": hours[i],
            }
            for i, look in enumerate(self.looks)
        ]
        return {
            "looks": rows,
            "expected_seeds": at_relevant and at_relevant.expected(self.looks),
            "expected_hours": at_relevant and at_relevant.expected(hours),
            "expected_seeds_if_equal": at_none.expected(self.looks),
        }

    def hours(self, look: int) -> float:
        """Hours of all jobs of the arms of gate and primary contrasts up to a look, and of what they need."""
        arms = {name for _, contrast in self.contrasts for name in arms_of_contrast(self.plan, contrast)}
        jobs = jobs_of_seeds(self.plan, dict.fromkeys(arms, self.seeds[:look]))
        return sum(self.costs.seconds(job) for job in with_inputs(self.plan, [job.id for job in jobs])) / 3600

    def minutes(self, contrast: DeclaredContrast) -> tuple[float, float]:
        """Minutes of one pretraining seed in both arms without the evaluations of the contrast, and of these at one draw."""
        arms = arms_of_contrast(self.plan, contrast)
        jobs = jobs_of_seeds(self.plan, {name: self.seeds for name in arms})
        jobs = [job for job in with_inputs(self.plan, [job.id for job in jobs]) if job.about.get("seed") is not None]
        seconds = {job.id: self.costs.seconds(job) for job in jobs}
        evaluations = sum(seconds[job.id] * _share(contrast, job) for job in jobs)
        seeds = len({job.about["seed"] for job in jobs}) or 1
        draws, _ = self.draws(contrast)
        return (sum(seconds.values()) - evaluations) / seeds / 60, evaluations / seeds / draws / 60

    def public_minutes(self, contrast: DeclaredContrast) -> float:
        """Minutes of the evaluations of public weights at one draw; 0 without any."""
        jobs = jobs_of_seeds(self.plan, {name: () for name in arms_of_contrast(self.plan, contrast)})
        return sum(self.costs.seconds(job) * _share(contrast, job) for job in jobs) / self.draws(contrast)[0] / 60

    def allocation(
        self,
        contrast: DeclaredContrast,
        components: PairComponents | WelchComponents,
        relevant: float | None,
        level: float,
        draws: int,
    ) -> dict[str, Any] | None:
        """The cheapest number of draws and of pretraining seeds; None without `relevant` or a known residual."""
        if relevant is None or math.isnan(components.residual):
            return None
        per_seed, per_draw = self.minutes(contrast)
        priced = partial(allocations, components, relevant, level, per_seed, per_draw)
        priced = partial(priced, once_per_draw=self.public_minutes(contrast))
        table, (present,) = priced(), priced(draws=[draws])
        best = min(table, key=lambda each: each.minutes)
        sentence = f"No allocation finds a difference of {relevant:g} with {MOST_SEEDS} pretraining seeds."
        if best.seeds is not None:
            planned = (
                f"{present.seeds} seeds, {present.minutes:.3g} minutes" if present.seeds else f"over {MOST_SEEDS} seeds"
            )
            sentence = (
                f"Cheapest for 80 % power at {relevant:g}, in one look at level {level:.3g}: draws per pretraining seed "
                f"{best.draws}, pretraining seeds per arm {best.seeds}, {best.minutes:.3g} minutes; with the planned number of "
                f"draws ({draws}) {planned}."
            )
        return {
            "sentence": sentence,
            "minutes_per_seed": per_seed,
            "minutes_per_draw": per_draw,
            **{name: _known(getattr(best, name)) for name in ("draws", "seeds", "minutes")},
            "table": [{key: _known(value) for key, value in vars(each).items()} for each in table],
        }


def named_contrast(family: str, contrast: DeclaredContrast) -> dict[str, Any]:
    """A contrast as a JSON object."""
    return {
        "family": family,
        "a": contrast.name_a,
        "b": contrast.name_b,
        "protocol": contrast.protocol,
        "metric": contrast.metric,
        "tasks": list(contrast.tasks),
        "fractions": None if contrast.fractions is None else list(contrast.fractions),
    }


def is_run_of(contrast: DeclaredContrast, run: Mapping[str, Any]) -> bool:
    """Whether a planned run is on either side of a contrast."""
    sides = any(all(run[name] == value for name, value in side.items()) for side in (contrast.a, contrast.b))
    on = all(run[name] in values for name, values in contrast.on.items())
    fraction = contrast.fractions is None or any(math.isclose(run["fraction"], each) for each in contrast.fractions)
    where = run["protocol"] == contrast.protocol and run["task"] in contrast.tasks and not run.get("control")
    return where and sides and on and fraction


def _share(contrast: DeclaredContrast, job: Job) -> float:
    """Share of a job's runs that belong to a contrast."""
    return sum(is_run_of(contrast, run) for run in job.runs) / len(job.runs) if job.runs else 0.0


def _known(value: Any) -> Any:
    """The value; None for NaN and infinity, which JSON has no words for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
