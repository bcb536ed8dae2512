"""What a study declares, resolved for its plan: its contrasts, their arms, seeds and jobs. Read without pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_transfer.data.task_card import TaskCard
from ssl_transfer.domains import Domain, boundary
from ssl_transfer.errors import RecipeError
from ssl_transfer.measures.metrics import METRICS, base_metric, has_unit, metrics_of
from ssl_transfer.run import read_json
from ssl_transfer.study.arms import compared
from ssl_transfer.study.comparisons import Comparisons, Contrast, Statistics
from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.plan import Job, Plan
from ssl_transfer.target_kinds import KINDS

if TYPE_CHECKING:
    import pandas as pd


def study_comparisons(plan: Plan, frame: pd.DataFrame | None = None) -> Comparisons:
    """The declared contrasts, resolved by the metrics and boundaries of the results; before there are any, by the plan.

    Args:
        plan: The plan of the study.
        frame: The tidy table of its results; None: there are none.
    """
    targets = {(run["task"], run["protocol"]): [plan.tasks[run["task"]]["metric"]] for run in plan.runs}
    for (task, protocol), runs in () if frame is None else frame.groupby(["task", "protocol"], sort=False):
        measured = dict.fromkeys(runs["metric"])
        main = [name for name in targets.get((task, protocol), []) if name in measured]
        targets[task, protocol] = list(dict.fromkeys([*main, *measured]))
    statistics = Statistics.model_validate(plan.recipe["statistics"])
    pairs = statistics.pairs or compared(plan.arms)
    known = planned_boundaries(plan)
    if frame is not None:
        from ssl_transfer.study.table import known_boundaries  # loads pandas

        known |= known_boundaries(frame)
    return Comparisons(statistics, plan.arms, pairs, targets, known)


def planned_boundaries(plan: Plan) -> dict[tuple[str, str], str]:
    """(pretraining, task) -> boundary, as far as it is known before there are results.

    An arm that is pretrained on one store, without a parent or a teacher, is in-domain for the tasks on that store; for the
    others the domains are known once both stores are there.
    """
    stores = {name: _domain(plan, name) for name in plan.recipe["stores"]}
    known = {}
    for arm in plan.arms:
        source = arm["store"] if not (arm["init"] or arm.get("teacher") or arm["untrained"]) else None
        for task, section in plan.recipe["tasks"].items() if source else ():
            target = section["store"]
            if target == source:
                known[arm["name"], task] = "none"
            elif target and (of_source := stores[source]) and (of_target := stores[target]):
                known[arm["name"], task] = boundary(Domain.parse(of_source), Domain.parse(of_target))
    return known


def _domain(plan: Plan, store: str) -> str | None:
    """The domain of a store of the study; None before it is ingested."""
    section = plan.recipe["stores"][store]
    outputs = [job.output for job in plan.jobs if job.stage == "ingest" and job.about == {"store": store}]
    for folder in [section["path"]] if section["path"] else outputs:
        if card := read_json(Path(folder) / "card.json"):
            domain = card.get("domain")
            return None if domain and "+" in domain else domain  # of several domains the results tell
    return None


def planned_seeds(plan: Plan, contrasts: Iterable[DeclaredContrast | None] = ()) -> list[int]:
    """Pretraining seeds of the arms in some contrasts, in the order in which they are run; of all arms, if there are none."""
    named = {name for contrast in contrasts if contrast is not None for name in arms_of_contrast(plan, contrast)}
    arms = [arm for arm in plan.arms if arm["name"] in named] or plan.arms
    return list(dict.fromkeys(seed for arm in arms for seed in arm["seeds"] if seed is not None))


def arms_of_contrast(plan: Plan, contrast: DeclaredContrast) -> list[str]:
    """Names of the evaluated arms whose runs a contrast compares."""
    names = [arm["name"] for arm in plan.arms]
    return names if contrast.pretrainings is None else [name for name in names if name in contrast.pretrainings]


def jobs_of_seeds(plan: Plan, seeds: Mapping[str, Iterable[int]]) -> list[Job]:
    """Jobs of some arms at some pretraining seeds; of an arm without pretraining seeds, all its jobs.

    Args:
        plan: The plan of the study.
        seeds: Arm -> its pretraining seeds.
    """
    wanted = {name: {None, *of_arm} for name, of_arm in seeds.items()}
    return [job for job in plan.jobs if job.about.get("seed") in wanted.get(job.about.get("arm", ""), ())]


def with_inputs(plan: Plan, chosen: Iterable[str]) -> list[Job]:
    """Jobs by their ids, and all jobs that they depend on, in the order of the plan."""
    needed = set(chosen)
    for job in reversed(plan.jobs):  # each after those that it depends on
        if job.id in needed:
            needed |= set(job.inputs)
    return [job for job in plan.jobs if job.id in needed]


def check_units(plan: Plan) -> None:
    """Refuse declared contrasts that would average values of different units, such as years and millilitres, over targets.

    Raises:
        RecipeError: If a contrast in a metric with a unit names no single target of those that have the metric.
    """
    comparisons = study_comparisons(plan)
    gate = comparisons.statistics.gate
    stated = [("primary", contrast) for contrast in comparisons.stated_primaries()]
    for key, contrast in [*([("gate", gate)] if gate else []), *stated]:
        targets = _measured_targets(plan, contrast) if has_unit(contrast.metric) else []
        if len(targets) < 2:
            continue
        metric = str(base_metric(contrast.metric))
        without = [name for name in metrics_of(*METRICS[metric].kinds) if not has_unit(name)]
        first = f"{{protocol: {contrast.protocol}, metric: {contrast.metric}, on: {{task: {targets[0]}}}}}"
        raise RecipeError(
            f"{plan.name}: statistics.{key}: {METRICS[metric].title} would be averaged over {', '.join(targets)}, and is in the "
            f"unit of each. Expected one target per contrast, such as `{key}: {first if key == 'gate' else f'[{first}]'}`, or a "
            f"metric without a unit: {', '.join(without)}."
        )


def _measured_targets(plan: Plan, contrast: Contrast) -> list[str]:
    """Targets on which a contrast may be measured: those of its protocol that have its metric, and that it names."""
    of_protocol = dict.fromkeys(run["task"] for run in plan.runs if run["protocol"] == contrast.protocol)
    kinds = {task: TaskCard.model_validate(plan.tasks[task]).kind for task in of_protocol}
    has_metric = [
        task for task, kind in kinds.items() if base_metric(contrast.metric) in metrics_of(*KINDS[kind].metrics)
    ]
    return [task for task in has_metric if contrast.on.task is None or task in contrast.on.task]


def check_looks(plan: Plan) -> None:
    """Refuse looks that the pretraining seeds of a primary contrast do not reach.

    Raises:
        RecipeError: If an arm of the gate or of a primary contrast has fewer seeds than the last look, or other ones than the
            arms that it is compared with.
    """
    comparisons = study_comparisons(plan)
    looks = comparisons.statistics.looks
    if not looks:
        return
    contrasts = [comparisons.gate(), *comparisons.primaries()]
    order = planned_seeds(plan, contrasts)[: looks[-1]]
    arms = {name for contrast in contrasts if contrast is not None for name in arms_of_contrast(plan, contrast)}
    for arm in plan.arms:
        if arm["name"] not in arms or arm["seeds"] == [None]:
            continue
        where = f"{plan.name}: statistics.looks: the last look is at {looks[-1]} pretraining seeds"
        if len(arm["seeds"]) < looks[-1]:
            raise RecipeError(
                f"{where}, and {arm['name']}, which a primary contrast or the gate compares, has {len(arm['seeds'])}. "
                f"Write `pretraining_seeds: {looks[-1]}`, or `seeds: {looks[-1]}` at each of these pretrainings, or end "
                "`looks` earlier."
            )
        if arm["seeds"][: looks[-1]] != order:
            raise RecipeError(
                f"{where}; the first {looks[-1]} of {arm['name']} are {arm['seeds'][: looks[-1]]}, expected {order} as in the "
                "other arms, because arms are compared in pairs of equal seeds."
            )
