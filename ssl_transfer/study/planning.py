"""Planning: a study's design becomes jobs.

It reads the study's YAML, its recipes and task cards, and nothing else: no store, network, torch or timm is needed. A job's
id is a hash of what it does and of the ids of what it needs, so a changed recipe renews only what depends on it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ssl_transfer.data.tasks import TaskCard
from ssl_transfer.errors import RecipeError
from ssl_transfer.protocols import PROTOCOLS, protocols_for
from ssl_transfer.recipe import PretrainRecipe, digest, find_recipe, merge, read_yaml, validate
from ssl_transfer.study.arms import Arm, arms_of
from ssl_transfer.study.design import Evaluation, Resources, StudyRecipe, assignments
from ssl_transfer.study.plan import Job, Plan, external_id


def plan_study(recipe: StudyRecipe, folder: str | Path, write: bool = True) -> Plan:
    """Expand a study into its jobs and write their recipes and task cards into its folder.

    Args:
        recipe: From `load_study`.
        folder: Of the study; everything that its jobs write lies below it.
        write: The recipes and cards; False: only look.

    Raises:
        RecipeError: If a recipe, chain, task or exception does not fit.
    """
    planner = _Planner(recipe, Path(folder), write)
    arms = list(arms_of(recipe))
    planner.expand(arms)
    listed = [arm.card() for arm in arms if arm.pretraining.evaluated]
    cards = {name: planner.card(name) for name in recipe.tasks}
    return Plan(recipe.name, Path(folder), recipe.model_dump(mode="json"), listed, cards, list(planner.jobs.values()))


class _Planner:
    """Collects jobs; whatever is asked for twice is one job."""

    def __init__(self, recipe: StudyRecipe, folder: Path, write: bool):
        self.recipe, self.folder, self.write = recipe, folder, write
        self.jobs: dict[str, Job] = {}
        self.written: set[Path] = set()
        self.chain: list[Arm] = []  # whose parent is being looked for
        self.asked: set[tuple] = set()  # coordinates of all runs
        self.recipe_of, self.card = cache(read_yaml), cache(self._card)
        self.store, self.backbone = cache(self._store), cache(self._backbone)  # asked for by every evaluation

    def expand(self, arms: list[Arm]) -> None:
        """All jobs; one pretraining seed of every arm before the next, so that early results can be compared."""
        self.arms = arms
        tasks = {name: self._task(name) for name in self.recipe.tasks}
        seeds = list(dict.fromkeys(seed for arm in arms for seed in arm.seeds))
        for seed, arm in itertools.product(seeds, arms):
            if seed in arm.seeds and arm.pretraining.evaluated:
                for task, evaluation in itertools.product(tasks, self.recipe.evaluations):
                    fits = tasks[task].kind in PROTOCOLS[evaluation.protocol].task_kinds
                    if not fits and task in (evaluation.tasks or ()):
                        raise RecipeError(
                            f"{self.recipe.name}: evaluations: {evaluation.protocol} cannot score {task}, which is "
                            f"{tasks[task].kind}. Take {' or '.join(protocols_for(tasks[task].kind))}."
                        )
                    if fits and (evaluation.tasks is None or task in evaluation.tasks):
                        self._evaluations(arm, seed, task, tasks[task], evaluation)
                for task in self._ranked(tasks):
                    self._rank(arm, seed, task, tasks[task])
        needed = {job.id for job in self.jobs.values() if job.runs or job.stage == "rank"}
        for job in reversed(self.jobs.values()):
            if job.id in needed:
                needed |= set(job.inputs)
        self.jobs = {name: job for name, job in self.jobs.items() if name in needed}
        if not self.jobs:
            raise RecipeError(f"{self.recipe.name}: no run is left. Look at `skip`, and at the tasks of `evaluations`.")

    def _evaluations(self, arm: Arm, seed: int | None, task: str, opened: _Opened, evaluation: Evaluation) -> None:
        grouped: dict[tuple, list[dict]] = {}
        for strategy, fraction, own in itertools.product(
            evaluation.strategies or [None], evaluation.fractions, evaluation.seeds
        ):
            run = {
                "pretraining": arm.name,
                "task": task,
                "protocol": evaluation.protocol,
                "strategy": strategy,
                "fraction": fraction,
                "pretraining_seed": seed,
                "seed": own,
                "factors": arm.factors,
            }
            if any(where.holds(run) for where in self.recipe.skip):
                continue
            changes = [change.to for change in self.recipe.set if change.holds(run)]
            words = _last_of_each([word for settings in (evaluation.set, *changes) for word in assignments(settings)])
            del run["factors"]
            self._claim(run, words)
            grouped.setdefault((strategy, words), []).append(run)
        for (strategy, words), runs in grouped.items():
            for fractions, seeds, part in _products(runs, PROTOCOLS[evaluation.protocol].frozen):
                self._evaluate(arm, seed, task, opened, evaluation.protocol, strategy, words, fractions, seeds, part)

    def _claim(self, run: dict[str, Any], words: tuple[str, ...]) -> None:
        """Refuse a second value for one place of the tables, which only noise may tell apart."""
        noise = tuple(word for word in words if word.startswith("noise"))
        if (place := (*run.values(), noise)) in self.asked:
            raise RecipeError(
                f"{self.recipe.name}: evaluations: two of them are {run['protocol']} of {run['pretraining']} on {run['task']} "
                f"at fraction {run['fraction']:g}, seed {run['seed']}: no table could hold both. Leave one out, or give its "
                "task another name."
            )
        self.asked.add(place)

    def _evaluate(
        self,
        arm: Arm,
        seed: int | None,
        task: str,
        opened: _Opened,
        protocol: str,
        strategy: str | None,
        words: tuple,
        fractions: list[float],
        seeds: list[int],
        runs: list[dict],
    ) -> None:
        backbone = self.backbone(arm, seed)
        given = [backbone, opened.store]
        command = ["evaluate", protocol, backbone.spec, str(opened.card)]
        if PROTOCOLS[protocol].frozen and (features := self._features(arm, seed, backbone, opened.store, words)):
            given.append(features)
            command += ["--features", features.spec]
        settings = [f"strategy={strategy}", *words] if strategy else list(words)
        identity = {"protocol": protocol, "settings": sorted(settings), "card": digest(self.card(task))}
        folder = self.folder / "evaluate" / digest([identity, _ids(given[:2])])
        for run in runs:
            run["result"] = str(folder / f"{run['fraction']:g}-{run['seed']}" / "result.json")
        output = folder if len(runs) > 1 else Path(runs[0]["result"]).parent
        command += [f"fraction={_list(fractions)}", f"seed={_list(seeds)}", *settings, "--out", str(output)]
        self._add(
            "evaluate",
            {**identity, "fractions": fractions, "seeds": seeds},
            given,
            command,
            output,
            title=f"{protocol}{f' ({strategy})' if strategy else ''} on {task}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "task": task},
            asks=protocol,
            runs=runs,
            units=len(runs),
            like=" ".join(filter(None, [protocol, strategy, task])),
            work=sorted(settings),
        )

    def _ranked(self, tasks: dict[str, _Opened]) -> list[str]:
        """Tasks for which arms are ranked.

        Raises:
            RecipeError: If one that is named is a segmentation task.
        """
        if self.recipe.rank is None:
            return []
        named = self.recipe.rank.tasks
        for task in named or ():
            if tasks[task].kind == "segmentation":
                raise RecipeError(
                    f"{self.recipe.name}: rank: {task} is a segmentation task; scores are for multiclass and multilabel tasks."
                )
        return named or [task for task in tasks if tasks[task].kind != "segmentation"]

    def _rank(self, arm: Arm, seed: int | None, task: str, opened: _Opened) -> None:
        """Scores of a backbone on a task, without resampling: the study has seeds for that."""
        ranking, backbone = self.recipe.rank, self.backbone(arm, seed)
        words = _last_of_each(["resamples=0", *assignments(ranking.set)])
        given = [backbone, opened.store]
        shape = tuple(word for word in words if word.startswith(("size=", "precision=")))
        features = self._features(arm, seed, backbone, opened.store, shape)
        command = ["rank", str(opened.card), backbone.spec, *words, "--features", features.spec]
        own = arm.pretraining
        named = [own.store] if own.store else own.mix
        sources = [self.store(name) for name in named] if ranking.source_labels and not own.untrained else []
        for source in sources:
            known = self._features(arm, seed, backbone, source, shape)
            given += [source, known]
            command += ["--source", source.spec, *(["--features", known.spec] if known != features else [])]
        identity = {
            "stage": "rank",
            "settings": sorted(words),
            "card": digest(self.card(task)),
            "sources": _ids(sources),
        }
        output = self.folder / "rank" / digest([identity, _ids(given[:2])])
        self._add(
            "rank",
            identity,
            [*given, features],
            [*command, "--out", str(output)],
            output,
            title=f"scores on {task}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "task": task},
            like=f"rank {task}",
            work=sorted(words),
        )

    def _features(self, arm: Arm, seed: int | None, backbone: _Input, store: _Input, words: tuple) -> _Input | None:
        """Features that all probes of a backbone on a store share; None where they are not of its clean images."""
        if any(word.startswith("noise") or word == "channels=adapt" for word in words):
            return None
        wanted = {word.partition("=")[0]: word.partition("=")[2] for word in words}
        options = {key: wanted[key] for key in ("size", "precision") if wanted.get(key, "null") != "null"}
        if options.get("precision") in ("auto", "fp16"):
            raise RecipeError(
                f"{self.recipe.name}: evaluations: precision: found {options['precision']}, expected fp32 or bf16 for probes: "
                "their features are shared by jobs that may run on other machines."
            )
        identity, given = {"stage": "features", **options}, [backbone, store]
        output = self.folder / "features" / digest([identity, _ids(given)])
        command = ["features", backbone.spec, store.spec, "--out", str(output)]
        command += [f"{key}={value}" for key, value in options.items()]
        return self._add(
            "features",
            identity,
            given,
            command,
            output,
            title=f"features of {Path(store.name).name}: {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed, "store": store.name},
            like=f"features {store.name}",
            work=[arm.factors, options],
        )

    def _backbone(self, arm: Arm, seed: int | None) -> _Input:
        own = arm.pretraining
        if own.backbone:
            return _external(arm.level(own.backbone))
        given = [self.store(name) for name in ([own.store] if own.store else own.mix)]
        stores = " + ".join(store.name for store in given)
        content, where = self._pretrain_content(arm, given)
        if own.init is not None:
            given.append(parent := self._parent(arm, seed))
            content["backbone"]["init"] = parent.spec
        content |= {"name": arm.name, "train": {**content["train"], "seed": str(seed)}}
        recipe: PretrainRecipe = validate(PretrainRecipe, content, where)
        identity = {"stage": "pretrain", "recipe": recipe.identity(), "untrained": own.untrained}
        name = digest([identity, _ids(given)])
        path, output = self.folder / "recipes" / f"{name}.yaml", self.folder / "pretrain" / name
        self._write(path, recipe.model_dump(mode="json"))
        command = ["pretrain", str(path), "--out", str(output)]
        what, units = recipe.method.name, recipe.train.epochs * (recipe.data.limit or 1)
        if own.untrained:
            command, what, units = [*command, "--untrained"], "untrained", 1
        like = f"pretrain {what} {recipe.backbone.name} {recipe.data.size} px" + (
            "" if recipe.data.limit else f" {stores}"
        )
        made = self._add(
            "pretrain",
            identity,
            given,
            command,
            output,
            title=f"pretrain {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed},
            spec=output / "backbone",
            units=units,
            like=like,
            work=[recipe.method.options, recipe.backbone.options, recipe.data.views.model_dump()],
            asks="untrained" if own.untrained else "pretrain",
        )
        if (other := self.jobs[made.id].about["arm"]) != arm.name:
            raise RecipeError(
                f"{self.recipe.name}: pretrainings '{other}' and '{arm.name}' are the same. Leave one out."
            )
        return made

    def _pretrain_content(self, arm: Arm, stores: list[_Input]) -> tuple[dict, str]:
        """The recipe of an arm as text, with everything laid over it, and its name for messages."""
        own = arm.pretraining
        path = find_recipe(own.recipe or self.recipe.pretrain.recipe)
        levels = [self.recipe.vary[axis][level] for axis, level in arm.factors.items() if axis != "pretraining"]
        words = [word for settings in (self.recipe.pretrain.set, *levels, own.set) for word in assignments(settings)]
        content = merge(self.recipe_of(path), words)
        for section in ("data", "backbone", "train"):
            if not isinstance(content.get(section), dict):
                raise RecipeError(f"{path}: {section}: found {content.get(section)!r}, expected a section.")
        if own.store:
            content["data"].pop("mix", None)
            content["data"]["store"] = stores[0].spec
        else:
            content["data"].pop("store", None)
            parts = zip(own.mix.values(), stores, strict=True)
            content["data"]["mix"] = [{"store": store.spec, "share": str(share)} for share, store in parts]
        return content, f"{self.recipe.name}: pretrainings.{arm.name} ({path})"

    def _parent(self, arm: Arm, seed: int | None) -> _Input:
        """What an arm starts from: another arm at the same levels and seed, or a ready-made backbone."""
        init = arm.level(arm.pretraining.init)
        if init not in self.recipe.pretrainings:
            return _external(init)
        alike = [
            other
            for other in self.arms
            if other.factors["pretraining"] == init
            and all(arm.factors.get(axis) == level for axis, level in other.factors.items() if axis != "pretraining")
        ]
        if len(alike) != 1:
            raise RecipeError(
                f"{self.recipe.name}: pretrainings.{arm.name}: init: {len(alike)} pretrainings are called '{init}' at its "
                "levels, expected one. Both must vary the same axes."
            )
        if arm in self.chain:
            names = [*(one.name for one in self.chain), arm.name]
            raise RecipeError(f"{self.recipe.name}: pretrainings: {' → '.join(names)} is a circle.")
        self.chain.append(arm)
        parent = self.backbone(alike[0], seed if alike[0].seeds != [None] else None)
        self.chain.pop()
        return parent

    def _store(self, name: str) -> _Input:
        section = self.recipe.stores[name]
        if section.path:
            return _external(section.path, name)
        identity = {"stage": "ingest", "source": section.source, "options": section.options}
        output = self.folder / "stores" / digest(identity) / name
        root = "" if section.source.startswith(("phantom:", "/")) else self.recipe.sources
        command = ["ingest", os.path.join(root, section.source), "--out", str(output)]
        for key, value in section.options.items():
            flag = f"--{key.replace('_', '-')}"
            command += {"true": [flag], "false": []}.get(value, [flag, str(value)])
        return self._add(
            "ingest",
            identity,
            [],
            command,
            output,
            title=f"ingest {name}",
            about={"store": name},
            like=f"ingest {name}",
            work=identity,
            name=name,
        )

    def _task(self, name: str) -> _Opened:
        section, card = self.recipe.tasks[name], self.card(name)
        store = self.store(section.store) if section.store else _external(card["store"])
        path = self.folder / "tasks" / digest(card) / f"{name}.yaml"
        self._write(path, {**card, "store": store.spec})
        return _Opened(path, store, TaskCard.model_validate(card).kind)

    def _card(self, name: str) -> dict[str, Any]:
        """A task's card with what the study lays over it; a store of the study by its name."""
        section = self.recipe.tasks[name]
        path = find_recipe(section.card, "tasks") if section.card else None
        content = merge(self.recipe_of(path) if path else {}, assignments(section.set))
        if section.store:
            content["store"] = section.store
        where = f"{self.recipe.name}: tasks.{name}" + (f" ({path})" if path else "")
        return validate(TaskCard, content, where).model_dump(mode="json", exclude_none=True)

    def _add(
        self,
        stage: str,
        identity: Any,
        given: list[_Input],
        command: list[str],
        output: Path,
        *,
        title: str,
        about: dict[str, Any],
        like: str,
        work: Any,
        units: float = 1,
        asks: str | None = None,
        runs: Iterable[dict] = (),
        spec: Path | None = None,
        name: str = "",
    ) -> _Input:
        """A job, unless it is there already.

        Args:
            like: What costs about the same whichever the arm; `work` is what else its cost depends on.
            asks: Names its resources.
            spec: How commands name what it makes.
        """
        job_id = digest([identity, _ids(given)])
        if job_id not in self.jobs:
            asked = self.recipe.resources.get(asks or stage) or Resources()
            program = ["ssl-transfer"]
            if asked.launch:
                launcher = ["accelerate", "launch", *asked.launch.split()]
                program = [*launcher, "--main_process_port", "0", "-m", "ssl_transfer"]
            resources = {
                "gpus": asked.gpus,
                "cpus": asked.cpus,
                "memory_gb": asked.memory_gb,
                "minutes": asked.limit_minutes,
            }
            cost = {
                "kind": f"{like}, {asked.gpus} GPUs, {digest([work, about.get('arm')])}",
                "like": like,
                "units": units,
                "seconds": 60 * asked.minutes,
                "disk_mb": asked.disk_mb,
            }
            made = [one.id for one in given if one.made]
            external = {one.spec: external_id(one.spec) for one in given if not one.made}
            self.jobs[job_id] = Job(
                job_id,
                stage,
                title,
                made,
                external,
                [*program, *command],
                str(output),
                about,
                resources,
                cost,
                list(runs),
            )
        return _Input(job_id, str(spec or output), True, name)

    def _write(self, path: Path, content: Any) -> None:
        """A YAML file for a command to read; its name has its hash, so one that is there is right."""
        if self.write and path not in self.written and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.part")
            temporary.write_text(yaml.dump(content, Dumper=_Dumper, sort_keys=False))
            os.replace(temporary, path)
        self.written.add(path)


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class _Input:
    """What a job needs: the result of a job, or an artifact that is there; `spec` is how commands name it."""

    id: str
    spec: str
    made: bool
    name: str


