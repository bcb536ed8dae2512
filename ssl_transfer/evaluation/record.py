"""The files of an evaluation: its result and, if requested, the fine-tuned backbone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ssl_transfer.cards import TRIVIAL, TrainingStage, lineage
from ssl_transfer.cost import Cost
from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.neighbours import repeated
from ssl_transfer.data.passport import TrainingRecord
from ssl_transfer.data.tasks import Task
from ssl_transfer.domains import UNKNOWN, Domain, boundary
from ssl_transfer.environment import device_name, environment
from ssl_transfer.evaluation.contamination import Contamination
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult
from ssl_transfer.evaluation.external import ExternalResult
from ssl_transfer.evaluation.permutation import NOTE
from ssl_transfer.evaluation.split_checks import absent_classes
from ssl_transfer.models.backbone import Backbone, save_backbone
from ssl_transfer.models.fitted_probe import CARD, TENSORS, FittedProbe, ProbeCard
from ssl_transfer.models.group_probe import Classifier
from ssl_transfer.result import EvalResult
from ssl_transfer.run import plain


def eval_result(
    protocol: str,
    backbone: Backbone,
    context: EvalContext,
    options: dict[str, Any],
    measured: ProtocolResult,
    cost: Cost,
    seen: Contamination,
    external: Sequence[ExternalResult] = (),
) -> EvalResult:
    """The result of a run.

    Args:
        protocol: A name in `PROTOCOLS`.
        backbone: The backbone as it was before the evaluation.
        context: Input of the protocol.
        options: Options of the protocol.
        measured: The result that the protocol returned.
        cost: What the protocol has cost.
        seen: Which test cases were seen in pretraining.
        external: Results on external stores.
    """
    task, recipe = context.task, context.recipe
    strategy = options["strategy"].name if "strategy" in options else None
    return EvalResult(
        run_id=context.identity,
        protocol=protocol,
        strategy=strategy,
        backbone={
            "id": backbone.id,
            "name": backbone.card.name,
            "pretraining": backbone.card.name,
            "method": backbone.card.method,
            "source_domain": backbone.card.source_domain,
            "parents": list(backbone.card.parents),
            "pretraining_seed": backbone.card.pretraining_seed,
        },
        task={"name": task.name, "target_domain": str(task.domain)},
        boundary=_boundary(backbone, task),
        fraction=recipe.fraction,
        seed=recipe.seed,
        pretraining_seed=backbone.card.pretraining_seed,
        draw=context.draw,
        n={split: task.count(positions) for split, positions in context.rows.items()},
        selected=measured.selected,
        temperature=measured.temperature,
        metrics={"val": _finite(measured.validation), "test": _finite(measured.test)},
        intervals=measured.intervals,
        seen_in_pretraining=seen.seen_in_pretraining,
        contamination=_finite_clean(seen.summary),
        external={each.name: _external(each.record) for each in external},
        cost={**cost.to_json(), "device": device_name()},
        environment=environment(device_name()),
        notes=_notes(context) + measured.notes,
        settings={
            **plain(measured.settings),
            "noise": recipe.noise.model_dump(),
            "size": context.size,
            "channels": recipe.channels,
            **({"permute_labels": True} if recipe.permute_labels else {}),
        },
    )


def keep_backbone(parent: Backbone, context: EvalContext, strategy: str, steps: int) -> None:
    """Write a fine-tuned backbone, adapters merged; its card has the stages of its parent and, as the last, this fine-tune.

    Args:
        parent: The backbone as it was before.
        context: Input of the fine-tune, with the backbone as it is now.
        strategy: Name of the strategy.
        steps: Steps until the weights that were selected.
    """
    task, folder = context.task, context.folder / "backbone"
    name, method = f"{parent.card.name} → {task.name}", f"{strategy} fine-tune"
    images: dict[str, int | None] = {task.store.card.id: len(context.rows["train"])}
    stage = TrainingStage(name=name, method=method, domain=str(task.domain), images=images, steps=steps)
    card = replace(
        context.backbone.card,
        name=name,
        method=method,
        **lineage(*parent.card.history, stage),
        parents=(*parent.card.parents, parent.id),
        run_id=context.identity,
        recipe=None,
        training=None,
    )
    shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed before it was finished
    record = TrainingRecord.of_store(parent.inputs(task.store), np.sort(context.rows["train"]))
    save_backbone(Backbone(context.backbone.model, card, passport=parent.passport.with_records(record)), folder)


def keep_probe(result: EvalResult, backbone: Backbone, context: EvalContext, classifier: Classifier) -> tuple[str, ...]:
    """Write a fitted probe into the folder of its result; returns the names of its files."""
    task, recipe = context.task, context.recipe
    card = ProbeCard(
        run_id=context.identity,
        backbone=backbone.id,
        backbone_name=backbone.card.name,
        backbone_spec=backbone.spec,
        task=task.name,
        classes=tuple(map(str, task.classes)),
        multilabel=task.kind == "multilabel",
        task_kind=task.kind,
        size=context.size,
        precision=result.settings["precision"],
        channels=recipe.channels,
        pool=result.selected.get("pool"),
        target_of=task.card.target_of,
        group_pool=result.selected.get("group_pool"),
        form=StoreForm.of(task.store.card, air=task.card.air, spacing_mm=_spacing(task)),
        metrics=result.metrics["test"],
        intervals=result.intervals,
        notes=tuple(result.notes),
    )
    FittedProbe(card, classifier).save(context.folder)
    return TENSORS, CARD


def _spacing(task: Task) -> tuple[float, float] | None:
    """Median spacing of the pixels of the store in mm (rows, columns); None if it is unknown for all images."""
    medians = []
    for name in ("spacing_row_mm", "spacing_col_mm"):
        values = np.asarray(task.store.column(name) if name in task.store.columns else (), np.float64)
        if not np.isfinite(values).any():
            return None
        medians.append(round(float(np.nanmedian(values)), 4))
    return medians[0], medians[1]


def _boundary(backbone: Backbone, task: Task) -> str:
    """The boundary between the domains of a backbone and of a task.

    Returns:
        `none`, `soft` or `hard`, for all domains of all stages of its training; `mixed` if they differ in it; `unknown` if one
        is unknown and the others do not differ; `scratch` for a backbone that was never trained, `trivial` for trivial features.
    """
    if backbone.card.method == TRIVIAL:
        return TRIVIAL
    source = backbone.card.source_domain
    boundaries = {boundary(Domain.parse(part), task.domain) for part in source.split(" + ")} if source else {"scratch"}
    known = boundaries - {UNKNOWN}
    if len(known) > 1:
        return "mixed"
    return UNKNOWN if UNKNOWN in boundaries else known.pop()


def _notes(context: EvalContext) -> list[str]:
    task, backbone = context.task, context.backbone
    notes = [NOTE] if context.recipe.permute_labels else []
    notes += absent_classes(task, context.rows)
    if task.patients is None:
        notes.append("patients unknown: splits, fractions and intervals are by image")
    have, want = task.store.shape[0], backbone.card.in_channels
    notes += repeated(task.store, backbone.card.channels)
    if have != want and not backbone.card.channels.are_stated:
        notes.append(
            f"channels: store has {have}, backbone reads {want}; " + ("repeated" if have == 1 else "luminance")
        )
    if context.recipe.channels == "adapt":
        notes += [f"channels: {change}" for change in backbone.card.adapted if "channels" in change]
    return notes


def _external(record: dict[str, Any]) -> dict[str, Any]:
    """The record of an external test without NaN."""
    finite = {name: _finite(record[name]) for name in ("metrics", "own", "gap")}
    return {**record, **finite, "contamination": _finite_clean(record["contamination"])}


def _finite_clean(summary: dict[str, Any]) -> dict[str, Any]:
    clean = summary["metrics_clean"]
    return {**summary, "metrics_clean": None if clean is None else _finite(clean)}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else round(value, 6) for name, value in values.items()}
