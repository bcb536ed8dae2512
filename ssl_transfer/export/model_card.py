"""The README of an export: for people, and with a YAML head for the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ssl_transfer.cards import BackboneCard, TrainingStage
from ssl_transfer.export.licences import hub_licence, is_non_commercial
from ssl_transfer.export.preprocessing import Preprocessing
from ssl_transfer.measures.classification import OPERATING_POINT
from ssl_transfer.measures.metrics import METRICS
from ssl_transfer.result import EvalResult

HUB_TASK = "image-feature-extraction"
# Kind of metrics -> task type of a result on the hub (huggingface.co/tasks), the first kind that a result has; the hub has no
# type of grades, and none of regression but that from a row of numbers, as features are.
HUB_RESULTS = {
    "segmentation": "image-segmentation",
    "classification": "image-classification",
    "regression": "tabular-regression",
    "survival": "other",
}
HUB_METRICS = {  # metrics that huggingface.co/metrics has under another name
    "auroc": "roc_auc",
    "mcc": "matthews_correlation",
    "r2": "r_squared",
    "spearman": "spearmanr",
}
AT_OPERATING_POINT = ("sensitivity_at_specificity", "specificity_at_sensitivity")
USE = """Features of two-dimensional images and slices for research: linear probes, nearest neighbours, fine-tuning, and encoders
of segmentation networks. Evaluate it on data of your own before you rely on it."""
LIMITS = """- It is not a medical device and was not validated for diagnosis, screening or treatment.
- Images of other domains, scanners, protocols, populations or pixel spacings than those of its training may get features of
  lower value; this was measured only where a result above says so.
- It sees {sees} in a square of fixed size: context beyond them, and details smaller than its pixels, are lost.
- What its training images share with an evaluation (patients, near-duplicates) inflates results; `contamination` in a result has
  what is known of it.
- Preprocessing is a part of it: with another window, size or normalisation, results do not hold."""


def model_card(
    card: BackboneCard, preprocessing: Preprocessing, usage: str, results: Sequence[EvalResult] = (), note: str = ""
) -> str:
    """The README of an exported backbone, in Markdown.

    Args:
        card: The card of the backbone.
        preprocessing: How its input is made.
        usage: How the library loads it, in Markdown.
        results: Evaluations of this backbone, for the table.
        note: A paragraph behind the first one.
    """
    sees = "single images" if preprocessing.context == 1 else f"{preprocessing.context} neighbouring slices"
    parts = [
        f"# {card.name}",
        _warning(card.licence),
        f"{card.architecture}, {card.in_channels} channel(s), {card.image_size} px, {card.feature_dim} features. {_origin(card)}",
        note,
        f"## Use\n\n{usage}",
        f"## Preprocessing\n\n{preprocessing.as_markdown()}",
        f"## Training data and method\n\n{_training(card)}",
        f"## Results\n\n{_results(results)}",
        f"## Intended use\n\n{USE}",
        f"## Limits\n\n{LIMITS.format(sees=sees)}",
        f"## Licence\n\n{_licence(card)}",
        f"Made by ssl_transfer {card.version}; backbone `{card.id}`.",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _origin(card: BackboneCard) -> str:
    if not card.source_domain:
        return "**Random initialisation**: not pretrained."
    return f"Pretrained with **{card.method}** on **{card.source_domain}**."


def hub_head(card: BackboneCard, results: Sequence[EvalResult]) -> str:
    """The YAML head of a model card on the hub, with the line of dashes before and behind it."""
    from huggingface_hub import EvalResult as HubResult
    from huggingface_hub import ModelCardData

    identifier, name = hub_licence(card.licence)
    domains = (card.source_domain or "").split(" + ") if card.source_domain else []
    data = ModelCardData(
        library_name="timm",
        license=identifier,
        license_name=name,
        pipeline_tag=HUB_TASK,
        tags=["timm", "self-supervised-learning", card.method, *domains],
        model_name=card.name if results else None,
        eval_results=[_hub_result(HubResult, *entry) for entry in _entries(results)] or None,
        ignore_metadata_errors=False,
    )
    return f"---\n{data.to_yaml().strip()}\n---\n\n"


def _hub_result(kind: Any, result: EvalResult, metric: str, value: float, interval: Sequence[float] | None) -> Any:
    """A result as the hub has it; its format has no interval, so that this stands in the name."""
    within = f" [95 % interval {interval[0]:.4f} to {interval[1]:.4f}]" if interval else ""
    return kind(
        task_type=HUB_RESULTS[_kind(result)],
        task_name=f"{result.protocol}{f' ({result.strategy})' if result.strategy else ''}, fraction {result.fraction:g}",
        dataset_type=result.task["name"],
        dataset_name=f"{result.task['name']} ({result.task['target_domain']})",
        dataset_split="test",
        metric_type=HUB_METRICS.get(metric, metric),
        metric_name=f"{_title(result, metric)}{within}",
        metric_value=round(value, 4),
    )


def _entries(results: Sequence[EvalResult]) -> list[tuple[EvalResult, str, float, Sequence[float] | None]]:
    """Every metric over all classes of every result: the result, name, value and interval."""
    return [
        (result, name, value, result.intervals.get(name))
        for result in results
        for name, value in result.metrics["test"].items()
        if name in METRICS and value is not None
    ]


def _kind(result: EvalResult) -> str:
    """The kind of a result's metrics, of `HUB_RESULTS`."""
    kinds = {kind for name in result.metrics["test"] if name in METRICS for kind in METRICS[name].kinds}
    return next((kind for kind in HUB_RESULTS if kind in kinds), "classification")