@dataclass(frozen=True)
class _Opened:
    """A task of the study: where its card lies, its store, and its kind (`TaskCard.kind`)."""

    card: Path
    store: _Input
    kind: str


def _external(spec: str, name: str | None = None) -> _Input:
    """An artifact that no job makes: known by the id in its card if it is there, else by how it is called."""
    return _Input(f"external:{external_id(spec) or spec}", spec, False, name or spec)


def _ids(given: Iterable[_Input]) -> list[str]:
    return [one.id for one in given]


def _last_of_each(words: list[str]) -> tuple[str, ...]:
    """Settings where a later word replaces an earlier one of the same key."""
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _list(values: list) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def _products(runs: list[dict], together: bool) -> Iterator[tuple[list[float], list[int], list[dict]]]:
    """Cut runs into groups of all fractions × all seeds; one group of each run if they are not done together."""
    if not together:
        for run in runs:
            yield [run["fraction"]], [run["seed"]], [run]
        return
    seeds_of: dict[float, tuple[int, ...]] = {}
    for run in runs:
        seeds_of[run["fraction"]] = (*seeds_of.get(run["fraction"], ()), run["seed"])
    for seeds in dict.fromkeys(seeds_of.values()):
        fractions = [fraction for fraction, own in seeds_of.items() if own == seeds]
        yield fractions, list(seeds), [run for run in runs if run["fraction"] in fractions]
