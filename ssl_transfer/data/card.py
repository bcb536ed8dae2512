"""The card of a store: properties of its images, their origin, and the files that were refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_transfer.errors import StoreError
from ssl_transfer.run import from_json, read_json, to_json

SCHEMA = 4  # 2: checksums; 3: digests of pixels are SHA-256; 4: fingerprints of the content
DTYPES = ("|u1", "<i2", "<f4")
MASK_DTYPES = ("|u1", "<u2")
LARGEST_IMAGE = 2**31  # bytes; a card that states more is damaged
UNITS = ("hu", "display", "rgb", "stored", "scaled")


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
        ignore: Mask value of the pixels that losses and metrics leave out; None: no pixel is ignored.
    """

    dtype: str
    images_per_shard: int
    classes: dict[str, str]
    ignore: int | None = None


@dataclass(frozen=True, kw_only=True)
class StoreCard:
    """Content of a store's `card.json`; the fields are its keys, in the same order.

    Attributes:
        source: The source that was ingested, as given on the command line; None for a store that was not ingested.
        inputs: Digest of the options and files that determine the store.
        patient_key: Which key patients, studies and series are hashed with (see `pseudonyms.key_digest`); stores with the same
            one give a patient the same hash. None for a store that was not ingested.
        units: `hu`, `display` (windowed, 0–255), `rgb`, `stored` (as in the files), or `scaled`: each image linearly, so that the
            ends of its own range (`range_low` and `range_high` in its row) are 0 and 10000.
        domain: Domain of the images, in the notation of `Domain`.
        classes: Labels in the order of their source; None without labels.
        refused: Files that are not in the store: `file`, `kind`, `reason`.
        warnings: Warnings of ingest.
        split_by: Unit that was kept together when splits were drawn (`patient`, `study`, `series`, `image`); `source` if the
            source has splits.
        split_seed: Seed of the splits; None if the source has splits.
        version: Version of ssl_transfer.
        decisions: What `ingest` decided before it read the pixels, as `ingest --check` prints it; see `Plan.decisions`.
        value_range: The values that are 0 and 1 in unit intensity. `stored`: the one range of all images; `scaled`: 0 and 10000;
            for other units, and stores without a range, the 0.5 and 99.5 percentile of a sample of the training pixels.
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
        checksums: Checksum of `rows.parquet`, of the files of the splits, and of each shard (see `integrity`), by file name.
        sample: Digests of some images by position, which are compared at opening.
        id: Content name of the store.
    """

    source: str | None = None
    inputs: str | None = None
    patient_key: str | None = None
    units: str
    domain: str
    classes: tuple[str, ...] | None
    refused: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    split_by: str
    split_seed: int | None = None
    version: str | None = None
    decisions: dict[str, Any]
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
    checksums: dict[str, str]
    sample: dict[str, str]
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
            raise StoreError(_other_schema(folder, content))
        try:
            splits = {name: SplitSize(**size) for name, size in content["splits"].items()}
            masks = content["masks"] and MaskCard(**content["masks"])
            card = from_json(cls, {**content, "splits": splits, "masks": masks})
            problem = next(_problems(card), None)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            problem = str(error)
        if problem:
            raise StoreError(
                f"{folder}/card.json: is damaged ({problem}). Copy the store again, or ingest the source again."
            )
        return card

    def save(self, folder: Path) -> None:
        """Write `card.json`."""
        (folder / "card.json").write_text(json.dumps(self.to_json(), indent=1))

    def to_json(self) -> dict[str, Any]:
        """The card as `card.json` has it."""
        return to_json(self, optional=("source", "inputs", "patient_key"))


def _other_schema(folder: Path, content: dict[str, Any]) -> str:
    found = content.get("schema")
    if not isinstance(found, int) or found > SCHEMA:
        return f"{folder}: found a store of schema {found}, this version reads {SCHEMA}. Update ssl_transfer."
    source = content.get("source")
    command = f"ssl-transfer ingest {shlex.quote(source) if isinstance(source, str) else 'SOURCE'} --out {folder}_schema{SCHEMA}"
    lacks = "has no checksums" if found < 2 else f"has other {'digests of pixels' if found < 3 else 'fingerprints'}"
    return (
        f"{folder}: found a store of schema {found}, which {lacks}; this version reads {SCHEMA}. "
        f"Ingest the source again, with the options of the first time: {command}"
    )


def _problems(card: StoreCard) -> Iterator[str]:
    """What is wrong with the values of a card: types first, then relations between values."""
    for name, kind in TYPES.items():
        value = getattr(card, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            yield f"{name} is {str(value)[:60]!r}"
    whole = {"n_images": card.n_images, "images_per_shard": card.images_per_shard, "shards": card.shards}
    whole |= {"size": card.size, "channels": card.channels}
    for name, value in whole.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(number, int) and number >= 1 for number in numbers):
            yield f"{name} is {value}, expected numbers of at least 1"
    if len(card.size) != 2 or card.channels not in (1, 3):
        yield f"its images have size {card.size} and {card.channels} channels"
    if card.dtype not in DTYPES:
        yield f"dtype is {card.dtype!r}, expected one of {', '.join(DTYPES)}"
    if card.channels * card.size[0] * card.size[1] * 4 > LARGEST_IMAGE:
        yield f"one image of {card.channels} x {card.size[0]} x {card.size[1]} takes more than {LARGEST_IMAGE >> 30} GiB"
    if card.shards != -(-card.n_images // card.images_per_shard):
        yield f"{card.n_images} images in shards of {card.images_per_shard} are not {card.shards} shards"
    if sum(split.images for split in card.splits.values()) > card.n_images:
        yield f"its splits have more images than the {card.n_images} of the store"
    if card.masks and (card.masks.dtype not in MASK_DTYPES or card.masks.images_per_shard < 1):
        yield f"masks of dtype {card.masks.dtype!r}, {card.masks.images_per_shard} in a shard"
    if len(card.value_range) != 2 or not all(isinstance(end, (int, float)) for end in card.value_range):
        yield f"value_range is {card.value_range}"
    if any(not position.isdecimal() or int(position) >= card.n_images for position in card.sample):
        yield f"its sample has positions beyond {card.n_images} images"


TYPES: dict[str, type | tuple[type, ...]] = {
    "patient_key": (str, type(None)),
    "units": str,
    "domain": str,
    "classes": (tuple, type(None)),
    "refused": tuple,
    "warnings": tuple,
    "value_range": tuple,
    "n_images": int,
    "channels": int,
    "size": tuple,
    "dtype": str,
    "compressed": bool,
    "images_per_shard": int,
    "shards": int,
    "splits": dict,
    "labels": dict,
    "decisions": dict,
    "checksums": dict,
    "sample": dict,
    "id": str,
}
