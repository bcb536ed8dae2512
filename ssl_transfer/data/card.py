"""The card of a store: properties of its images, their origin, and the files that were refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.errors import StoreError
from ssl_transfer.run import from_json, read_json, to_json

SCHEMA = 1


@dataclass(frozen=True)
class SplitSize:
    """Number of images of a split, and of its patients (None if unknown)."""

    images: int
    patients: int | None


@dataclass(frozen=True)
class MaskCard:
    """The masks of a store.

    Attributes:
        dtype: Dtype of the masks in NumPy's notation (`|u1`).
        images_per_shard: Number of masks in each shard but the last.
        classes: Name of each mask value (as text); empty for instances, which have no names.
    """

    dtype: str
    images_per_shard: int
    classes: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class StoreCard:
    """Content of a store's `card.json`; the fields are its keys, in the same order.

    Attributes:
        source: The source that was ingested, as given on the command line; None for a store that was not ingested.
        inputs: Digest of the options and files that determine the store.
        units: `hu`, `display` (windowed, 0–255), `rgb` or `stored`.
        domain: Domain of the images, in the notation of `Domain`.
        classes: Labels in the order of their source; None without labels.
        refused: Files that are not in the store: `file`, `kind`, `reason`.
        warnings: Warnings of ingest.
        split_by: Unit that was kept together when splits were drawn (`patient`, `study`, `series`, `image`); `source` if the
            source has splits.
        split_seed: Seed of the splits; None if the source has splits.
        version: Version of ssl_transfer.
        value_range: The 0.5 and 99.5 percentile of a sample of the training pixels.
        schema: Schema version of this card.
        kind: `store`.
        n_images: Number of images.
        n_patients: Number of patients; None if one or more are unknown.
        channels: 1 or 3.
        size: Height and width in pixels.
        dtype: Dtype of the images in NumPy's notation (`<i2`).
        compressed: Whether shards are blosc2 frames and not `.npy` files.
        images_per_shard: Images in each shard but the last.
        shards: How many there are.
        splits: Sizes by split.
        n_refused: Number of refused files.
        labels: Images by label.
        masks: Of the images; None without masks.
        id: Content name of the store.
    """

    source: str | None = None
    inputs: str | None = None
    units: str
    domain: str
    classes: tuple[str, ...] | None
    refused: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    split_by: str
    split_seed: int | None = None
    version: str | None = None
    value_range: tuple[float, float]
    schema: int = SCHEMA
    kind: str = "store"
    n_images: int
    n_patients: int | None
    channels: int
    size: tuple[int, int]
    dtype: str
    compressed: bool
    images_per_shard: int
    shards: int
    splits: dict[str, SplitSize]
    n_refused: int
    labels: dict[str, int]
    masks: MaskCard | None
    id: str

    @classmethod
    def load(cls, folder: Path) -> StoreCard:
        """Read the card of a store.

        Raises:
            StoreError: If there is no store in the folder, or a newer version wrote it.
        """
        if not folder.exists():
            raise StoreError(
                f"{folder}: there is no such store. Make it with: ssl-transfer ingest SOURCE --out {folder}"
            )
        content = read_json(folder / "card.json")
        if content is None or content.get("kind") != "store":
            raise StoreError(
                f"{folder}: this is no image store (a store is a folder with a card.json that ingest wrote). "
                f"Make one with: ssl-transfer ingest {folder} --out stores/NAME"
            )
        if content.get("schema") != SCHEMA:
            raise StoreError(
                f"{folder}: store schema {content.get('schema')}, this version reads {SCHEMA}. Update ssl_transfer."
            )
        try:
            splits = {name: SplitSize(**size) for name, size in content["splits"].items()}
            masks = content["masks"] and MaskCard(**content["masks"])
            return from_json(cls, {**content, "splits": splits, "masks": masks})
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{folder}/card.json: is damaged ({error}). Ingest again.") from None

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        (folder / "card.json").write_text(json.dumps(self.to_json(), indent=1))

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        return to_json(self, optional=("source", "inputs"))
