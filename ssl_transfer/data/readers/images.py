"""The reader of PNG, JPEG, TIFF and BMP files: a class per sub-folder, and splits if the first folders are named like splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_transfer.data.readers.finite import replace_non_finite
from ssl_transfer.data.readers.items import Items
from ssl_transfer.data.readers.limits import MAX_MEGAPIXELS
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.data.readers.matching import IMAGE_FOLDERS, IMAGE_SUFFIXES, leave_out_masks, suffix
from ssl_transfer.data.readers.pictures import (
    facts_of,
    form_of,
    open_picture,
    pixels,
    stored_bits,
    upright,
    upright_size,
)
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, Unreadable, is_hidden, named_file, walk
from ssl_transfer.data.readers.tiff import TiffLayout, read_tiff, tiff_depth, tiff_form, tiff_images, tiff_layout

TIFF_SUFFIXES = (".tif", ".tiff")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class ImagesReader:
    """Reads an image file or a folder of them.

    Units are `display` for 8-bit grey and `stored` for deeper grey; everything else becomes 8-bit RGB without alpha. Pages of a
    TIFF are slices; its channels and time points are volumes.

    Args:
        root: File or folder. Paths `CLASS/…` have labels, and paths `train/CLASS/…` have labels and splits.
        masks: The `--masks` option.
        mask_names: The `--mask-names` option.
        mask_ignore: The `--mask-ignore` option.
        mask_threshold: The `--mask-threshold` option.
        max_megapixels: Largest size of a picture, in millions of pixels.
        workers: Number of processes that read masks.
    """

    suffixes: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = True
    worth_workers: ClassVar[bool] = True

    def __init__(
        self,
        root: Path,
        *,
        masks: str | None = None,
        mask_names: str | None = None,
        mask_ignore: str | None = None,
        mask_threshold: float | None = None,
        max_megapixels: float = MAX_MEGAPIXELS,
        workers: int | None = None,
    ):
        self.root, self.max_megapixels = Path(root), max_megapixels
        self.masks = Masks(
            masks,
            names=mask_names,
            ignore=mask_ignore,
            threshold=mask_threshold,
            max_megapixels=max_megapixels,
            workers=workers,
        )

    def scan(self) -> Scan:
        """Read all headers, and all masks."""
        listed = Items()
        refused: list[Refusal] = []
        for file, path in walk(self.root):
            answer = self._read_header(file, path)
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                listed.extend(answer)
        items, notes = leave_out_masks(listed, refused, self.masks.option)
        items, refused = self.masks.pair(items, refused, self.root)
        notes += _label_by_folder(items)
        deep = any(item.dtype != np.uint8 for item in items)
        return Scan(
            items,
            refused,
            "stored" if deep else "display",
            mask_classes=self.masks.names,
            mask_dtype=self.masks.dtype,
            mask_ignore=self.masks.coding.ignored_as,
            warnings=notes + self.masks.notes,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one picture, or one volume of a TIFF."""
        mask = self.masks.read_image(item.mask) if item.mask else None
        if item.mask and mask is not None and (item.n_images > 1 or mask.shape != item.size):
            raise Unreadable(
                f"its mask {named_file(item.mask.name)} is {_size(mask.shape)}, the image {_size(item.size)}"
                + (f" with {item.n_images} pages" if item.n_images > 1 else "")
            )
        try:
            images = self._images(item)
        except Unreadable:
            raise
        except Exception as error:  # decoders raise whatever a damaged file provokes
            raise Unreadable(f"pixels cannot be decoded: {str(error)[:200] or type(error).__name__}") from None
        for number, image in enumerate(images):
            if image.shape != (item.channels, *item.size):
                raise Unreadable(
                    f"page {number} has the shape {image.shape}, by the header {(item.channels, *item.size)}"
                )
            columns: dict[str, Any] = {"slice": number} if item.n_images > 1 else {}
            if image.dtype.kind == "f":
                image, columns["non_finite"] = replace_non_finite(image, _padding(item))
            yield image, columns, mask

    def _images(self, item: Item) -> np.ndarray:
        """Images of an item, (N, C, H, W)."""
        if suffix(item.file) in TIFF_SUFFIXES:
            layout, samples, colours = _decoded(item.path, item.path.stat().st_mtime_ns, self.max_megapixels)
            return tiff_images(layout, samples[item.row.get("volume", 0)], colours, item.row.get("bits"))
        with open_picture(item.path, self.max_megapixels) as image:
            unused = stored_bits(image) - item.row.get("bits", 16) if item.channels == 3 else 0
            values = pixels(upright(image))[None]
        return values if unused <= 0 else np.minimum(values.astype(np.uint16) << unused, 255).astype(np.uint8)

    def _read_header(self, file: str, path: Path) -> list[Item] | Refusal:
        """The items of a file, or the reason why it is refused, from its header."""
        if is_hidden(file) or suffix(file) not in IMAGE_SUFFIXES:
            return Refusal(file, "not_an_image", f"its name does not end in {', '.join(IMAGE_SUFFIXES)}")
        try:
            if path.stat().st_size == 0:
                return Refusal(file, "unreadable", "the file is empty (0 bytes)")
            if suffix(file) in TIFF_SUFFIXES:
                return _tiff_items(file, path, tiff_layout(path, self.max_megapixels))
            return [_picture_item(file, path, self.max_megapixels)]
        except Unreadable as error:
            return Refusal(file, "unreadable", str(error))
        except Exception as error:  # decoders raise whatever a damaged file provokes
            reason = f"its header cannot be read: {str(error)[:200] or type(error).__name__}"
            return Refusal(file, "unreadable", reason)


