"""The cards of backbones and features: what `card.json` beside the tensors says. Reading one needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer import __version__
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.run import from_json, read_json, to_json, write_json

BACKBONE_SCHEMA = 1
FEATURES_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class BackboneCard:
    """What a backbone is, how it wants its images, and what it was trained on; the fields are the keys of `card.json`.

    Attributes:
        schema: Of this card.
        kind: `backbone`.
        name: As tables and figures call it.
        architecture: A timm name.
        in_channels: Channels of its images.
        image_size: Height and width that it was pretrained at, pixels.
        stem: `standard` or `small` (see `Architecture`).
        options: Further arguments of the architecture.
        feature_dim: Length of a feature vector.
        intensity: How images must be scaled.
        method: How it was trained; `none` for random initialisation.
        source_domain: What it was pretrained on; None for random initialisation. Several domains are joined by ` + `.
        parents: Ids of the backbones that it started from, the oldest first.
        stores: Ids of the stores that it was trained on.
        adapted: Changes to a parent's weights: `conv1.weight: 3 → 1 input channels`.
        pretraining_seed: Of the run; None for public weights.
        licence: Of the weights.
        version: Of ssl_transfer.
        recipe: The resolved recipe of the pretraining, if there was one.
        run_id: Of the run that wrote it.
        training: Summary of the pretraining: steps, seconds, final losses, machine.
        id: Content name: hash of the weights, the architecture and the intensity; empty until it is saved or loaded.
    """

    schema: int = BACKBONE_SCHEMA
    kind: str = "backbone"
    name: str
    architecture: str
    in_channels: int
    image_size: int
    stem: str
    options: dict[str, Any]
    feature_dim: int
    intensity: Intensity
    method: str = "none"
    source_domain: str | None = None
    parents: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    pretraining_seed: int | None = None
    licence: str = "as its training images"
    version: str = __version__
    recipe: dict[str, Any] | None = None
    run_id: str | None = None
    training: dict[str, Any] | None = None
    id: str = ""

    @classmethod
    def load(cls, folder: Path) -> BackboneCard:
        """Read the card in a backbone's folder.

        Raises:
            BackboneError: If there is no backbone, or another version wrote it.
        """
        content = read_json(folder / "card.json")
        if content is None or content.get("kind") != "backbone":
            raise BackboneError(
                f"{folder}: this is no backbone (a folder with model.safetensors, config.json and card.json). Pretrain one "
                "with `ssl-transfer pretrain RECIPE`, or name `scratch:NAME` or `timm:NAME`."
            )
        if content.get("schema") != BACKBONE_SCHEMA:
            raise BackboneError(
                f"{folder}: backbone schema {content.get('schema')}, this version reads {BACKBONE_SCHEMA}."
            )
        try:
            return from_json(cls, {**content, "intensity": from_json(Intensity, content["intensity"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise BackboneError(f"{folder}/card.json: is damaged ({error}). Pretrain again.") from None

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        (folder / "card.json").write_text(json.dumps(self.to_json(), indent=1))

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        return to_json(self, optional=("recipe", "run_id", "training"))


@dataclass(frozen=True, kw_only=True)
class FeaturesCard:
    """What cached features were computed of; the fields are the keys of `card.json`.

    Attributes:
        schema: Of this card.
        kind: `features`.
        run_id: Name of the features by their inputs.
        backbone: Id of the backbone.
        store: Id of the store.
        backbone_name: As its card has it.
        store_path: Where the store was.
        size: Height and width that the backbone saw, pixels.
        precision: `fp32` or `bf16`.
        shape: (images, features).
    """

    schema: int = FEATURES_SCHEMA
    kind: str = "features"
    run_id: str
    backbone: str
    store: str
    backbone_name: str
    store_path: str
    size: int
    precision: str
    shape: tuple[int, int]

    @classmethod
    def load(cls, folder: Path) -> FeaturesCard:
        """Read the card in a features folder.

        Raises:
            UsageError: If there are no features.
        """
        content = read_json(folder / "card.json")
        if not content or content.get("kind") != "features" or content.get("schema") != FEATURES_SCHEMA:
            raise UsageError(
                f"{folder}: no features folder of schema {FEATURES_SCHEMA}. Make one with: ssl-transfer features …"
            )
        return from_json(cls, content)

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        write_json(folder / "card.json", self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        return to_json(self)
