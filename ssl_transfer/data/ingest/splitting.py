"""The splits of a source: what is kept together in one, and what the user should know about them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ssl_transfer.data.ingest.classes import class_warnings, strata, stratify_columns
from ssl_transfer.data.ingest.image_rows import ImageRows
from ssl_transfer.data.ingest.options import Options
from ssl_transfer.data.splits import FEWEST_GROUPS, draw_splits
from ssl_transfer.texts import HashSet


def choose_splits(
    rows: ImageRows, groups: Iterable[str], options: Options, keeps: bool
) -> tuple[np.ndarray, str, list[str]]:
    """Split of every row, the unit that is kept together, and warnings.

    Args:
        rows: Columns of all images.
        groups: Unit of each image that stays in one split.
        options: Options of `ingest`.
        keeps: Whether the splits of the source are kept.
    """
    if keeps:
        known = bool(rows.ids("patient").known.all())
        unknown = "patients are unknown: whether the source's splits share any cannot be checked"
        of_source = rows["split"]
        return np.array(of_source.distinct)[of_source.codes], "source", [] if known else [unknown]
    split_by, warnings = split_unit(rows)
    labels: Iterable = rows["label"]
    if options.stratify is not None:
        labels = strata([list(rows.columns[name]) for name in stratify_columns(options.stratify, [rows.columns])])
    count = len(HashSet(groups))
    if count < FEWEST_GROUPS:
        what = "patient(s)" if split_by == "patient" else f"group(s) by {split_by}"
        warnings.append(f"{count} {what} are too few for three splits: all images are train")
    by_rarest = options.stratify is not None
    splits = draw_splits(groups, labels, options.split, options.seed, by_rarest=by_rarest)
    return splits, split_by, warnings


def split_unit(rows: ImageRows) -> tuple[str, list[str]]:
    """The unit that is kept together in a split (of several, the smallest one), and a warning if it is not the patient."""
    units = rows.units()
    split_by = next((unit for unit in ("image", "series", "study") if units[unit]), "patient")
    if split_by == "patient":
        return split_by, []
    counts = ", ".join(f"{units[unit]} by {unit}" for unit in ("study", "series", "image") if units[unit])
    unknown = len(rows) - units["patient"]
    advice = (
        "If names of files or folders hold the patient, name the part that does, such as --patient-from '{patient}_*'; if a "
        "column of a CSV does, --patient-column NAME"
    )
    return split_by, [f"patients are unknown for {unknown} of {len(rows)} images; these are split {counts}. {advice}"]


def small_classes(
    rows: ImageRows, groups: Iterable[str], splits: np.ndarray, split_by: str, options: Options
) -> list[str]:
    """Warnings of classes that are not in every split: of labels, and of what the splits are stratified by."""
    unit = "patient" if split_by == "source" else split_by
    columns: dict[str, Iterable] = {"label": rows["label"]}
    for name in stratify_columns(options.stratify, [rows.columns]):
        columns.setdefault(name, strata([list(rows.columns[name])]))
    return [
        warning for name, values in columns.items() for warning in class_warnings(name, values, groups, splits, unit)
    ]