def _picture_item(file: str, path: Path, max_megapixels: float) -> Item:
    with open_picture(path, max_megapixels) as image:
        channels, dtype = form_of(image)
        bits = stored_bits(image)
        depth = (0.0, 255.0) if dtype == np.uint8 else (0.0, 2.0**bits - 1)
        return Item(file, path, 1, upright_size(image), channels, dtype, facts_of(image), depth=depth)


def _tiff_items(file: str, path: Path, layout: TiffLayout) -> list[Item]:
    """One item for each volume of a TIFF file."""
    channels, dtype = tiff_form(layout)
    intensity = "palette" if layout.photometric == "PALETTE" else "colour"
    facts: dict[str, Any] = {"bits": layout.bits, "photometric": layout.photometric.replace("SEPARATED", "CMYK")}
    if channels == 3 or dtype == np.uint8:
        facts["intensity"] = intensity if channels == 3 else "display"
    if layout.padding is not None and dtype == np.float32:
        facts["padding"] = f"{layout.padding:g}"
    items = []
    for number, columns in enumerate(layout.volumes):
        row = facts | columns
        together = None
        if layout.slices > 1 or len(layout.volumes) > 1:
            row |= {"volume": number, "series": file}
            together = f"{file}#{columns.get('channel', 0)}"
        items.append(
            Item(
                file,
                path,
                layout.slices,
                layout.size,
                channels,
                dtype,
                row,
                depth=tiff_depth(layout),
                together=together,
            )
        )
    return items


@lru_cache(maxsize=1)  # the volumes of a file follow each other
def _decoded(path: Path, mtime_ns: int, max_megapixels: float) -> tuple[TiffLayout, np.ndarray, np.ndarray | None]:
    return read_tiff(path, max_megapixels)


def _padding(item: Item) -> float | None:
    return None if item.row.get("padding") is None else float(item.row["padding"])


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) + " px"


def _label_by_folder(items: Sequence[Item]) -> list[str]:
    """Set label and split from the folders of each file, and return warnings. A folder `images` is no class."""
    first = {item.file.split("/")[0] if "/" in item.file else "" for item in items}
    named = {name for name in first if name.lower() in SPLIT_FOLDERS}
    splits_given = bool(first) and named == first

    def folders(item: Item) -> list[str]:
        return item.file.split("/")[splits_given:-1]

    below = all((parts := folders(item)) and IMAGE_FOLDERS.fullmatch(parts[0]) for item in items)
    for item in items:
        parts = folders(item)[below:]
        columns = {"label": parts[0] if parts else None}
        if splits_given:
            columns = {"split": SPLIT_FOLDERS[item.file.split("/")[0].lower()]} | columns
        item.row |= columns
    if named and not splits_given:
        neighbours = ", ".join(sorted(name or "files without a folder" for name in first - named)[:3])
        return [f"{'/, '.join(sorted(named))}/ read as classes, not as splits: beside them are {neighbours}"]
    return []
