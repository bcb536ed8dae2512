"""The cards of backbones and features: `card.json` beside the tensors, read without torch."""

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
        intensity: How input images are scaled.
        method: Pretraining method; `none` for random initialisation.
        source_domain: Domain of its pretraining images; None for random initialisation. Several domains are joined by ` + `.
        parents: Ids of the backbones that its weights come from, the oldest first.
        stores: Ids of the stores that it was trained on.
        adapted: Changes to the parent's weights, such as `conv1.weight: 3 → 1 input channels`.
        pretraining_seed: Seed of the pretraining; None for public weights.
        licence: Licence of the weights.
        version: Version of ssl_transfer.
        recipe: The resolved recipe of the pretraining; None without one.
        run_id: Id of the run that wrote it.
        training: Summary of the pretraining: steps, seconds, final losses, machine.
        id: Hash of the weights, the architecture and the intensity; empty until the backbone is saved or loaded.
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
            BackboneError: If the folder has no backbone, or one of another schema version.
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
            UsageError: If the folder has no features of this schema version.
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
