"""Safetensors files, read without torch: shapes from the header, and the digest of the weights of a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_transfer.cards import BackboneCard
from ssl_transfer.run import to_json

Shape = tuple[int, ...]
LARGEST_HEADER = 100_000_000  # bytes; the limit of safetensors


def stored_shapes(path: Path) -> dict[str, Shape]:
    """Name -> shape of every tensor of a safetensors file.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a complete safetensors file.
    """
    return {name: tuple(entry["shape"]) for name, entry, _ in _entries(path)}


def stored_digest(path: Path, card: BackboneCard) -> str:
    """The id that a backbone with this card and the weights of this file has: that of `weights_digest`.

    Raises:
        OSError, ValueError: As `stored_shapes`.
    """
    digest = identity_digest(card)
    with open(path, "rb") as file:
        for name, entry, start in sorted(_entries(path), key=lambda found: found[0]):
            digest.update(name.encode())
            first, end = entry["data_offsets"]
            file.seek(start + first)
            left = end - first
            while left and (chunk := file.read(min(left, 2**22))):
                digest.update(chunk)
                left -= len(chunk)
    return digest.hexdigest()


def identity_digest(card: BackboneCard) -> hashlib.blake2b:
    """The hash of what identifies a backbone besides its weights: architecture, intensity, pooling and channels."""
    parts = [card.architecture, card.stem, card.options, to_json(card.intensity), card.in_channels]
    if card.pooling not in (None, "mean"):  # ids of CNNs are those of earlier versions
        parts.append(card.pooling)
    if card.channels.are_stated:
        parts.append(to_json(card.channels))
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8)


def shape_difference(expected: Mapping[str, Shape], given: Mapping[str, Shape]) -> str:
    """Where two sets of weights differ in names or shapes: the first three tensors, in words; empty if they do not."""

    def shape(shapes: Mapping[str, Shape], name: str) -> str:
        return f"of shape {shapes[name]}" if name in shapes else "absent"

    names = [name for name in {**expected, **given} if shape(expected, name) != shape(given, name)]
    first = [f"{name} is {shape(given, name)} and should be {shape(expected, name)}" for name in names[:3]]
    return "; ".join(first) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield name, header entry, and start of the data of every tensor."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise ValueError(f"found {size} bytes, which are not a complete safetensors file.")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object.")
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        offsets: Any = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not _are_counts(offsets) or len(offsets) != 2 or not _are_counts(entry.get("shape")):
            raise ValueError(f"its header says of {name} nothing that can be read.")
        if not offsets[0] <= offsets[1] <= size - 8 - length:
            raise ValueError(f"it ends before {name} does: it was truncated.")
        yield name, entry, 8 + length


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
