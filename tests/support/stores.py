"""Stores with other content than was written: resealed as if it had been written so, or damaged."""

import json
from pathlib import Path

import numpy as np
import pandas

from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.digests import pixel_digest
from ssl_transfer.data.integrity import sample_positions, shard_checksums
from ssl_transfer.run import file_digest


def resealed(folder: Path) -> Path:
    """Make digests and checksums of a plain store of one shard those of its pixels and rows."""
    card = StoreCard.load(folder)
    pixels = np.load(folder / "pixels-00000.npy")
    rows = pandas.read_parquet(folder / "rows.parquet")
    rows["pixel_digest"] = digests = [pixel_digest(image) for image in pixels]
    rows.to_parquet(folder / "rows.parquet", index=False)
    content = card.to_json()
    content["sample"] = {str(position): digests[position] for position in sample_positions(len(digests))}
    content["checksums"] |= shard_checksums(digests, "pixels", card.images_per_shard, False)
    content["checksums"]["rows.parquet"] = file_digest(folder / "rows.parquet")
    (folder / "card.json").write_text(json.dumps(content))
    return folder


def with_damaged_frames(folder: Path) -> Path:
    """Damage the pixels of a compressed store, which is noticed when they are decoded."""
    path = folder / "pixels-00000.b2"
    content = bytearray(path.read_bytes())
    content[64:] = bytes(len(content) - 64)
    path.write_bytes(bytes(content))
    return folder
