"""The cards of backbones and features: `card.json` beside the tensors, read without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssl_transfer import __version__
from ssl_transfer.channels import IMAGE, InputChannels
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.records import Channels, Count, PathPart, Pixels, Positive, damage, validated
from ssl_transfer.run import read_json, to_json, write_json

BACKBONE_SCHEMA = 1
FEATURES_SCHEMA = 1
AGAIN = "Pretrain again."
FEATURES_AGAIN = "Delete the folder; the same command computes the features again."
OWN_LICENCE = "as its training images"  # of weights that were trained from random initialisation
TRIVIAL = "trivial"  # trivial features: spec and method of the backbone, and boundary of its results
TRIVIAL_NAME = "trivial features"


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """One training that the weights of a backbone come from: a pretraining, a fine-tune, or that of public weights; or one that
    its teacher comes from.

    Attributes:
        name: Name of the backbone that it made.
        method: Method or strategy.
        domain: Domain of its images; several are joined by ` + `.
        images: Id of each store -> number of its distinct training images, None where unknown; empty for public weights.
        steps: Optimiser steps; None where unknown.
        dataset: Data set of public weights, such as `ImageNet-1k`; None where unknown, and for stores.
        teacher: Id of the backbone whose features were distilled; None without one.
        of_teacher: Whether it trained the teacher and not these weights.
    """

    name: str
    method: str
    domain: str
    images: dict[str, Count | None]
    steps: Count | None = None
    dataset: str | None = None
    teacher: PathPart | None = None
    of_teacher: bool = False


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where imported weights come from, and how many tensors of their checkpoint the backbone has.

    Attributes:
        source: File, folder or `hf-hub:OWNER/NAME[@rev]` that was imported.
        sha256: SHA-256 of the file with the tensors, 64 hex digits.
        layout: Name of the checkpoint's layout, see `ssl_transfer.models.importing`.
        state_dict: Path of the state dict in the checkpoint, such as `teacher`; empty if the file is one.
        matched: Number of tensors of the checkpoint that the backbone has.
        ignored: Number of tensors of the checkpoint that the layout names as no part of the backbone: heads, queues, decoders.
        missing: Number of tensors of the backbone that the checkpoint lacks; only step counters of BatchNorm may be, which no
            feature depends on.
        preprocessing: Where mean and standard deviation come from, in words.
    """

    source: str
    sha256: str
    layout: str
    state_dict: str
    matched: Count
    ignored: Count
    missing: Count
    preprocessing: str


