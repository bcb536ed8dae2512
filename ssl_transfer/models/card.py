"""Descriptions of a backbone: `card.json`, `config.json` for timm, and `README.md` for people."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ssl_transfer.cards import OWN_LICENCE, BackboneCard, TrainingStage
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.models.architecture import Architecture, TimmModel, has_fixed_size, input_convolutions
from ssl_transfer.models.pooling import check_pooling, own_pooling, timm_arguments
from ssl_transfer.models.tensor_files import identity_digest

# suffix that makes an architecture unknown to timm: it refuses to load the model, rather than load it with a wrong stem
SMALL_STEM = "_small_stem"
MAKER = "ssl_transfer"  # in `config.json`: a folder of ours that lost its card is not taken for public weights


def new_card(
    name: str,
    architecture: Architecture,
    model: nn.Module,
    intensity: Intensity,
    pooling: str | None = None,
    **facts: Any,
) -> BackboneCard:
    """The card of a new backbone.

    Args:
        name: Name in tables and figures.
        architecture: Architecture of the model.
        model: The model, to measure the length of its feature vectors.
        intensity: How input images are scaled.
        pooling: Pooling of its features; None: `own_pooling`.
        **facts: Other fields of `BackboneCard`: method, parents, pretraining_seed, …, and those of `lineage`.

    Raises:
        BackboneError: If the model cannot read images of its size, or has no such pooling.
    """
    own = own_pooling(model, architecture.options)
    if pooling not in (None, own):
        check_pooling(model, pooling, architecture.name)
    pooling = pooling or own
    return BackboneCard(
        name=name,
        **architecture.card(),
        feature_dim=architecture.feature_dim(model, pooling),
        pooling=pooling,
        intensity=intensity,
        **facts,
    )


def inherited_licence(*origins: BackboneCard) -> dict[str, str]:
    """The licence of weights that come from a parent or learned from a teacher, as a field of a card; empty if the origins
    have no other one.
    """
    own, licences = "that of its training images", ""
    for origin in origins:
        theirs = "" if origin.licence == OWN_LICENCE else origin.licence.removesuffix(f", and {own}")
        if theirs not in licences:
            licences = f"{licences}, {theirs}" if licences else theirs
    return {"licence": f"{licences}, and {own}"} if licences else {}


def weights_digest(model: nn.Module, card: BackboneCard) -> str:
    """Hash of the tensors, architecture and intensity of a backbone: 16 hex digits."""
    digest = identity_digest(card)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def timm_config(model: TimmModel, card: BackboneCard) -> dict[str, Any]:
    """The content of `config.json` for timm; for a small stem, with an architecture that timm refuses."""
    small = card.stem == "small"
    size, channels, intensity = card.image_size, card.in_channels, card.intensity
    fixed = has_fixed_size(card.architecture)
    first = input_convolutions(model)
    first = first[0] if len(first) == 1 else first
    return {
        "architecture": card.architecture + SMALL_STEM * small,
        "num_classes": 0,
        "num_features": card.feature_dim,
        "model_args": {"in_chans": channels, **card.options, **timm_arguments(model, card.pooling)}
        | ({"img_size": size} if fixed else {}),
        "pretrained_cfg": {
            "input_size": [channels, size, size],
            "fixed_input_size": fixed,
            "mean": list(intensity.mean),
            "std": list(intensity.std),
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "first_conv": first,
            "classifier": model.pretrained_cfg.get("classifier"),
            "num_classes": 0,
        },
        "made_by": MAKER,
    }


def readme(card: BackboneCard) -> str:
    """The model card for people, in Markdown."""
    windows = card.channels.windows_hu or (card.intensity.window_hu,)
    ends = ", ".join(f"{low:g} and {high:g}" for low, high in windows)
    load = (
        "This backbone has the small-image stem, which timm cannot build: load it with "
        '`ssl_transfer.load_backbone("PATH")`.'
        if card.stem == "small"
        else 'Plain timm loads it: `timm.create_model("local-dir:PATH", pretrained=True)`.'
    )
    if card.pooling in ("cls+mean", "last4"):
        load += f" timm pools its tokens in another way than this backbone ({card.pooling})."
    return f"""# {card.name}

{card.architecture}, {card.in_channels} channel(s), {card.image_size} px, {card.feature_dim} features.
Pooling: {card.pooling or "that of timm"}.
Pretrained with **{card.method}** on **{card.source_domain or "nothing"}** (seed {card.pretraining_seed}).

{load}

## Input
Channels: {card.channels}. Intensity 0 and 1 are {ends} HU for CT, 0 and 255 for displayed images; clip, then
subtract {list(card.intensity.mean)} and divide by {list(card.intensity.std)}.

## Origin
- trained in {len(card.history)} stage(s): {" → ".join(map(_stage, card.history)) or "none"}
- stores: {", ".join(card.stores) or "none"}
- parents: {", ".join(card.parents) or "none"}
- adapted: {", ".join(card.adapted) or "nothing"}
- licence: {card.licence}
{_imported(card)}- made by ssl_transfer {card.version}; `card.json` has everything.
{_against_parent(card.training or {})}"""


def _imported(card: BackboneCard) -> str:
    """A line about the checkpoint that a backbone was imported from; empty without."""
    origin = card.origin
    if origin is None:
        return ""
    counts = f"{origin.matched} tensors matched, {origin.ignored} ignored, {origin.missing} missing"
    source = f"{origin.source} (sha256 {origin.sha256}), layout {origin.layout}"
    return f"- imported from {source}: {counts}; mean and std: {origin.preprocessing}\n"


def _stage(stage: TrainingStage) -> str:
    """A stage of a backbone's training, in words."""
    known = [images for images in stage.images.values() if images is not None]
    images = f"{sum(known):,} images" if known else "an unknown number of images"
    whose = "teacher: " if stage.of_teacher else ""
    return f"{whose}{stage.method} on {images} of {stage.domain}" + (f" ({stage.dataset})" if stage.dataset else "")


def _against_parent(training: dict[str, Any]) -> str:
    """The comparison of a run with the backbone that it started from, as a section; empty if there is none."""
    if "below_parent" not in training:
        return ""
    parent, monitored, knn = training["parent"], training["monitored"], training["final"]["knn"]
    patients = "" if monitored["patients"] is None else f" of {monitored['patients']} patients"
    verdict = (
        "**below its parent** by more than one standard error of the parent's"
        if training["below_parent"]
        else "not below"
    )
    own = "undefined" if knn is None else f"{knn:.4f} ± {monitored['knn_se']:.4f}"
    return f"""
## Against its parent
Balanced accuracy of kNN (k = 20) with one standard error, on {monitored["images"]} validation images{patients} of store
{monitored["store"]}: {own}, parent {parent["name"]} {parent["knn"]:.4f} ± {parent["knn_se"]:.4f}: {verdict}.
"""
