"""Planning: expand the design of a study into jobs.

It reads the study's YAML, its recipes and task cards, and nothing else: no store, network, torch or timm is needed. A job's
id is a hash of its settings and of the ids of its inputs, so a changed recipe changes only the jobs that depend on it.
Results that do not depend on the evaluation seed are planned once.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.draws import draw_seed
from ssl_transfer.errors import RecipeError
from ssl_transfer.protocols import PROTOCOLS, RANKED_KINDS, depends_on_seed, protocols_for
from ssl_transfer.recipe import digest
from ssl_transfer.study.arms import Arm, arms_of
from ssl_transfer.study.control_arms import (
    CONTROL_PROTOCOL,
    PERMUTATION,
    UNSUITABLE,
    permuted,
    permuted_arm,
    trivial_arm,
    with_trivial,
)
from ssl_transfer.study.design import Evaluation, Ranking, StudyRecipe, assignments
from ssl_transfer.study.job_list import Input, JobList, input_ids
from ssl_transfer.study.plan import FEATURES, Plan
from ssl_transfer.study.planned_contrasts import check_looks, check_units
from ssl_transfer.study.poolings import check_group_pool, check_poolings
from ssl_transfer.study.study_inputs import StudyInputs, StudyTask


def plan_study(recipe: StudyRecipe, folder: str | Path, write: bool = True) -> Plan:
    """Expand a study into its jobs and write their recipes and task cards into its folder.

    Args:
        recipe: From `load_study`.
        folder: Folder of the study, for the output of all jobs.
        write: Whether recipes and task cards are written.

    Raises:
        RecipeError: If a recipe, chain, task, exception, look or contrast does not fit.
    """
    arms = list(arms_of(recipe))
    jobs = JobList(recipe, Path(folder), write)
    inputs = StudyInputs(recipe, arms, jobs)
    check_poolings(recipe, arms, inputs)
    _Evaluations(recipe, jobs, inputs).expand(arms)
    evaluated = [arm.card(inputs.teachers.get(arm.name)) for arm in arms if arm.pretraining.evaluated]
    cards = {name: inputs.card(name) for name in recipe.tasks}
    resolved = recipe.model_dump(mode="json", by_alias=True)
    plan = Plan(recipe.name, Path(folder), resolved, evaluated, cards, list(jobs.by_id.values()))
    check_looks(plan)
    check_units(plan)
    return plan


class _Evaluations:
    """Adds the evaluations and rankings of a study, and the features that they share."""

    def __init__(self, recipe: StudyRecipe, jobs: JobList, inputs: StudyInputs):
        self.recipe, self.jobs, self.inputs = recipe, jobs, inputs
        self.coordinates: set[tuple] = set()  # coordinates of all runs
        self.controls: set[str] = set()  # kinds of control that are planned

    def expand(self, arms: list[Arm]) -> None:
        """Add all jobs, ordered by pretraining seed and then by arm, so that early results can be compared.

        Raises:
            RecipeError: If a protocol cannot score a task, or no run is left.
        """
        tasks = [self.inputs.task(name) for name in self.recipe.tasks]
        ranked = self._ranked({task.name: task for task in tasks})
        seeds = list(dict.fromkeys(seed for arm in arms for seed in arm.seeds))
        trivial = trivial_arm(arms)
        for seed in seeds:
            for arm in arms:
                if seed in arm.seeds and arm.pretraining.evaluated:
                    for task, evaluation in itertools.product(tasks, self.recipe.evaluations):
                        if self._applies(evaluation, task):
                            self._evaluations(arm, seed, task, evaluation)
                    for task in ranked:
                        self._rank(arm, seed, task)
            self._controls(arms, trivial, seed, tasks)
        self.jobs.keep_needed()
        if not self.jobs.by_id:
            raise RecipeError(f"{self.recipe.name}: no run is left. Look at `skip`, and at the tasks of `evaluations`.")
        if self.recipe.controls.permutation and PERMUTATION not in self.controls:
            raise RecipeError(
                f"{self.recipe.name}: controls: labels are permuted for linear probes, and found no run of one at the largest "
                f"fraction. Add an evaluation `{{protocol: {CONTROL_PROTOCOL}}}`, or write `permutation: false`."
            )

    def _applies(self, evaluation: Evaluation, task: StudyTask) -> bool:
        """Whether an evaluation includes a task.

        Raises:
            RecipeError: If it names the task and its protocol does not support it.
        """
        suitable = task.kind in PROTOCOLS[evaluation.protocol].task_kinds
        if not suitable and task.name in (evaluation.tasks or ()):
            raise RecipeError(
                f"{self.recipe.name}: evaluations: {evaluation.protocol} cannot score {task.name}, which is {task.kind}. "
                f"Take {' or '.join(protocols_for(task.kind))}."
            )
        return suitable and (evaluation.tasks is None or task.name in evaluation.tasks)

    def _controls(self, arms: list[Arm], trivial: Arm, seed: int | None, tasks: list[StudyTask]) -> None:
        """Evaluations of trivial features and of permuted labels, at the draws of a pretraining seed."""
        for task, evaluation in itertools.product(tasks, self.recipe.evaluations):
            if evaluation.protocol == CONTROL_PROTOCOL and self._applies(evaluation, task):
                if self.recipe.controls.trivial and seed in trivial.seeds:
                    self._evaluations(trivial, seed, task, with_trivial(evaluation), control=TRIVIAL)
                arm = permuted_arm(arms, self.recipe.tasks[task.name].store)
                if self.recipe.controls.permutation and seed in arm.seeds:
                    self._evaluations(arm, seed, task, permuted(evaluation), control=PERMUTATION)

    def _evaluations(
        self, arm: Arm, seed: int | None, task: StudyTask, evaluation: Evaluation, control: str | None = None
    ) -> None:
        """Jobs of one evaluation; runs that share their settings share a job where the protocol allows it."""
        grouped: dict[tuple, list[dict]] = {}
        for strategy, fraction, eval_seed in itertools.product(
            evaluation.strategies or [None], evaluation.fractions, evaluation.seeds
        ):
            run = {
                "pretraining": arm.name,
                "task": task.name,
                "protocol": evaluation.protocol,
                "strategy": strategy,
                "fraction": fraction,
                "pretraining_seed": seed,
                "seed": eval_seed,
                "factors": arm.factors,
            }
            if any(where.holds(run) for where in self.recipe.skip):
                continue
            self._refuse_training(arm, run)
            changes = [change.to for change in self.recipe.set if change.holds(run)]
            words = _last_of_each([word for settings in (evaluation.set, *changes) for word in assignments(settings)])
            del run["factors"]
            if control:
                run["control"] = control
                self.controls.add(control)
            if control == TRIVIAL:
                words = tuple(word for word in words if not word.startswith(UNSUITABLE))
            check_group_pool(self.recipe.name, task, evaluation, words)
            self._refuse_duplicate(run, words)
            grouped.setdefault((strategy, words), []).append(run)
        for (_, words), runs in grouped.items():
            grouped_kind = task.kind if task.target_of else None
            for part in _products(_once(runs, words, grouped_kind), words, grouped_kind):
                self._evaluate(arm, seed, task, words, part, evaluation)

    def _refuse_training(self, arm: Arm, run: dict[str, Any]) -> None:
        """Refuse to train features from a file."""
        backbone = arm.pretraining.backbone
        if backbone and not PROTOCOLS[run["protocol"]].frozen and arm.level(backbone).startswith(FEATURES):
            raise RecipeError(
                f"{self.recipe.name}: pretrainings.{arm.name}: these are features from a file, which {run['protocol']} cannot "
                f"train. Leave it out: `skip: [{{pretraining: {arm.name}, protocol: {run['protocol']}}}]`."
            )

    def _refuse_duplicate(self, run: dict[str, Any], words: tuple[str, ...]) -> None:
        """Refuse two runs that differ only in settings without a column in tables (all but noise)."""
        noise = tuple(word for word in words if word.startswith("noise"))
        coordinates = (*run.values(), noise)
        if coordinates in self.coordinates:
            raise RecipeError(
                f"{self.recipe.name}: evaluations: two of them are {run['protocol']} of {run['pretraining']} on {run['task']} "
                f"at fraction {run['fraction']:g}, seed {run['seed']}: no table could hold both. Leave one out, or give its "
                "task another name."
            )
        self.coordinates.add(coordinates)

    def _evaluate(
        self, arm: Arm, seed: int | None, task: StudyTask, words: tuple, runs: list[dict], evaluation: Evaluation
    ) -> None:
        """One evaluation job, for runs with one protocol, strategy and settings: all fractions × all seeds."""
        protocol, strategy = runs[0]["protocol"], runs[0]["strategy"]
        fractions, seeds = (list(dict.fromkeys(run[name] for run in runs)) for name in ("fraction", "seed"))
        backbone = self.inputs.backbone(arm, seed)
        inputs = [backbone, task.store, *task.external]
        upstream = input_ids(inputs)
        command = ["evaluate", protocol, backbone.spec, str(task.card)]
        for store in (task.store, *task.external) if PROTOCOLS[protocol].frozen else ():
            if features := self._features(arm, seed, backbone, store, words, task.air):
                inputs.append(features)
                command += ["--features", features.spec]
        settings = [f"strategy={strategy}", *words] if strategy else list(words)
        identity = {
            "protocol": protocol,
            "settings": sorted(settings),
            "card": digest(self.inputs.card(task.name)),
            "draw": draw_seed(seed, 0),  # not the results of other draws, which an older version may have left
        }
        if evaluation.tune:
            inputs.append(tuning := self._tune(arm, seed, task, settings, runs[0], evaluation))
            command += ["--tuning", tuning.spec]
            identity["tuning"] = tuning.id
        folder = self.jobs.folder / "evaluate" / digest([identity, upstream])
        for run in runs:
            run["result"] = os.path.join(
                folder, f"{run['fraction']:g}-{run['seed']}", "result.json"
            )  # a study has many
        output = folder if len(runs) > 1 else Path(runs[0]["result"]).parent
        command += [f"fraction={_list(fractions)}", f"seed={_list(seeds)}", *settings, "--out", str(output)]
        self.jobs.add(
            "evaluate",
            {**identity, "fractions": fractions, "seeds": seeds},
            inputs,
            command,
            output,
            title=f"{protocol}{f' ({strategy})' if strategy else ''} on {task.name}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "task": task.name},
            resources=protocol,
            runs=runs,
            units=len(runs),
            like=" ".join(filter(None, [protocol, strategy, task.name])),
            work=sorted(settings),
        )

    def _tune(
        self, arm: Arm, seed: int | None, task: StudyTask, settings: list[str], run: dict, evaluation: Evaluation
    ) -> Input:
        """The job that selects settings on validation, at the first evaluation seed, for all evaluation seeds.

        Raises:
            RecipeError: If a setting is both tuned and set.
        """
        grid = evaluation.tune.grid if evaluation.tune else {}
        keys = {word.partition("=")[0] for word in settings}
        if both := sorted(keys & set(grid)):
            raise RecipeError(
                f"{self.recipe.name}: evaluations: {evaluation.protocol}: {both[0]} is both set and in `tune`. Leave one out."
            )
        backbone = self.inputs.backbone(arm, seed)
        words = [f"grid.{key}=[{', '.join(map(_text, candidates))}]" for key, candidates in grid.items()]
        first = {"fraction": run["fraction"], "seed": evaluation.seeds[0], "draw": draw_seed(seed, 0)}
        identity = {"stage": "tune", "protocol": evaluation.protocol, "settings": sorted([*settings, *words]), **first}
        identity["card"] = digest(self.inputs.card(task.name))
        inputs = [backbone, task.store]
        output = self.jobs.folder / "tune" / digest([identity, input_ids(inputs)])
        drawn = [f"fraction={run['fraction']:g}", f"seed={evaluation.seeds[0]}"]
        command = ["tune", evaluation.protocol, backbone.spec, str(task.card), *drawn, *settings, *words]
        trials = math.prod(map(len, grid.values()))
        what = " ".join(filter(None, [evaluation.protocol, run["strategy"], task.name]))
        return self.jobs.add(
            "tune",
            identity,
            inputs,
            [*command, "--out", str(output)],
            output,
            title=f"tune {what}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "task": task.name},
            resources=evaluation.protocol,
            units=trials,
            repeats=trials,
            like=f"tune {what}",
            work=sorted([*settings, *words]),
        )

    def _ranked(self, tasks: dict[str, StudyTask]) -> list[StudyTask]:
        """Tasks for which arms are ranked.

        Raises:
            RecipeError: If a named task is of a kind that is not ranked.
        """
        if self.recipe.rank is None:
            return []
        named = self.recipe.rank.tasks
        for task in named or ():
            if tasks[task].kind not in RANKED_KINDS:
                raise RecipeError(
                    f"{self.recipe.name}: rank: {task} is a {tasks[task].kind} task; scores are for {', '.join(RANKED_KINDS)} "
                    "tasks."
                )
        if named:
            return [tasks[task] for task in named]
        return [task for task in tasks.values() if task.kind in RANKED_KINDS]

    def _rank(self, arm: Arm, seed: int | None, task: StudyTask) -> None:
        """Add the ranking job of a backbone on a task; without bootstrap, since the study has several seeds."""
        ranking, backbone = self.recipe.rank or Ranking(), self.inputs.backbone(arm, seed)
        stated = {word.partition("=")[0]: word for word in ["seed=0", "resamples=0", *assignments(ranking.set)]}
        drawn, words = _drawn(stated.pop("seed"), seed), tuple(stated.values())
        inputs = [backbone, task.store]
        shape = tuple(word for word in words if word.startswith(("size=", "precision=")))
        features = self._features(arm, seed, backbone, task.store, shape, task.air)
        assert features is not None  # without noise and adapted channels, there are shared features
        command = ["rank", str(task.card), backbone.spec, drawn, *words, "--features", features.spec]
        sources = self._labelled_sources(arm)
        for source in sources:
            of_source = self._features(arm, seed, backbone, source, shape)
            assert of_source is not None
            inputs += [source, of_source]
            command += ["--source", source.spec, *(["--features", of_source.spec] if of_source != features else [])]
        identity = {
            "stage": "rank",
            "settings": sorted([drawn, *words]),
            "card": digest(self.inputs.card(task.name)),
            "sources": input_ids(sources),
        }
        output = self.jobs.folder / "rank" / digest([identity, input_ids(inputs[:2])])
        self.jobs.add(
            "rank",
            identity,
            [*inputs, features],
            [*command, "--out", str(output)],
            output,
            title=f"scores on {task.name}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "task": task.name},
            like=f"rank {task.name}",
            work=sorted(words),
        )

    def _labelled_sources(self, arm: Arm) -> list[Input]:
        """The pretraining stores of an arm, if their labels are used."""
        pretraining = arm.pretraining
        if not (self.recipe.rank and self.recipe.rank.source_labels) or pretraining.untrained:
            return []
        return [self.inputs.store(name) for name in ([pretraining.store] if pretraining.store else pretraining.mix)]

    def _features(
        self, arm: Arm, seed: int | None, backbone: Input, store: Input, words: tuple, air: str | None = None
    ) -> Input | None:
        """Features that all probes of a backbone on a store share; None if they need images with noise or adapted channels."""
        if any(word.startswith("noise") or word == "channels=adapt" for word in words):
            return None
        if arm.pretraining.backbone == TRIVIAL:
            backbone, seed = Input.external(TRIVIAL), None  # the same features for every seed
        values = {word.partition("=")[0]: word.partition("=")[2] for word in words}
        options = {key: values[key] for key in ("size", "precision") if values.get(key, "null") != "null"}
        if options.get("precision") in ("auto", "fp16"):
            raise RecipeError(
                f"{self.recipe.name}: evaluations: precision: found {options['precision']}, expected fp32 or bf16 for probes: "
                "their features are shared by jobs that may run on other machines."
            )
        if values.get("pool", "null") != "null":
            options["pool"] = "all"  # of a CNN these are the features without it
        altered = {"air": air} if air else {}
        options |= altered
        identity, inputs = {"stage": "features", **options}, [backbone, store]
        output = self.jobs.folder / "features" / digest([identity, input_ids(inputs)])
        command = ["features", backbone.spec, store.spec, "--out", str(output)]
        command += [f"{key}={value}" for key, value in options.items()]
        return self.jobs.add(
            "features",
            identity,
            inputs,
            command,
            output,
            title=f"features of {Path(store.name).name}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "store": store.name, **altered},
            like=f"features {store.name}",
            work=[arm.factors, options],
        )


def _drawn(word: str, pretraining_seed: int | None) -> str:
    """The setting `seed=` of a ranking, with the draw of a stated seed; no number is left for `rank` to refuse."""
    stated = word.partition("=")[2]
    return f"seed={draw_seed(pretraining_seed, int(stated))}" if stated.isdecimal() else word


def _text(value: Any) -> str:
    """A candidate of a grid as YAML in one line; numbers of a study's YAML are text, which is typed later."""
    return (
        value
        if isinstance(value, str) and value.isascii() and not set(value) & set(" ,:{}[]\"'")
        else json.dumps(value)
    )