def lineage(*stages: TrainingStage) -> dict[str, Any]:
    """The fields of a backbone's card that follow from all stages of its training, the oldest first.

    Example:
        >>> ct = TrainingStage(name="A", method="simclr", domain="ct", images={"c": 1500})
        >>> photographs = TrainingStage(name="B", method="simclr", domain="photograph", images={"p": 1500})
        >>> lineage(ct, photographs)["source_domain"], lineage(ct, photographs)["stores"]
        ('ct + photograph', ('c', 'p'))
    """
    domains = dict.fromkeys(domain for stage in stages for domain in stage.domain.split(" + "))
    stores = dict.fromkeys(store for stage in stages for store in stage.images)
    return {"source_domain": " + ".join(domains) or None, "stores": tuple(stores), "stages": stages}


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """Architecture, input and training of a backbone; the fields are the keys of `card.json`.

    Attributes:
        schema: Schema version of this card.
        kind: `backbone`.
        name: Name in tables and figures.
        architecture: Name of the architecture in timm.
        in_channels: Number of input channels.
        image_size: Height and width of its pretraining images, in pixels.
        stem: `standard` or `small` (see `Architecture`).
        options: Further arguments of the architecture.
        feature_dim: Length of a feature vector.
        pooling: How the features of an image become one vector: `cls`, `mean`, `cls+mean` or `last4` of a ViT's tokens (see
            `models.pooling`), `mean` of a CNN's last feature map, or timm's word for another one. None in cards of earlier
            versions, and for trivial features: that of timm.
        intensity: How input images are scaled.
        channels: What the channels are, if not grey or colours: neighbouring slices, or several windows.
        method: Pretraining method; `none` for random initialisation, `trivial` for trivial features.
        source_domain: Domain of its training images in all stages; None without pretraining. Several domains are joined by
            ` + `.
        parents: Ids of the backbones that its weights come from, the oldest first.
        stores: Ids of the stores that it was trained on in all stages.
        stages: The trainings that its weights come from, the oldest first, and in front of a distillation those of its teacher;
            empty for random initialisation.
        adapted: Changes to the parent's weights, such as `conv1.weight: 3 → 1 input channels`.
        pretraining_seed: Seed of the pretraining; None for public weights. Of trivial features, the pretraining seed whose
            draws evaluations use.
        licence: Licence of the weights.
        version: Version of ssl_transfer.
        recipe: The resolved recipe of the pretraining; None without one.
        run_id: Id of the run that wrote it.
        training: Summary of the pretraining: steps, seconds, final losses, machine.
        passport: Id of the passport in its folder, which has what is known of its training images; None: there is none.
        origin: Checkpoint that it was imported from; None: it was not imported.
        id: Hash of the weights, the architecture, the intensity, the pooling and the channels; empty until it is saved or loaded.
    """

    schema: int = BACKBONE_SCHEMA
    kind: str = "backbone"
    name: str
    architecture: str
    in_channels: Channels
    image_size: Pixels
    stem: Literal["standard", "small"]
    options: dict[str, Any]
    feature_dim: Positive
    pooling: str | None = None
    intensity: Intensity
    channels: InputChannels = IMAGE
    method: str = "none"
    source_domain: str | None = None
    parents: tuple[PathPart, ...] = ()
    stores: tuple[PathPart, ...] = ()
    stages: tuple[TrainingStage, ...] = ()
    adapted: tuple[str, ...] = ()
    pretraining_seed: Count | None = None
    licence: str = OWN_LICENCE
    version: str = __version__
    recipe: dict[str, Any] | None = None
    run_id: PathPart | None = None
    training: dict[str, Any] | None = None
    passport: str | None = None
    origin: Origin | None = None
    id: PathPart | Literal[""] = ""

    @property
    def history(self) -> tuple[TrainingStage, ...]:
        """Its stages; where it states none, the single one that its other fields describe."""
        if self.stages or self.source_domain is None:
            return self.stages
        limit = ((self.recipe or {}).get("data") or {}).get("limit")
        images = {store: limit and limit // len(self.stores) for store in self.stores}
        steps = (self.training or {}).get("steps")
        domain = self.source_domain
        return (TrainingStage(name=self.name, method=self.method, domain=domain, images=images, steps=steps),)

    @property
    def images(self) -> int | None:
        """Number of distinct training images in all stages; None where unknown.

        A store that several stages were trained on counts once, with its largest number.
        """
        counts: dict[str, int] = {}
        for stage in self.history:
            if not stage.images or None in stage.images.values():
                return None
            for store, images in stage.images.items():
                counts[store] = max(images or 0, counts.get(store, 0))
        return sum(counts.values()) if counts else None

    @property
    def steps(self) -> int | None:
        """Optimiser steps of all stages; None where unknown."""
        steps = [stage.steps for stage in self.history]
        return sum(step or 0 for step in steps) if steps and None not in steps else None

    @classmethod
    def load(cls, folder: Path) -> BackboneCard:
        """Read the card in a backbone's folder.

        Raises:
            BackboneError: If the folder has no backbone, or one of another schema version, or one that was pretrained from
                another and does not state its stages.
        """
        path = folder / "card.json"
        content = read_json(path)
        if content is None and path.is_file():
            raise BackboneError(f"{path}: {damage(path)}. {AGAIN}")
        if content is None or content.get("kind") != "backbone":
            if (folder / "backbone" / "card.json").is_file():
                raise BackboneError(f"{folder}: this is a run. Name its backbone: {folder}/backbone.")
            if folder.name == "backbone" and (folder.parent / "recipe.yaml").is_file():
                raise BackboneError(
                    f"{folder}: the run {folder.parent} has not finished, so it has no backbone. Repeat its command: it goes on."
                )
            raise BackboneError(
                f"{folder}: this is no backbone (a folder with model.safetensors, config.json and card.json). Pretrain one "
                "with `ssl-transfer pretrain RECIPE`, or name `scratch:NAME`, `imagenet:NAME` or `timm:NAME`. Weights of others: "
                f"`ssl-transfer import {folder} --out FOLDER`."
            )
        if content.get("schema") != BACKBONE_SCHEMA:
            raise BackboneError(
                f"{folder}: backbone schema {str(content.get('schema'))[:40]}, this version reads {BACKBONE_SCHEMA}."
            )
        if content.get("recipe") and content.get("parents") and "stages" not in content:
            raise BackboneError(
                f"{folder}/card.json: this pretraining started from another backbone, and the card states the domains and stores "
                "of its last stage alone, as cards of earlier versions did: what was seen before would stay unknown. Pretrain "
                "again into another folder."
            )
        card = validated(cls, content, path, BackboneError, AGAIN)
        if problem := _disagreement(card):
            raise BackboneError(f"{path}: is damaged: {problem}. {AGAIN}")
        return card

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        write_json(folder / "card.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        content = to_json(self, optional=("recipe", "run_id", "training", "passport", "origin"))
        return content if self.channels.are_stated else {k: v for k, v in content.items() if k != "channels"}


def _disagreement(card: BackboneCard) -> str:
    """Where the fields of a card contradict each other, in words; empty if they do not."""
    intensity = card.intensity
    for name, values in (("mean", intensity.mean), ("std", intensity.std)):
        if len(values) != card.in_channels:
            return f"intensity.{name}: found {len(values)} values for {card.in_channels} channels"
    if not all(map(math.isfinite, (*intensity.mean, *intensity.std, *intensity.window_hu))):
        return "intensity: found a value that is not finite"
    if problem := _of_channels(card):
        return f"channels: {problem}"
    if min(intensity.std) <= 0 or intensity.window_hu[0] >= intensity.window_hu[1]:
        return "intensity: expected std above 0 and a window of rising HU"
    return ""


def _of_channels(card: BackboneCard) -> str:
    """Where the channels of a card contradict themselves or its other fields, in words; empty if they do not."""
    channels = card.channels
    if not channels.are_stated or channels.problem:
        return channels.problem
    if channels.count != card.in_channels:
        return f"found {channels}, which are {channels.count}, and in_channels {card.in_channels}"
    if channels.windows_hu and channels.windows_hu[0] != card.intensity.window_hu:
        return f"found {channels}, and another window in intensity"
    return ""


@dataclass(frozen=True, kw_only=True)
class FeaturesCard:
    """Inputs and settings of cached features; the fields are the keys of `card.json`.

    Attributes:
        schema: Schema version of this card.
        kind: `features`.
        run_id: Hash of the inputs and settings.
        backbone: Id of the backbone.
        store: Id of the store.
        backbone_name: Name of the backbone.
        store_path: Path of the store at the time.
        size: Height and width of the input of the backbone, in pixels.
        precision: `fp32` or `bf16`.
        shape: Number of images and number of features.
        pooling: Pooling of the backbone; None in cards of earlier versions.
        poolings: Further poolings that `features.safetensors` holds, tensors with these names; None: there are none.
        digest: Hash of `features.safetensors`; None in cards of earlier versions.
        float32: What float32 was in the computation, `ieee`; None in cards of earlier versions.
        cost: What they have cost (see `Cost`); None in cards of earlier versions.
    """

    schema: int = FEATURES_SCHEMA
    kind: str = "features"
    run_id: PathPart
    backbone: PathPart
    store: PathPart
    backbone_name: str
    store_path: str
    size: Pixels
    precision: Literal["fp32", "bf16"]
    shape: tuple[Count, Count]
    digest: str | None = None
    pooling: str | None = None
    poolings: tuple[str, ...] | None = None
    float32: str | None = None
    cost: dict[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> FeaturesCard:
        """Read the card in a features folder.

        Raises:
            UsageError: If the folder has no features of this schema version.
        """
        path = folder / "card.json"
        content = read_json(path)
        if content is None and path.is_file():
            raise UsageError(f"{path}: {damage(path)}. {FEATURES_AGAIN}")
        if not content or content.get("kind") != "features" or content.get("schema") != FEATURES_SCHEMA:
            raise UsageError(
                f"{folder}: no features folder of schema {FEATURES_SCHEMA}. Make one with: ssl-transfer features …"
            )
        return validated(cls, content, path, UsageError, FEATURES_AGAIN)

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        write_json(folder / "card.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        return to_json(self, optional=("digest", "pooling", "poolings", "float32", "cost"))
