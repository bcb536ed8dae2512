"""Inspection of a store: a summary for `--json`, and a contact sheet."""

from __future__ import annotations

import colorsys
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.channels import Window
from ssl_transfer.data.display import SOFT_TISSUE_HU, displayed, text_font
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError, nearest
from ssl_transfer.texts import by_numbers, is_missing

MOST_ROWS = 12  # labels shown, if there are more
WIDTH = 1600  # pixels of the sheet
MARGIN, GAP = 28, 6
PAPER, INK, FAINT = (255, 255, 255), (28, 30, 34), (110, 116, 125)
NO_LABEL = "without a label"


def store_summary(store: ImageStore) -> dict:
    """The content of `inspect --json` for a store.

    Returns:
        `store`, `id`, `n_images`, `n_patients` (None when unknown), `n_refused`, `refused`, `splits`, `channels`,
        `size`, `dtype`, `units`, `domain`, `labels`, `classes`, `masks`, `columns`, `value_range`, `split_by`,
        `compressed`, `source`, `warnings`, `decisions`.
    """
    card = store.card
    names = (
        "id",
        "n_images",
        "n_patients",
        "n_refused",
        "splits",
        "channels",
        "size",
        "units",
        "domain",
        "labels",
        "classes",
        "value_range",
        "split_by",
        "compressed",
        "source",
        "decisions",
    )
    content = card.to_json()
    masks: dict[str, Any] | None = card.masks and {
        "classes": card.masks.classes,
        "dtype": np.dtype(card.masks.dtype).name,
    }
    if card.masks and masks and card.masks.ignore is not None:
        masks["ignore"] = card.masks.ignore
    return {
        "kind": "store",
        "store": str(store.path),
        **{name: content.get(name) for name in names},
        "warnings": store.warnings,
        "refused": store.refused,
        "dtype": np.dtype(card.dtype).name,
        "masks": masks,
        "columns": store.columns,
    }


def contact_sheet(
    store: ImageStore, path: str | os.PathLike, images: int = 64, by: str = "label", window_hu: Window = SOFT_TISSUE_HU
) -> Path:
    """Draw example images, a row for each label, with the outlines of their masks.

    Examples are evenly spaced over the rows of a label, so the same store gives the same sheet. HU are shown in a
    window, `display` values unchanged, `stored` and `scaled` values in the value range of the store, as a backbone sees
    them.

    Args:
        store: The store.
        path: Path of the PNG file.
        images: Approximate number of examples.
        by: Column whose values have a row each.
        window_hu: The HU that become black and white.

    Returns:
        The path.

    Raises:
        UsageError: If there is no such column.
    """
    if by != "label" and by not in store.columns:
        raise UsageError(f"--by {by}: {store.path} has no such column.{nearest(by, store.columns)}")
    groups = _examples(store, images, by)
    columns = max(len(positions) for _, positions in groups)
    tile = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) // columns
    sheet = _Sheet(store, columns, min(tile, 240), window_hu)
    for title, positions in groups:
        sheet.add(title, positions)
    return sheet.save(Path(path))