def _title(result: EvalResult, metric: str) -> str:
    """Name of a metric with what its value depends on: its unit, or the operating point of the task."""
    title, kind = METRICS[metric].title, _kind(result)
    if metric in AT_OPERATING_POINT:
        return f"{title} {result.settings.get('operating_point', OPERATING_POINT):g}"
    if METRICS[metric].has_unit and kind != "segmentation":
        return f"{title}, in {'grades' if kind == 'classification' else 'the unit of the target'}"
    return title


def _warning(licence: str) -> str:
    if not is_non_commercial(licence):
        return ""
    return (
        f"> **No commercial use.** The weights are under the licence `{licence}`, which excludes it. This holds for every "
        "copy of them, in any form."
    )


def _licence(card: BackboneCard) -> str:
    return f"{card.licence}. It comes with the weights, in whatever form they are." + (
        " **Commercial use is excluded.**" if is_non_commercial(card.licence) else ""
    )


def _training(card: BackboneCard) -> str:
    stages = "\n".join(f"{number}. {_stage(stage)}" for number, stage in enumerate(card.history, 1))
    facts = {
        "stores": ", ".join(card.stores),
        "seed of the pretraining": card.pretraining_seed,
        "weights of its parents": ", ".join(card.parents),
        "adapted from its parent": ", ".join(card.adapted),
    }
    lines = [
        stages or "None: its weights are random.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items() if value),
    ]
    if card.recipe:
        lines += [
            "",
            "The recipe, with all options:",
            "",
            "```json",
            json.dumps(card.recipe, indent=1, default=str),
            "```",
        ]
    return "\n".join(lines)


def _stage(stage: TrainingStage) -> str:
    known = [images for images in stage.images.values() if images is not None]
    images = f"{sum(known):,} images" if known else "an unknown number of images"
    steps = f", {stage.steps:,} steps" if stage.steps else ""
    return f"{stage.method} on {images} of the domain {stage.domain} ({stage.name}{steps})"


def _results(results: Sequence[EvalResult]) -> str:
    if not results:
        return "None were given. Nothing is stated about the quality of these features."
    head = "| task | domain | boundary | protocol | fraction | seed | metric | test | 95 % interval | test images (patients) |"
    lines = [head, "|" + " --- |" * 10]
    for result, metric, value, interval in _entries(results):
        n = result.n["test"]
        row = (
            result.task["name"],
            result.task["target_domain"],
            result.boundary,
            result.protocol + (f" ({result.strategy})" if result.strategy else ""),
            f"{result.fraction:g}",
            result.seed,
            _title(result, metric),
            f"{value:.4f}",
            f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "–",
            f"{n['images']} ({'unknown' if n['patients'] is None else n['patients']})",
        )
        lines.append("| " + " | ".join(map(str, row)) + " |")
    notes = list(dict.fromkeys(note for result in results for note in result.notes))
    return "\n".join(
        [*lines, "", "Intervals: bootstrap over patients of the test set.", *(f"- {note}" for note in notes)]
    )
