"""Inputs of the jobs of a study: stores, task cards and backbones, each made by at most one job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.data.tasks import TaskCard
from ssl_transfer.errors import RecipeError
from ssl_transfer.paths import portable
from ssl_transfer.recipe import PretrainRecipe, digest, find_recipe, merge, read_yaml, validate
from ssl_transfer.study.arms import Arm
from ssl_transfer.study.design import StudyRecipe, assignments
from ssl_transfer.study.job_list import Input, JobList, input_ids


@dataclass(frozen=True)
class StudyTask:
    """A task of the study: its name, the path of its card, its stores, and of its card `kind`, `air` and `target_of`."""

    name: str
    card: Path
    store: Input
    kind: str
    air: str | None
    external: tuple[Input, ...] = ()
    target_of: str | None = None


class StudyInputs:
    """Stores, tasks and backbones of a study, each planned once.

    Args:
        recipe: The study.
        arms: All arms of the study.
        jobs: List that jobs for these inputs are added to.
    """

    def __init__(self, recipe: StudyRecipe, arms: Sequence[Arm], jobs: JobList):
        self.recipe, self.arms, self.jobs = recipe, arms, jobs
        self.chain: list[Arm] = []  # arms whose parents and teachers are being resolved
        self.teachers: dict[str, str] = {}  # arm that is distilled -> name of its teacher
        self.recipe_of, self.card = cache(read_yaml), cache(self._card)
        self.store, self.backbone = cache(self._store), cache(self._backbone)  # requested by every evaluation

    def _store(self, name: str) -> Input:
        """A store of the study; a source is ingested."""
        section = self.recipe.stores[name]
        if section.path:
            return Input.external(section.path, name)
        identity = {"stage": "ingest", "source": section.source, "options": section.options}
        output = self.jobs.folder / "stores" / digest(identity) / name
        source = section.source or ""  # a store has a path or a source
        root = "" if source.startswith(("phantom:", "/")) else self.recipe.sources
        command = ["ingest", portable(os.path.join(root, source)), "--out", str(output)]
        for key, value in section.options.items():
            flag = f"--{key.replace('_', '-')}"
            command += {"true": [flag], "false": []}.get(value, [flag, str(value)])
        return self.jobs.add(
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

    def task(self, name: str) -> StudyTask:
        """A task of the study, with its card written."""
        section, card = self.recipe.tasks[name], self.card(name)
        store = self.store(section.store) if section.store else Input.external(card["store"])
        external = tuple(map(self.store, section.external)) or tuple(map(Input.external, card.get("external", ())))
        path = self.jobs.folder / "tasks" / digest(card) / f"{name}.yaml"
        stores = {"store": store.spec, **({"external": [each.spec for each in external]} if external else {})}
        self.jobs.write(path, {**card, **stores})
        of_card = TaskCard.model_validate(card)
        return StudyTask(name, path, store, of_card.kind, of_card.air, external, of_card.target_of)

    def _card(self, name: str) -> dict[str, Any]:
        """A task's card with the study's overrides; a store of the study is given by its name."""
        section = self.recipe.tasks[name]
        path = find_recipe(section.card, "tasks") if section.card else None
        content = merge(self.recipe_of(path) if path else {}, assignments(section.set))
        if section.store:
            content["store"] = section.store
        if section.external:
            content["external"] = section.external
        where = f"{self.recipe.name}: tasks.{name}" + (f" ({path})" if path else "")
        card = validate(TaskCard, content, where).model_dump(mode="json", exclude_none=True)
        external = {"external": list(map(portable, card["external"]))} if card.get("external") else {}
        return {**card, "store": portable(card["store"]), **external}

    def _backbone(self, arm: Arm, seed: int | None) -> Input:
        """The backbone of an arm and pretraining seed."""
        pretraining = arm.pretraining
        if pretraining.backbone:
            spec = arm.level(pretraining.backbone)
            return Input.external(spec if spec != TRIVIAL or seed is None else f"{TRIVIAL},seed={seed}")
        inputs = [self.store(name) for name in ([pretraining.store] if pretraining.store else pretraining.mix)]
        stores = " + ".join(store.name for store in inputs)
        content, where = self._pretrain_content(arm, inputs)
        if pretraining.init is not None:
            inputs.append(parent := self._origin(arm, seed, arm.level(pretraining.init), "init"))
            content["backbone"]["init"] = parent.spec
        taught = isinstance(content.get("method"), dict) and content["method"].get("teacher")
        if taught:
            self.teachers[arm.name] = taught
            inputs.append(teacher := self._origin(arm, seed, taught, "method.teacher"))
            content["method"] = {**content["method"], "teacher": teacher.spec}
        content |= {"name": arm.name, "train": {**content["train"], "seed": str(seed)}}
        recipe: PretrainRecipe = validate(PretrainRecipe, content, where)
        identity = {"stage": "pretrain", "recipe": recipe.identity(), "untrained": pretraining.untrained}
        if pretraining.init is not None:
            identity["card"] = "all stages"  # not a backbone of an older version, whose card has the last one alone
        name = digest([identity, input_ids(inputs)])
        path, output = self.jobs.folder / "recipes" / f"{name}.yaml", self.jobs.folder / "pretrain" / name
        self.jobs.write(path, recipe.model_dump(mode="json"))
        command = ["pretrain", str(path), "--out", str(output)]
        what, units = recipe.method.name, recipe.train.epochs * (recipe.data.limit or 1)
        if pretraining.untrained:
            command, what, units = [*command, "--untrained"], "untrained", 1
        like = f"pretrain {what} {recipe.backbone.name} {recipe.data.size} px" + (
            "" if recipe.data.limit else f" {stores}"
        )
        made = self.jobs.add(
            "pretrain",
            identity,
            inputs,
            command,
            output,
            title=f"pretrain {arm.title(seed)}",
            about={"arm": arm.name, "seed": seed},
            spec=output / "backbone",
            units=units,
            like=like,
            work=[recipe.method.options, recipe.backbone.options, recipe.data.views.model_dump()],
            resources="untrained" if pretraining.untrained else "pretrain",
        )
        if (planned := self.jobs.by_id[made.id].about["arm"]) != arm.name:
            raise RecipeError(
                f"{self.recipe.name}: pretrainings '{planned}' and '{arm.name}' are the same. Leave one out."
            )
        return made

    def _pretrain_content(self, arm: Arm, stores: list[Input]) -> tuple[dict, str]:
        """The recipe of an arm with all overrides, and its name for messages."""
        pretraining = arm.pretraining
        path = find_recipe(pretraining.recipe or self.recipe.pretrain.recipe or "")
        levels = [self.recipe.vary[axis][level] for axis, level in arm.factors.items() if axis != "pretraining"]
        words = [
            word for settings in (self.recipe.pretrain.set, *levels, pretraining.set) for word in assignments(settings)
        ]
        content = merge(self.recipe_of(path), words)
        for section in ("data", "backbone", "train"):
            if not isinstance(content.get(section), dict):
                raise RecipeError(f"{path}: {section}: found {content.get(section)!r}, expected a section.")
        if pretraining.store:
            content["data"].pop("mix", None)
            content["data"]["store"] = stores[0].spec
        else:
            content["data"].pop("store", None)
            parts = zip(pretraining.mix.values(), stores, strict=True)
            content["data"]["mix"] = [{"store": store.spec, "share": str(share)} for share, store in parts]
        return content, f"{self.recipe.name}: pretrainings.{arm.name} ({path})"

    def backbone_section(self, arm: Arm) -> dict[str, Any]:
        """The section `backbone` of the recipe of an arm that is pretrained, with all overrides."""
        names = [arm.pretraining.store] if arm.pretraining.store else list(arm.pretraining.mix)
        content, _ = self._pretrain_content(arm, [Input.external(str(name)) for name in names])
        return content["backbone"]

    def _origin(self, arm: Arm, seed: int | None, named: str, key: str) -> Input:
        """The initial weights or the teacher of an arm: another arm at the same levels and seed, or an existing backbone.

        Args:
            arm: The arm.
            seed: Its pretraining seed.
            named: Name of a pretraining of the study, or of a backbone.
            key: Where it is named, for messages.
        """
        if named not in self.recipe.pretrainings:
            return Input.external(portable(named))
        parents = [
            candidate
            for candidate in self.arms
            if candidate.factors["pretraining"] == named
            and all(
                arm.factors.get(axis) == level for axis, level in candidate.factors.items() if axis != "pretraining"
            )
        ]
        if len(parents) != 1:
            raise RecipeError(
                f"{self.recipe.name}: pretrainings.{arm.name}: {key}: {len(parents)} pretrainings are called '{named}' at its "
                "levels, expected one. Both must vary the same axes."
            )
        if arm in self.chain:
            names = [*(link.name for link in self.chain), arm.name]
            raise RecipeError(f"{self.recipe.name}: pretrainings: {' → '.join(names)} is a cycle.")
        self.chain.append(arm)
        parent = self.backbone(parents[0], seed if parents[0].seeds != [None] else None)
        self.chain.pop()
        return parent
