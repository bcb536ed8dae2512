"""Masks: pairing of mask files with images, and reading of masks.

`--masks` is a single file (for a single image or volume), a folder (whose files have the same relative path or the same stem as
the images), or a pattern such as `../masks/{parent}/{stem}_seg.png` with the fields {stem}, {parent}, {number} and glob
wildcards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.readers.reader import Item, Refusal, Unreadable, walk
from ssl_transfer.errors import SourceError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUME_SUFFIXES = (".nii", ".nii.gz")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, *VOLUME_SUFFIXES)
FIELDS = ("stem", "parent", "number")


def suffix(file: str) -> str:
    """The suffix of a file name in lower case; `.nii.gz` counts as one suffix."""
    name = file.rsplit("/", 1)[-1].lower()
    if name.endswith(".nii.gz"):
        return ".nii.gz"
    return "." + name.rsplit(".", 1)[1] if "." in name else ""


def stem(file: str) -> str:
    """The name of a file without folders and suffix.

    Example:
        >>> stem("train/case_07.nii.gz")
        'case_07'
    """
    name = file.rsplit("/", 1)[-1]
    ending = suffix(file)
    return name[: -len(ending)] if ending in (*MASK_SUFFIXES, ".dcm", ".ima") else name


def pair_masks(
    items: list[Item], refused: list[Refusal], root: Path, masks: str | None
) -> tuple[list[Item], list[Refusal]]:
    """Give every item its mask, and remove the mask files from both lists.

    Args:
        items: Images below `root`.
        refused: Files that were refused.
        root: The source: a folder or a file.
        masks: The `--masks` option; None: nothing is changed.

    Returns:
        The items that are images, each with its `mask`, and the refusals that are not masks.

    Raises:
        SourceError: If an image has no mask or several, or if the option names no file.
    """
    if masks is None:
        return items, refused
    find = _finder(root, masks)
    candidates = {item.path: [path for path in find(item) if path.resolve() != item.path.resolve()] for item in items}
    mask_files = {path.resolve() for paths in candidates.values() for path in paths}
    images = [item for item in items if item.path.resolve() not in mask_files]
    for item in images:
        masks_found = candidates[item.path]
        if len(masks_found) != 1:
            names = ", ".join(path.name for path in masks_found[:3])
            what = f"{len(masks_found)} masks ({names})" if masks_found else "no mask"
            raise SourceError(
                f"--masks {masks}: {item.file} has {what}; every image needs exactly one. Name them like the images, "
                "or use a pattern with {stem}, {parent} or {number}."
            )
        item.mask = masks_found[0]
    base = root.parent if root.is_file() else root
    return images, [r for r in refused if (base / r.file).resolve() not in mask_files]


def _finder(root: Path, masks: str):
    """A function that returns the candidate mask files of an item."""
    base = root.parent if root.is_file() else root
    if "{" in masks or any(c in masks for c in "*?["):
        unknown = set(re.findall(r"{(\w*)}", masks)) - set(FIELDS)
        if unknown:
            raise SourceError(
                f"--masks {masks}: no field is called {{{unknown.pop()}}}. Fields: {{stem}}, {{parent}}, {{number}}."
            )
        return lambda item: _expand(base, masks, item.file)
    option = next((path for path in (Path(masks), base / masks) if path.exists()), None)
    if option is None:
        raise SourceError(f"--masks {masks}: no such file or folder, neither here nor below {base}.")
    if option.is_file():
        return lambda item: [option]
    by_path: dict[str, list[Path]] = {}
    by_stem: dict[str, list[Path]] = {}
    for file, path in walk(option):
        if suffix(file) in MASK_SUFFIXES:
            by_path.setdefault(_without_suffix(file), []).append(path)
            by_stem.setdefault(stem(file), []).append(path)
    return lambda item: by_path.get(_without_suffix(item.file)) or by_stem.get(stem(item.file), [])


def _without_suffix(file: str) -> str:
    folder = file.rpartition("/")[0]
    return f"{folder}/{stem(file)}"


def _expand(base: Path, pattern: str, file: str) -> list[Path]:
    """Files that match the pattern for an image; {number} is the last run of digits in its stem."""
    numbers = re.findall(r"\d+", stem(file))
    parent = file.rpartition("/")[0] or "."  # otherwise `{parent}/x` would be an absolute path
    values = {"stem": stem(file), "parent": parent, "number": numbers[-1] if numbers else ""}
    fields = {
        key: re.sub(r"([*?\[])", r"[\1]", value) for key, value in values.items()
    }  # characters of names are not wildcards
    path_pattern = re.sub(r"{(\w+)}", lambda match: fields[match[1]], pattern)
    anchor = Path(Path(path_pattern).anchor) if Path(path_pattern).is_absolute() else base
    relative = str(Path(path_pattern).relative_to(anchor)) if Path(path_pattern).is_absolute() else path_pattern
    while relative.startswith("../"):
        anchor, relative = anchor.resolve().parent, relative[3:]
    return sorted(path for path in anchor.glob(relative.lstrip("/")) if path.is_file())


def read_mask_names(option: str | None) -> dict[int, str]:
    """Names of mask values: a JSON file `{"1": "spleen"}`, or `liver,lesion` for 1 and 2.

    Raises:
        SourceError: If the file cannot be read or its keys are not positive integers.
    """
    if option is None:
        return {}
    if not option.lower().endswith(".json"):
        return {value: name.strip() for value, name in enumerate(option.split(","), start=1)}
    try:
        names = json.loads(Path(option).read_text())
        return {int(value): str(name) for value, name in names.items() if int(value) != 0}
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(
            f'--mask-names {option}: {error}. Expected a JSON object such as {{"1": "liver"}}, or liver,lesion.'
        ) from None


def mask_dtype(items: Sequence[Item], names: dict[int, str]) -> np.dtype | None:
    """Dtype of the masks: uint8 if mask names or file headers allow it, otherwise uint16; None without masks."""
    paths = {item.mask for item in items if item.mask is not None}
    if not paths:
        return None
    if names:
        return np.dtype(np.uint8 if max(names) < 256 else np.uint16)
    return np.dtype(np.uint8 if all(_is_8_bit(path) for path in paths) else np.uint16)


def _is_8_bit(path: Path) -> bool:
    try:
        if suffix(path.name) in VOLUME_SUFFIXES:
            import nibabel

            image: Any = nibabel.load(path)
            return image.get_data_dtype().itemsize == 1
        from PIL import Image

        with Image.open(path) as picture:
            return picture.mode in ("1", "L", "P")
    except Exception:  # it is listed as unreadable when it is read
        return True


def read_mask_image(path: Path, names: dict[int, str]) -> np.ndarray:
    """Read a mask of class ids from an image file, shape (H, W).

    Pixels of a palette image are its indices. A mask with only 0 and 255 is binary (0, 1), unless 255 is in `names`.

    Raises:
        Unreadable: If it cannot be read or is in colour.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "F"):
                raise Unreadable(f"its mask {path.name} is in colour ({image.mode}); expected one grey value per class")
            mask = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise Unreadable(f"its mask {path.name} cannot be read: {error}") from None
    mask = mask.astype(np.uint8) if mask.dtype == bool else mask
    if 255 not in names and mask.max() == 255 and set(np.unique(mask).tolist()) <= {0, 255}:
        mask = (mask > 0).astype(np.uint8)
    return class_ids(mask, path.name)


def class_ids(mask: np.ndarray, name: str) -> np.ndarray:
    """Check that values are class ids in 0..65535.

    Raises:
        Unreadable: If a value is negative, fractional or too large.
    """
    fractional = mask.dtype.kind == "f" and not np.array_equal(np.rint(mask), mask)
    if mask.size and (fractional or mask.min() < 0 or mask.max() > 65535):
        raise Unreadable(f"its mask {name} has values that are not class ids (whole numbers from 0 to 65535)")
    return mask.astype(np.uint16)
