"""Images with identical pixels: copies within a patient, the same image under two patients, and under two labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_transfer.data.ingest.image_rows import ImageRows
from ssl_transfer.data.ingest.pseudonyms import Pseudonyms
from ssl_transfer.data.readers.reader import Item, marked_names, named_file, renamed
from ssl_transfer.data.store import StoreWriter

Rows = Mapping[str, Sequence[Any] | np.ndarray]


def find_duplicates(
    writer: StoreWriter, rows: ImageRows, splits: np.ndarray, items: Iterable[Item], names: Pseudonyms
) -> tuple[list[str], dict[str, int]]:
    """Look for images with identical pixels among those that were written.

    Args:
        writer: Has all images of the store.
        rows: Columns of these images.
        splits: Split of each image, shape (N,).
        items: Items of the source, for the names of files.
        names: How these are stored.

    Returns:
        Warnings and counts, see `duplicate_warnings`.
    """
    groups = repeated_images(writer.rows.values("pixel_digest"), writer.is_blank)
    if not groups:
        return [], {}
    columns = {"split": splits, "patient": rows.ids("patient"), "label": rows["label"]}
    warnings, counts = duplicate_warnings(columns, groups, lambda position: str(writer.rows.at("file", position)))
    examples = {name for warning in warnings for name in marked_names(warning)}
    real = {stored: item.file for item in items if (stored := names.file(item.file)) in examples}
    return [renamed(warning, real) for warning in warnings], counts


def repeated_images(digests: Iterable[str], is_blank: Callable[[int], bool]) -> list[np.ndarray]:
    """Groups of images with identical pixels, without blank images, which are alike in every patient.

    Args:
        digests: Digest of the pixels of each image.
        is_blank: Whether the image at a position has the same value everywhere.

    Returns:
        Positions of the images of each group, ascending, in the order of their first images.
    """
    codes = np.fromiter((int(digest[:16], 16) for digest in digests), np.uint64)  # eight bytes an image
    order = np.argsort(codes, kind="stable")
    edges = np.flatnonzero(np.diff(codes[order])) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(codes)]])
    repeated = np.flatnonzero(ends - starts > 1)
    groups = sorted((order[starts[k] : ends[k]] for k in repeated), key=lambda group: int(group[0]))
    return [group for group in groups if not is_blank(int(group[0]))]


def duplicate_warnings(rows: Rows, groups: Sequence[np.ndarray], name: Callable[[int], str]) -> tuple[list[str], dict]:
    """What identical images mean for an experiment.

    Args:
        rows: The columns `patient`, `label` and `split`.
        groups: See `repeated_images`.
        name: Name of the file of the image at a position.

    Returns:
        Warnings for the user, and counts for the card: `images` that repeat another one, `groups` of identical images, groups
        that are `across_patients`, `across_splits` and `across_labels`.
    """
    across = {column: _differing(rows[column], groups) for column in ("patient", "split", "label")}
    patients = {id(group) for group, _ in across["patient"]}
    within = [group for group in groups if id(group) not in patients]
    divided = [(group, pair) for group, pair in across["split"] if id(group) in patients]
    known = all(patient is not None for patient in rows["patient"])

    def pair(positions: tuple[int, int]) -> str:
        return " and ".join(named_file(name(position)) for position in positions)

    warnings = []
    if within:
        repeats = sum(len(group) - 1 for group in within)
        owner = "of the same patient" if known else "of the source"
        warnings.append(
            f"{repeats} of {len(rows['patient'])} images repeat the pixels of another image {owner}, for example "
            f"{pair((within[0][0], within[0][1]))}: were they exported twice? Each copy counts in training and in scores"
        )
    if across["patient"]:
        warnings.append(
            f"{len(across['patient'])} images occur with identical pixels under several patients, for example "
            f"{pair(across['patient'][0][1])}: they may be one person under two ids"
        )
    if divided:
        first, second = divided[0][1]
        sides = f"{rows['split'][first]} and {rows['split'][second]}"
        warnings.append(
            f"{len(divided)} images with identical pixels stand on both sides of a split, under different patients, for "
            f"example {pair((first, second))} in {sides}: scores on them are too good. Give both the same patient "
            "(--patient-from, or the column patient of --labels), or remove one"
        )
    if across["label"]:
        first, second = across["label"][0][1]
        labels = f"'{rows['label'][first]}' and '{rows['label'][second]}'"
        warnings.append(
            f"{len(across['label'])} images with identical pixels have different labels, for example "
            f"{pair((first, second))}: {labels}"
        )
    counts = {
        "images": sum(len(group) - 1 for group in groups),
        "groups": len(groups),
        "across_patients": len(across["patient"]),
        "across_splits": len(across["split"]),
        "across_labels": len(across["label"]),
    }
    return warnings, counts


def _differing(
    values: Sequence[Any] | np.ndarray, groups: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """The groups within which a known value differs, each with two positions of different values."""
    found = []
    for group in groups:
        known = [
            int(position) for position in group if values[position] is not None and values[position] == values[position]
        ]
        other = next((position for position in known if values[position] != values[known[0]]), None)
        if other is not None:
            found.append((group, (known[0], other)))
    return found
