"""Whether the files of a store are those that were written: sizes and a sample at opening, every image on request.

The checksum of a shard is the hash of the digests of its images, which `rows.parquet` has, so that a damaged image is found.
The checksum of any other file is the hash of its bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ssl_transfer.console import tracked
from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.digests import pixel_digest
from ssl_transfer.data.rows import FILE
from ssl_transfer.data.shards import ShardReader, shard_bytes, shard_header, shard_name
from ssl_transfer.errors import StoreError
from ssl_transfer.run import file_digest

SAMPLE = 4  # images that are compared with their digests at opening
MOST_SIZES = 64  # shards whose size is compared at opening, since each takes a request to the file system


def sample_positions(n_images: int) -> list[int]:
    """Positions of the images whose digests the card has: evenly spaced, with the first and the last."""
    return sorted({round(share * (n_images - 1)) for share in np.linspace(0, 1, SAMPLE)})


def shard_checksums(digests: Iterable[str], name: str, per_shard: int, compressed: bool) -> dict[str, str]:
    """Checksum of each shard, by file name, from the digests of all its images."""
    checksums: dict[str, str] = {}
    digest, count = hashlib.blake2b(digest_size=16), 0
    for image in digests:
        digest.update(str(image).encode())
        count += 1
        if count % per_shard == 0:
            checksums[shard_name(name, len(checksums), compressed)] = digest.hexdigest()
            digest = hashlib.blake2b(digest_size=16)
    if count % per_shard:
        checksums[shard_name(name, len(checksums), compressed)] = digest.hexdigest()
    return checksums


def check_at_opening(folder: Path, card: StoreCard, pixels: ShardReader) -> None:
    """Compare the files with the card: their names, the sizes of shards, and the pixels of a sample.

    Args:
        folder: Folder of the store.
        card: Its card.
        pixels: Reads the images.

    Raises:
        StoreError: If a file is missing or truncated, or the sample has other pixels than those that were written.
    """
    present = set(os.listdir(folder))
    expected = [name for name in card.checksums if name in present or name != FILE]
    missing = [name for name in (FILE, *expected) if name not in present]
    if missing:
        raise StoreError(f"{folder}: {_listed(missing)} missing. Copy the store again, or ingest the source again.")
    for name, per_shard, image_bytes in _kinds(card):
        shards = range(-(-card.n_images // per_shard))
        for number in shards if len(shards) <= MOST_SIZES else (0, len(shards) - 1):
            if problem := _wrong_size(folder, card, name, number, per_shard, image_bytes):
                raise StoreError(f"{folder}: {problem}. Copy the store again, or ingest the source again.")
    if card.compressed:  # a frame of blosc2 has a checksum of its own
        return
    for position, digest in card.sample.items():
        if pixel_digest(pixels.read([int(position)])[0]) != digest:
            raise StoreError(
                f"{folder}: image {position} has other pixels than those that were written: the store was altered or damaged. "
                "Copy it again, or ingest the source again; `ssl-transfer verify` lists everything that differs."
            )


def problems(folder: Path, card: StoreCard, pixels: ShardReader, masks: ShardReader | None) -> Iterator[str]:
    """Compare every file of a store with the checksums of its card.

    Yields:
        One sentence for each file or image that differs.
    """
    import pyarrow.parquet as parquet

    for name in card.checksums:
        if name.startswith(("pixels-", "masks-")):
            continue
        if not (folder / name).exists():
            yield f"{name} is missing"
        elif file_digest(folder / name) != card.checksums[name]:
            yield f"{name} has other content than what was written"
    try:
        names = [name for name in ("pixel_digest", "mask_digest") if name == "pixel_digest" or masks is not None]
        table = parquet.read_table(folder / FILE, columns=names)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        yield f"{FILE} cannot be read: {str(error).splitlines()[0][:200]}"
        return
    for reader, column in ((pixels, "pixel_digest"), (masks, "mask_digest")):
        if reader is not None:
            yield from _shard_problems(folder, card, reader, table.column(column))


def _shard_problems(folder: Path, card: StoreCard, reader: ShardReader, digests) -> Iterator[str]:
    """One sentence for each shard that is missing, truncated, or has other images."""
    shards = -(-card.n_images // reader.per_shard)
    for number in tracked(range(shards), f"checking {reader.name}", shards):
        name = shard_name(reader.name, number, card.compressed)
        problem = _wrong_size(folder, card, reader.name, number, reader.per_shard, reader.image_bytes)
        if problem:
            yield problem
            continue
        if not card.compressed and not _has_header(folder / name, reader, card.n_images - number * reader.per_shard):
            yield f"{name}: its header is not that of {reader.shape} images of {reader.dtype}"
        first = number * reader.per_shard
        expected = digests[first : first + reader.per_shard].to_pylist()
        if shard_checksums(expected, reader.name, len(expected), card.compressed).popitem()[1] != card.checksums.get(
            name
        ):
            yield f"{name}: its images in {FILE} have other digests than the card states"
        wrong = [
            first + index for index, digest in enumerate(expected) if _image_digest(reader, first + index) != digest
        ]
        if wrong:
            yield f"{name}: {len(wrong)} of {len(expected)} images differ from what was written, the first is image {wrong[0]}"


def _has_header(path: Path, reader: ShardReader, images: int) -> bool:
    expected = shard_header(reader.shape, reader.dtype, min(images, reader.per_shard))
    with open(path, "rb") as file:
        return file.read(len(expected)) == expected


def _image_digest(reader: ShardReader, position: int) -> str | None:
    try:
        return pixel_digest(reader.read([position])[0])
    except Exception:  # a frame that cannot be decoded raises what blosc2 raises
        return None


def _kinds(card: StoreCard) -> Iterator[tuple[str, int, int]]:
    """Name, images per shard, and bytes per image, of pixels and masks."""
    height, width = card.size
    yield "pixels", card.images_per_shard, card.channels * height * width * np.dtype(card.dtype).itemsize
    if card.masks:
        yield "masks", card.masks.images_per_shard, height * width * np.dtype(card.masks.dtype).itemsize


def _wrong_size(folder: Path, card: StoreCard, name: str, number: int, per_shard: int, image_bytes: int) -> str | None:
    """A sentence if a shard is missing, or is not as long as its images."""
    file = shard_name(name, number, card.compressed)
    images = min(per_shard, card.n_images - number * per_shard)
    try:
        found = (folder / file).stat().st_size
        expected = shard_bytes(folder / file, images, image_bytes, card.compressed)
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError) as error:
        return f"{file} cannot be read ({error})"
    if found == expected:
        return None
    return f"{file} has {found:,} bytes, but its {images:,} images take {expected:,}: it was truncated or altered"


def _listed(names: list[str]) -> str:
    text = ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")
    return f"{text} {'is' if len(names) == 1 else 'are'}"
