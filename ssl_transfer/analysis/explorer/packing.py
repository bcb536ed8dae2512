"""Compact encodings of arrays, columns and thumbnails in a page, decoded by `data.js`.

An array is split into byte planes (the lowest bytes of all values, then the second bytes, …), deflated, and written in base64.
Neighbours and codes are small integers, so most of their bytes are 0 and compress well.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Iterator

import numpy as np
import pandas as pd

SHEET_SIDE = 1024  # pixels; a browser decodes the whole sprite sheet to show one thumbnail
QUALITY = 70  # of WebP: about 200 bytes for a picture of 32 pixels, with hardly visible loss
CLASSES = 12  # number of colours, and thus of the classes of a column that have their own colour
Packed = dict[str, str]


def packed(array: np.ndarray) -> Packed:
    """Encode an array of any numeric dtype as `type` (`u1`, `u2`, `u4`, `f4`, `f8`) and `data`."""
    array = np.ascontiguousarray(array).ravel()
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    planes = array.view(np.uint8).reshape(-1, array.itemsize).T
    return {"type": f"{array.dtype.kind}{array.itemsize}", "data": deflated(np.ascontiguousarray(planes).tobytes())}


def deflated(data: bytes) -> str:
    """Deflate bytes and encode them in base64."""
    return base64.b64encode(zlib.compress(data, 6)).decode()


def packed_points(points: np.ndarray) -> tuple[Packed, list[float]]:
    """Encode points (N, 2), quantised to 65,536 steps per axis, and their ranges: low x, high x, low y, high y.

    At a hundred-fold zoom, a step is less than two pixels on a plot of 1000 pixels.
    """
    low, high = points.min(0).astype(np.float64), points.max(0).astype(np.float64)
    steps = np.rint((points - low) / np.maximum(high - low, 1e-12) * 65535).astype(np.uint16)
    return packed(steps.T), [float(value) for value in (low[0], high[0], low[1], high[1])]


def packed_similarities(similarities: np.ndarray) -> tuple[Packed, list[float]]:
    """Encode similarities (N, k), quantised to 65,536 steps between minimum and maximum; also return [minimum, maximum]."""
    valid = similarities.size > 0
    low, high = (float(similarities.min()), float(similarities.max())) if valid else (0.0, 1.0)
    steps = np.rint((similarities - low) / max(high - low, 1e-12) * 65535).astype(np.uint16)
    return packed(steps.T), [low, high]


def smallest(codes: np.ndarray) -> np.ndarray:
    """Convert integers ≥ 0 to the smallest unsigned dtype that fits."""
    return codes.astype(np.min_scalar_type(int(codes.max(initial=0))))


def column(name: str, values: pd.Series) -> dict:
    """Encode a column for the page.

    Returns:
        `name`, `kind`, and `colors` (whether points can be coloured by the column). A column of kind "number" has `values`,
        `whole` (all are whole numbers), `extremes`, and the `range` of its colours, from the 1st to the 99th percentile. A column
        of kind "word" has its distinct `words` (deflated JSON) from the most to the least frequent, `codes` (0 is unknown, 1 the
        first word), and the `counts` of the first `CLASSES` words. Whole numbers of up to `CLASSES` distinct values are words.
        Numbers that are not finite, and blank text, are unknown.
    """
    valid = values.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = pd.to_numeric(values).to_numpy(np.float64, na_value=np.nan)
        valid = valid & np.isfinite(numbers)
        whole = bool((numbers[valid] == np.rint(numbers[valid])).all())
        if not whole or len(np.unique(numbers[valid])) > CLASSES:
            return _numbers(name, np.where(valid, numbers, np.nan), whole)
        values = pd.Series(numbers).where(valid).astype("Int64")
    words = values.reset_index(drop=True).astype(object).where(valid, "").astype(str).str.strip()
    valid = (words != "").to_numpy()
    return _words(name, words[valid], valid)


def _numbers(name: str, numbers: np.ndarray, whole: bool) -> dict:
    single = numbers.astype(np.float32)
    exact = not whole or np.array_equal(single, numbers, equal_nan=True)
    finite = numbers[np.isfinite(numbers)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
    if low == high:
        low, high = finite.min(), finite.max()
    return {
        "name": name,
        "kind": "number",
        "whole": whole,
        "colors": len(finite) > 0,
        "range": [float(low), float(high)],
        "extremes": [float(finite.min()), float(finite.max())] if len(finite) else [0.0, 1.0],
        "values": packed(single if exact else numbers),
    }


def _words(name: str, words: pd.Series, valid: np.ndarray) -> dict:
    counts = words.value_counts(sort=False)
    counts = counts.iloc[np.lexsort((counts.index.astype(str), -counts.to_numpy()))]
    codes = np.zeros(len(valid), np.int64)
    codes[valid] = counts.index.get_indexer(pd.Index(words)) + 1
    names = len(counts) > max(CLASSES, len(words) / 2)  # identifiers, not classes
    return {
        "name": name,
        "kind": "word",
        "colors": len(counts) > 0 and not names,
        "distinct": len(counts),
        "words": deflated(json.dumps(counts.index.tolist(), ensure_ascii=False).encode("utf-8", "surrogatepass")),
        "codes": packed(smallest(codes)),
        "counts": counts.iloc[:CLASSES].tolist(),
    }


def sprite_sheets(thumbnails: np.ndarray) -> Iterator[str]:
    """Sprite sheets of at most `SHEET_SIDE` pixels, filled row by row with thumbnails, as WebP files in base64.

    Args:
        thumbnails: uint8 (N, px, px) or (N, px, px, 3).
    """
    from PIL import Image

    px = thumbnails.shape[1]
    across = max(1, SHEET_SIDE // px)
    for start in range(0, len(thumbnails), across * across):
        tiles = thumbnails[start : start + across * across]
        rows = math.ceil(len(tiles) / across)
        sheet = np.zeros((rows * across, *tiles.shape[1:]), np.uint8)
        sheet[: len(tiles)] = tiles
        sheet = sheet.reshape(rows, across, *tiles.shape[1:]).swapaxes(1, 2)
        sheet = sheet.reshape(rows * px, across * px, *tiles.shape[3:])
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(sheet)).save(buffer, "WEBP", quality=QUALITY, method=4)
        yield base64.b64encode(buffer.getvalue()).decode()
