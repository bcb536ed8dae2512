"""The reader of PNG, JPEG, TIFF and BMP files: a class per sub-folder, and splits if the first folders are named like splits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from ssl_transfer.data.readers.matching import (
    IMAGE_SUFFIXES,
    mask_dtype,
    pair_masks,
    read_mask_image,
    read_mask_names,
    suffix,
)
from ssl_transfer.data.readers.reader import Item, Refusal, Scan, Unreadable, is_hidden, walk

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
GREY_8_BIT = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")
GREY_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 rotate the image by 90 degrees


class ImagesReader:
    """Reads an image file or a folder of them.

    Units are `display` for 8-bit grey and `stored` (float32) for deeper grey; everything else becomes 8-bit RGB without alpha.

    Args:
        root: File or folder. Paths `CLASS/…` have labels, and paths `train/CLASS/…` have labels and splits.
        masks: The `--masks` option.
        mask_names: The `--mask-names` option.
    """

    suffixes: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    reads_folders: ClassVar[bool] = True
    worth_workers: ClassVar[bool] = True

    def __init__(self, root: Path, *, masks: str | None = None, mask_names: str | None = None):
        self.root, self.masks, self.mask_names = Path(root), masks, read_mask_names(mask_names)

    def scan(self) -> Scan:
        """Read all headers."""
        items: list[Item] = []
        refused: list[Refusal] = []
        for file, path in walk(self.root):
            answer = _read_header(file, path)
            if isinstance(answer, Refusal):
                refused.append(answer)
            else:
                items.append(answer)
        items, refused = pair_masks(items, refused, self.root, self.masks)
        notes = _label_by_folder(items)
        deep = any(item.dtype != np.uint8 for item in items)
        return Scan(
            items,
            refused,
            "stored" if deep else "display",
            mask_classes=self.mask_names,
            mask_dtype=mask_dtype(items, self.mask_names),
            warnings=notes,
        )

    def read(self, item: Item) -> Iterator[tuple[np.ndarray, dict, np.ndarray | None]]:
        """Decode one file; a TIFF yields all its pages."""
        from PIL import Image, ImageOps

        mask = read_mask_image(item.mask, self.mask_names) if item.mask else None
        if item.mask and mask is not None and (item.n_images > 1 or mask.shape != item.size):
            raise Unreadable(f"its mask {item.mask.name} is {mask.shape}, the image {item.n_images} x {item.size}")
        try:
            if _needs_tifffile(item.path):
                pages = _tiff_pages(item.path)
            else:
                with Image.open(item.path) as image:
                    pages = []
                    for number in range(item.n_images):
                        image.seek(number)
                        pages.append(_array(ImageOps.exif_transpose(image)))
        except Exception as error:  # decoders raise whatever a damaged file provokes
            raise Unreadable(f"pixels cannot be decoded: {str(error)[:200] or type(error).__name__}") from None
        for number, page in enumerate(pages):
            if page.shape != (item.channels, *item.size):
                raise Unreadable(
                    f"page {number} has the shape {page.shape}, the first one {(item.channels, *item.size)}"
                )
            yield page, {"slice": number} if item.n_images > 1 else {}, mask


def _read_header(file: str, path: Path) -> Item | Refusal:
    """The item of a file, or the reason why it is refused, from its header."""
    from PIL import Image

    if is_hidden(file) or suffix(file) not in IMAGE_SUFFIXES:
        return Refusal(file, "not_an_image", f"its name does not end in {', '.join(IMAGE_SUFFIXES)}")
    if path.stat().st_size == 0:
        return Refusal(file, "unreadable", "the file is empty (0 bytes)")
    try:
        if _needs_tifffile(path):
            pages = _tiff_pages(path)
            channels, *size = pages[0].shape
            return Item(file, path, len(pages), tuple(size), channels, pages[0].dtype, {})
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            size = image.size if turned else image.size[::-1]
            channels, dtype = (1, np.uint8) if image.mode in GREY_8_BIT else (3, np.uint8)
            if image.mode in GREY_DEEP:
                channels, dtype = 1, np.float32
            pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
            return Item(file, path, pages, tuple(size), channels, np.dtype(dtype), {})
    except Exception as error:  # decoders raise whatever a damaged file provokes
        return Refusal(file, "unreadable", f"its header cannot be read: {str(error)[:200] or type(error).__name__}")


def _array(image) -> np.ndarray:
    """Convert a Pillow image to (1 or 3, H, W): uint8, or float32 for grey deeper than 8 bits."""
    if image.mode in GREY_8_BIT:
        return np.asarray(image.convert("L"))[None]
    if image.mode in GREY_DEEP:
        return np.asarray(image).astype(np.float32)[None]
    if image.mode not in COLOUR:
        raise Unreadable(f"its colour mode {image.mode} is not supported")
    image = image.convert("RGBA") if image.mode == "PA" else image
    return np.ascontiguousarray(np.moveaxis(np.asarray(image.convert("RGB")), -1, 0))


def _needs_tifffile(path: Path) -> bool:
    """Whether Pillow cannot read a TIFF file (64-bit floats, 32-bit unsigned integers, uncommon channel layouts)."""
    from PIL import Image, UnidentifiedImageError

    if suffix(path.name) not in (".tif", ".tiff"):
        return False
    try:
        Image.open(path).close()
    except UnidentifiedImageError:
        return True
    return False


def _tiff_pages(path: Path) -> list[np.ndarray]:
    """Grey pages (1, H, W) float32, or 8-bit colour pages (3, H, W)."""
    import tifffile

    pages = []
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            array: np.ndarray = page.asarray()
            if array.ndim == 2:
                pages.append(array.astype(np.float32)[None])
                continue
            array = np.moveaxis(array, -1, 0) if array.shape[-1] in (3, 4) else array
            if array.ndim != 3 or array.shape[0] not in (3, 4) or array.dtype not in (np.uint8, np.uint16):
                raise Unreadable(f"a page of shape {array.shape} and type {array.dtype}")
            pages.append((array[:3] >> (8 * (np.dtype(array.dtype).itemsize - 1))).astype(np.uint8))
    return pages


def _label_by_folder(items: list[Item]) -> list[str]:
    """Set label and split from the folders of each file, and return warnings."""
    folders = [item.file.split("/")[:-1] for item in items]
    first = {parts[0] if parts else "" for parts in folders}
    named = {name for name in first if name.lower() in SPLIT_FOLDERS}
    splits_given = bool(first) and named == first
    for item, parts in zip(items, folders, strict=True):
        if splits_given:
            item.row["split"] = SPLIT_FOLDERS[parts[0].lower()]
            parts = parts[1:]
        item.row["label"] = parts[0] if parts else None
    if named and not splits_given:
        neighbours = ", ".join(sorted(name or "files without a folder" for name in first - named)[:3])
        return [f"{'/, '.join(sorted(named))}/ read as classes, not as splits: beside them are {neighbours}"]
    return []