def _examples(store: ImageStore, images: int, by: str) -> list[tuple[str, np.ndarray]]:
    """Title and positions of the images of each row of the sheet."""
    counts = store.card.labels if by == "label" else _counts(store.column(by))
    labels = list(counts.items())
    if unlabelled := len(store) - sum(count for _, count in labels):
        labels.append((NO_LABEL if by == "label" else f"without {by}", unlabelled))
    if len(labels) == 1:
        name, count = labels[0]
        return _wrapped(
            "" if name == NO_LABEL else _title(name, count), _evenly_spaced(np.arange(count), min(images, count))
        )
    classes = list(store.card.classes or ()) if by == "label" else sorted(counts)
    names = (
        sorted(classes, key=by_numbers) if classes == sorted(classes) else classes
    )  # 9 before 10; else as the source has them
    order = {name: number for number, name in enumerate(names)}
    most = sorted(labels, key=lambda label: -label[1])[:MOST_ROWS]
    columns = min(16, max(5, images // len(most)))
    values = np.array([labels[-1][0] if is_missing(value) else str(value) for value in store.column(by)])
    return [
        (_title(name, count), _evenly_spaced(np.flatnonzero(values == name), columns))
        for name, count in sorted(most, key=lambda label: order.get(label[0], len(order)))
    ]


def _counts(values: np.ndarray) -> dict[str, int]:
    """How often each value of a column occurs."""
    return dict(Counter(str(value) for value in values if not is_missing(value)))


def _title(label: str, count: int) -> str:
    return f"{label}  ·  {_count(count, 'image')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _wrapped(title: str, positions: np.ndarray) -> list[tuple[str, np.ndarray]]:
    columns = max(1, math.ceil(math.sqrt(len(positions) * 2)))  # a sheet is about twice as wide as it is high
    rows = [positions[start : start + columns] for start in range(0, len(positions), columns)]
    return [(title if number == 0 else "", row) for number, row in enumerate(rows)]


def _evenly_spaced(positions: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the positions, evenly spaced, without the first and the last."""
    count = min(count, len(positions))
    return positions[((np.arange(count) + 0.5) * len(positions) / max(count, 1)).astype(int)]


class _Sheet:
    """A page that grows downwards: rows of tiles, then a legend and a caption."""

    def __init__(self, store: ImageStore, columns: int, tile: int, window_hu: Window):
        self.window_hu = window_hu
        self.store, self.tile, self.columns = store, tile, columns
        height, width = store.shape[1:]
        scale = tile / max(height, width)
        self.tile_size = (max(1, round(width * scale)), max(1, round(height * scale)))  # Pillow counts columns first
        self.title, self.text = text_font(18), text_font(14)
        self.bands: list = []
        self.seen: dict[int, int] = {}  # mask value -> pixels on this sheet
        self.colours: dict[int, tuple[int, int, int]] = {}

    def add(self, title: str, positions: np.ndarray) -> None:
        """Add a row of tiles."""
        from PIL import Image

        if title:
            self.bands.append(self._line(title, self.title, INK, above=10))
        row = Image.new("RGB", (WIDTH, self.tile_size[1] + GAP), PAPER)
        masks = self.store.masks(positions) if self.store.card.masks else [None] * len(positions)
        for column, (image, mask) in enumerate(zip(self.store.read(positions), masks, strict=True)):
            row.paste(self._tile(image, mask), (MARGIN + column * (self.tile + GAP), 0))
        self.bands.append(row)

    def save(self, path: Path) -> Path:
        """Add caption and legend, stack all bands and write the page."""
        from PIL import Image

        name = self._line(self.store.path.name, self.title, INK, above=4)
        bands = [Image.new("RGB", (WIDTH, MARGIN // 2), PAPER), name, *self._caption(), *self.bands, *self._legend()]
        sheet = Image.new("RGB", (WIDTH, sum(band.height for band in bands) + MARGIN // 2), PAPER)
        top = 0
        for band in bands:
            sheet.paste(band, (0, top))
            top += band.height
        used = 2 * MARGIN + self.columns * (self.tile + GAP) - GAP
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.crop((0, 0, max(used, 1100), sheet.height)).save(path)
        return path

    def _tile(self, image: np.ndarray, mask: np.ndarray | None):
        from PIL import Image

        shown = displayed(image, self.store.units, self.store.card.value_range, self.window_hu)
        tile = Image.fromarray(shown).convert("RGB")
        tile = tile.resize(self.tile_size, Image.Resampling.BICUBIC)
        if mask is None or not mask.any():
            return tile
        large = np.asarray(Image.fromarray(mask.astype(np.int32)).resize(self.tile_size, Image.Resampling.NEAREST))
        edge = _outline(large)
        pixels = np.asarray(tile).copy()
        for value in np.unique(large[large > 0]).tolist():
            self.seen[value] = self.seen.get(value, 0) + int((large == value).sum())
            pixels[edge & (large == value)] = self._colour(value)
        return Image.fromarray(pixels)

    def _colour(self, value: int) -> tuple[int, int, int]:
        hue = (0.12 + 0.381966 * len(self.colours)) % 1  # steps of the golden angle never repeat a hue
        red, green, blue = (int(255 * part) for part in colorsys.hls_to_rgb(hue, 0.58, 0.95))
        return self.colours.setdefault(value, (red, green, blue))

    def _caption(self) -> list:
        card = self.store.card
        patients = "patients unknown" if card.n_patients is None else _count(card.n_patients, "patient")
        height, width = card.size
        form = f"{height} x {width} px, {_count(card.channels, 'channel')}, {np.dtype(card.dtype).name}"
        first = f"{_count(len(self.store), 'image')} · {patients} · {form} · {card.units}"
        if card.units == "hu":
            first += " (shown: soft tissue, width 400, level 40 HU)"
        if card.units == "stored":
            first += f" (shown: {card.value_range[0]:g} to {card.value_range[1]:g})"
        if card.units == "scaled":
            first += " (shown: the range of each image)"
        splits = " · ".join(
            f"{name} {n.images:,}" + ("" if n.patients is None else f" ({_count(n.patients, 'patient')})")
            for name, n in card.splits.items()
        )
        second = f"{card.domain} · {splits} · {_count(card.n_refused, 'file')} refused"
        if len(card.labels) > MOST_ROWS:  # the most frequent ones
            second += f" · {MOST_ROWS} of {len(card.labels)} labels shown"
        return [self._line(first, self.text, FAINT), self._line(second, self.text, FAINT, below=8)]

    def _legend(self) -> list:
        """Names of the mask values on the sheet, the largest area first; empty for instances, which have no names."""
        from PIL import Image, ImageDraw

        masks = self.store.card.masks
        names = {int(value): name for value, name in (masks.classes if masks else {}).items()}
        if masks and masks.ignore is not None:
            names[masks.ignore] = "ignored"
        largest = [value for value in sorted(self.seen, key=self.seen.__getitem__, reverse=True) if value in names][:16]
        if not largest:
            return []
        lines, left = [Image.new("RGB", (WIDTH, 28), PAPER)], MARGIN
        for value in largest:
            width = 24 + int(self.text.getlength(names[value])) + 22
            if left + width > min(WIDTH, max(1100, 2 * MARGIN + self.columns * (self.tile + GAP))):
                lines.append(Image.new("RGB", (WIDTH, 28), PAPER))
                left = MARGIN
            draw = ImageDraw.Draw(lines[-1])
            draw.rectangle((left, 10, left + 14, 22), fill=self._colour(value))
            draw.text((left + 22, 6), names[value], font=self.text, fill=INK)
            left += width
        return lines

    def _line(self, text: str, font, colour: tuple[int, int, int], above: int = 2, below: int = 4):
        from PIL import Image, ImageDraw

        left, top, _, bottom = font.getbbox("Åg")
        band = Image.new("RGB", (WIDTH, above + bottom - top + below), PAPER)
        ImageDraw.Draw(band).text((MARGIN - left, above - top), text, font=font, fill=colour)
        return band


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that touch another value to the left, right, above or below; (H, W) bool."""
    edge = np.zeros(mask.shape, bool)
    vertical, horizontal = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= vertical
    edge[:-1] |= vertical
    edge[:, 1:] |= horizontal
    edge[:, :-1] |= horizontal
    return edge & (mask > 0)