def _last_of_each(words: list[str]) -> tuple[str, ...]:
    """Settings in which the last value of a key is kept."""
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _once(runs: list[dict], settings: tuple[str, ...], grouped_kind: str | None) -> list[dict]:
    """Runs with the same settings, without those that repeat another one: equal scores at another evaluation seed.

    Args:
        runs: The runs.
        settings: Their settings.
        grouped_kind: See `depends_on_seed`.
    """
    kept: dict[tuple, dict] = {}
    for run in runs:
        fraction = run["fraction"]
        seed = run["seed"] if depends_on_seed(run["protocol"], fraction, settings, grouped_kind) else None
        kept.setdefault((fraction, seed), run)
    return list(kept.values())


def _list(values: list) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _products(runs: list[dict], settings: tuple[str, ...], grouped_kind: str | None) -> Iterator[list[dict]]:
    """Split runs into groups of all fractions × all seeds, as one command evaluates them; into single runs if they train.

    Like the command, a group has a fraction without dependence on the seed at its first seed alone.
    """
    if not PROTOCOLS[runs[0]["protocol"]].frozen:
        yield from ([run] for run in runs)
        return
    seeds_of: dict[float, tuple[int, ...]] = {}
    for run in runs:
        seeds_of[run["fraction"]] = (*seeds_of.get(run["fraction"], ()), run["seed"])
    for fraction, seeds in seeds_of.items():
        if not depends_on_seed(runs[0]["protocol"], fraction, settings, grouped_kind):
            seeds_of[fraction] = next((others for others in seeds_of.values() if others[0] == seeds[0]), seeds)
    for seeds in dict.fromkeys(seeds_of.values()):
        fractions = [fraction for fraction, of_fraction in seeds_of.items() if of_fraction == seeds]
        yield [run for run in runs if run["fraction"] in fractions]
