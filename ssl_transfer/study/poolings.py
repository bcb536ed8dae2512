"""The poolings of a study's arms: all ViTs have the same one, unless the study sweeps it; and those of groups of images.

Two ViTs that are compared under different poolings differ in two factors. A study is refused then, when it is planned, unless an
axis of `vary` states the pooling, or its probes select it on validation (`pool: [cls, mean]`) and nothing is fine-tuned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer.channels import stated_input
from ssl_transfer.errors import RecipeError
from ssl_transfer.poolings import stated_pooling
from ssl_transfer.protocols import PROTOCOLS, stated_group_pool
from ssl_transfer.run import read_json
from ssl_transfer.study.arms import Arm
from ssl_transfer.study.design import Evaluation, StudyRecipe, assignments
from ssl_transfer.study.study_inputs import StudyInputs, StudyTask

USUAL = "cls"  # of a ViT that states none
VIT = re.compile(r"(?:^|[:/])(?:timm/)?(?:vit|deit|beit|eva|samvit|flexivit|dinov[23])[_\-\d]")


def check_poolings(recipe: StudyRecipe, arms: Iterable[Arm], inputs: StudyInputs) -> None:
    """Refuse ViTs of different poolings at the same levels of the axes that sweep it.

    Raises:
        RecipeError: If there are such arms.
    """
    if all(_selects(settings) for settings in _evaluations(recipe)):
        return
    axes = [axis for axis in recipe.vary if _sweeps(recipe, axis)]
    groups: dict[tuple, dict[str, str]] = {}
    for arm in arms:
        if arm.pretraining.evaluated and (pooling := _pooling(arm, inputs)):
            groups.setdefault(tuple(arm.factors.get(axis) for axis in axes), {})[arm.name] = pooling
    for poolings in groups.values():
        if len(set(poolings.values())) > 1:
            named = {pooling: name for name, pooling in reversed(poolings.items())}
            listed = ", ".join(f"{pooling} of {name}" for pooling, name in named.items())
            raise RecipeError(
                f"{recipe.name}: pretrainings: its ViTs differ in pooling: {listed}. A difference between them would be that of "
                "the pooling, too. Give all the same (`backbone: SPEC,pooling=cls`, or `set: {backbone.pooling: cls}`), make it "
                "an axis of `vary`, or let probes select it: `set: {pool: [cls, mean]}` in every evaluation."
            )


def check_group_pool(study: str, task: StudyTask, evaluation: Evaluation, words: Sequence[str]) -> None:
    """Refuse a `group_pool` that a protocol cannot apply to a task.

    Args:
        study: Name of the study, for messages.
        task: The task.
        evaluation: The evaluation, with its grid of `tune`.
        words: Its settings, with those of exceptions.

    Raises:
        RecipeError: If the task has a label per image, or the protocol lacks one of the poolings for it.
    """
    swept = evaluation.tune.grid.get("group_pool", []) if evaluation.tune else []
    candidates = [*filter(None, [stated_group_pool(words)]), *swept]
    if not candidates:
        return
    protocol, where = PROTOCOLS[evaluation.protocol], f"{study}: evaluations: {evaluation.protocol} on {task.name}"
    if not task.target_of:
        raise RecipeError(
            f"{where}: group_pool: it is for tasks with target_of, and {task.name} has a label per image. Leave it out, or "
            "state it for others alone: `set: [{task: NAME, to: {group_pool: …}}]` in the study."
        )
    for stated in candidates:
        if set(stated) - set(protocol.poolings_of(task.kind)):
            has = ", ".join(protocol.poolings_of(task.kind)) or "none"
            raise RecipeError(
                f"{where}: group_pool: found {', '.join(stated)}, expected some of {has} for a {task.kind} task."
            )


def _sweeps(recipe: StudyRecipe, axis: str) -> bool:
    """Whether the levels of an axis state poolings: in their settings, or in the backbones that are named by level."""
    levels = recipe.vary[axis]
    for settings in levels.values():
        for word in assignments(settings):
            if word.startswith("backbone.pooling=") or (word.startswith("backbone={") and '"pooling"' in word):
                return True
    named = [arm.backbone for arm in recipe.pretrainings.values() if isinstance(arm.backbone, dict)]
    stated = [[stated_pooling(spec) for level, spec in specs.items() if level in levels] for specs in named]
    return any(len(set(of_arm)) > len({spec for spec, _ in of_arm}) for of_arm in stated)


def _evaluations(recipe: StudyRecipe) -> Iterable[tuple[str, list[str]]]:
    for evaluation in recipe.evaluations:
        yield evaluation.protocol, assignments(evaluation.set)


def _selects(evaluation: tuple[str, list[str]]) -> bool:
    """Whether an evaluation selects the pooling on validation."""
    protocol, words = evaluation
    return PROTOCOLS[protocol].frozen and any(word.startswith("pool=[") for word in words)


def _pooling(arm: Arm, inputs: StudyInputs) -> str | None:
    """The pooling of an arm that is a ViT; None for another architecture, and where it is not known before it is loaded."""
    pretraining = arm.pretraining
    if not pretraining.backbone:
        section = inputs.backbone_section(arm)
        stated = str(section.get("pooling") or "")
        return _of_vit(str(section.get("name")), stated, section.get("options") or {})
    spec, stated = stated_pooling(stated_input(arm.level(pretraining.backbone))[0])
    card: dict[str, Any] = read_json(Path(spec) / "card.json") or {}
    if card:
        stated = stated or card.get("pooling")
        return _of_vit(str(card.get("architecture")), stated, card.get("options") or {}) if stated else None
    return _of_vit(spec.removeprefix("scratch:"), stated, {})


def _of_vit(name: str, stated: str | None, options: dict[str, Any]) -> str | None:
    if not VIT.search(name):
        return None
    by_option = {"token": "cls", "avg": "mean"}.get(str(options.get("global_pool")))
    return stated or by_option or USUAL
