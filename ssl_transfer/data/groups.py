"""Groups of images with one label together: the slices of a patient, of a study, or of a series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ssl_transfer.data.images import Images
from ssl_transfer.errors import TaskError
from ssl_transfer.texts import is_missing

TargetOf = Literal["patient", "study", "series"]
KEYS: dict[str, tuple[str, ...]] = {  # columns that tell groups apart; the last one must be known
    "patient": ("patient",),
    "study": ("patient", "study"),
    "series": ("patient", "study", "series"),
}
PLURALS = {"patient": "patients", "study": "studies", "series": "series"}
LISTED = 5  # groups that a message names


@dataclass(frozen=True, eq=False)
class Bags:
    """The groups of some images.

    Attributes:
        names: Names of the groups, sorted, (G,).
        codes: Number of the group of each image, int64 (n,).
        first: Position, among the images, of the first one of each group, (G,).
    """

    names: np.ndarray
    codes: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, names: np.ndarray) -> Bags:
        """The groups of images with these names of groups, (n,)."""
        distinct, first, codes = np.unique(names.astype(str), return_index=True, return_inverse=True)
        return cls(distinct, codes, first)

    @property
    def sizes(self) -> np.ndarray:
        """Number of images of each group, int64 (G,)."""
        return np.bincount(self.codes, minlength=len(self.names))


def group_names(store: Images, target_of: TargetOf, where: str) -> np.ndarray:
    """Name of the group of every image of a store, (N,); None where it is unknown.

    Args:
        store: The store.
        target_of: What has one label.
        where: Name of the task, for messages.

    Raises:
        TaskError: If the store does not know these groups.
    """
    *outer, inner = KEYS[target_of]
    if not knows_groups(store, target_of):
        raise TaskError(
            f"{where}: target_of: {target_of}, and {store.path} knows no {PLURALS[target_of]}. Ingest it with a column "
            f"'{inner}' of its label table, or leave out target_of."
        )
    values = store.column(inner)
    known = np.array([value is not None and value == value for value in values], bool)
    names = values.astype(object)
    for column in reversed([name for name in outer if name in store.columns]):
        around = ["" if is_missing(value) else str(value) for value in store.column(column)]
        names = np.array([f"{out}/{name}" for out, name in zip(around, names, strict=True)], object)
    names[~known] = None
    return names


def knows_groups(store: Images, target_of: TargetOf) -> bool:
    """Whether a store knows the patient, study or series of any of its images."""
    inner = KEYS[target_of][-1]
    return inner in store.columns and any(value is not None and value == value for value in store.column(inner))


def labels_of_groups(
    labels: np.ndarray, names: np.ndarray, classes: Sequence[str], target_of: TargetOf, where: str
) -> np.ndarray:
    """Give every image the label of its group, which is that of the labelled ones among its images.

    Args:
        labels: Label of each image, (N,) or (N, K): integers, −1 where unknown, or numbers, NaN where unknown.
        names: Group of each image, None where unknown, (N,).
        classes: Names of the classes, or of the labels; empty for numbers.
        target_of: What has one label, for messages.
        where: Name of the task, for messages.

    Returns:
        Labels of the same shape and dtype; unknown for the images of groups without a label.

    Raises:
        TaskError: If the images of a group have different labels, or a labelled image is in no known group.
    """
    columns = labels.reshape(len(labels), -1)
    labelled = np.isfinite(columns) if labels.dtype.kind == "f" else columns >= 0
    known = np.array([name is not None for name in names], bool)
    if stray := int(labelled[~known].any(1).sum()):
        raise TaskError(
            f"{where}: target_of: {target_of}, and {stray} labelled images have no known {target_of}. State it in the label "
            "table, or empty their labels."
        )
    bags = Bags.of(names[known])
    common = np.full_like(columns, np.nan if labels.dtype.kind == "f" else -1)
    for number, (column, has_label) in enumerate(zip(columns[known].T, labelled[known].T, strict=True)):
        stated, groups = column[has_label], bags.codes[has_label]
        of_group = np.full(len(bags.names), common[0, 0])  # unknown
        of_group[groups] = stated  # of contradicting ones the last
        if (differs := stated != of_group[groups]).any():
            wrong = np.unique(groups[differs])
            name = f" of {classes[number]}" if labels.ndim == 2 and len(classes) else ""
            words = [
                str(value if labels.ndim == 2 or not len(classes) else classes[value]) for value in stated.tolist()
            ]
            raise TaskError(
                f"{where}: target_of: {target_of}, and {len(wrong)} of {len(bags.names)} {PLURALS[target_of]} have contradicting "
                f"labels{name}: {_counted(wrong, bags.names, groups, words)}. Correct the labels, or leave out target_of."
            )
        common[known, number] = of_group[bags.codes]
    return common.reshape(labels.shape)


def _counted(wrong: np.ndarray, names: np.ndarray, groups: np.ndarray, words: list[str]) -> str:
    """The first groups with contradicting labels, and how many of their images have each label."""
    parts = []
    for group in wrong[:LISTED].tolist():
        counts = Counter(word for word, of_image in zip(words, groups.tolist(), strict=True) if of_image == group)
        parts.append(f"{names[group]} ({', '.join(f'{count} {word}' for word, count in sorted(counts.items()))})")
    return ", ".join(parts) + (f" and {len(wrong) - LISTED} more" if len(wrong) > LISTED else "")
