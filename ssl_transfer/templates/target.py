"""What a store has to predict: the column of a target, its kind, and the metric that fits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssl_transfer.data.rows import LEADING
from ssl_transfer.data.store import ImageStore, class_codes
from ssl_transfer.data.targets import numbers
from ssl_transfer.data.task_card import MASK
from ssl_transfer.errors import TaskError, UsageError, nearest

MOST_CLASSES, MOST_GRADES = 50, 10  # more different values are no classes, or numbers and no grades
FEWEST_IMAGES_OF_A_CLASS = 3  # on average
MOST_LISTED = 8
METRICS = {
    "multiclass": "balanced_accuracy",
    "multilabel": "auroc",
    "ordinal": "quadratic_kappa",
    "regression": "r2",
    "segmentation": "dice_present",
}
METRIC_TEXTS = {
    "multiclass": "the mean of the recalls of all classes, so that rare classes count as much as frequent ones",
    "multilabel": "area under the ROC curve, averaged over the labels",
    "ordinal": "agreement of grades; far errors cost more than near ones",
    "regression": "share of the variance that is explained",
    "segmentation": "overlap of masks, over the images that have the class",
}


@dataclass(frozen=True)
class Target:
    """A target that was found in a store.

    Attributes:
        name: Column, `mask`, or columns with commas.
        kind: As `TaskCard.kind` has it.
        text: What was found, for the user: its classes, or its range.
    """

    name: str
    kind: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The lines of a task card that name the target."""
        if self.kind in ("ordinal", "regression"):
            return [f"target: {self.kind}", f"column: {_quoted(self.name)}"]
        if self.kind == "multilabel":
            return [f"target: [{', '.join(_quoted(name) for name in self.name.split(','))}]"]
        return [f"target: {_quoted(self.name)}"]


def find_target(store: ImageStore, wanted: str | None) -> Target | None:
    """The target that was asked for; else the labels of a store, else its masks.

    Args:
        store: The store.
        wanted: A column, several columns of yes and no with commas, or `mask`; None: what there is.

    Returns:
        None if there are neither labels nor masks, and none was asked for.

    Raises:
        UsageError: If there is no such column, or it holds neither classes nor numbers.
    """
    if wanted is None:
        if len(store.card.labels) >= 2:
            return _of_column(store, "label")
        return _masks(store) if store.card.masks else None
    if wanted == MASK:
        if not store.card.masks:
            raise UsageError(f"--target mask: {store.path} has no masks. Ingest again with --masks, or name a column.")
        return _masks(store)
    names = [name.strip() for name in wanted.split(",")]
    for name in names:
        if name not in store.columns:
            raise UsageError(f"--target {name}: {store.path} has no such column.{nearest(name, store.columns)}")
    return (
        _of_column(store, names[0])
        if len(names) == 1
        else Target(",".join(names), "multilabel", f"{len(names)} labels")
    )


def possible_columns(store: ImageStore) -> list[str]:
    """Columns that may be a target: those with several values, each for several images."""
    columns = [name for name in store.columns if name not in LEADING]
    return [name for name in columns if 2 <= len(class_codes(store.column(name))[0]) <= _most_classes(store)]


def _most_classes(store: ImageStore) -> int:
    """More different values than this are no classes."""
    return min(MOST_CLASSES, max(2, len(store) // FEWEST_IMAGES_OF_A_CLASS))


def _masks(store: ImageStore) -> Target:
    assert store.card.masks
    names = ", ".join(store.card.masks.classes.values()) or "instances"
    return Target(MASK, "segmentation", f"masks of {names}")


def _of_column(store: ImageStore, name: str) -> Target:
    """The kind of a column: `label` holds classes; other columns classes, grades (few whole numbers) or numbers."""
    values = store.column(name)
    classes, codes = class_codes(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(classes))
    if name != "label" and len(classes) > 2 and (read := _numbers(values)) is not None:
        if len(classes) <= MOST_GRADES and (read % 1 == 0).all():
            return Target(name, "ordinal", f"{len(classes)} grades from {read.min():g} to {read.max():g}")
        return Target(name, "regression", f"numbers from {read.min():g} to {read.max():g}")
    most = _most_classes(store)
    if not 2 <= len(classes) <= most:
        raise UsageError(
            f"--target {name}: {len(classes)} different values in {store.path}; expected 2 to {most} classes, or "
            f"numbers. Columns with classes: {', '.join(possible_columns(store)) or 'none'}."
        )
    listed = [f"{class_} {count:,}" for class_, count in zip(classes, counts, strict=True)]
    more = [f"and {len(listed) - MOST_LISTED} more"] if len(listed) > MOST_LISTED else []
    return Target(name, "multiclass", f"{len(classes)} classes: {', '.join([*listed[:MOST_LISTED], *more])}")


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """The known numbers of a column; None if it holds something else."""
    try:
        read = numbers(values, "")
    except TaskError:
        return None
    return read[np.isfinite(read)]


def _quoted(name: str) -> str:
    """A name as YAML text."""
    return name if name.replace("_", "").isalnum() and not name[0].isdigit() else f'"{name}"'
