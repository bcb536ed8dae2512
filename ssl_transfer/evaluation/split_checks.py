"""Checks of the rows of an evaluation: splits share no patient, and a label fraction consists of whole patients."""

from __future__ import annotations

import itertools

import numpy as np

from ssl_transfer.console import warn
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SplitError


def assert_disjoint(task: Task, rows: dict[str, np.ndarray]) -> None:
    """Check that no patient, and with `target_of` no group, is in two splits, independently of the checks at ingest.

    Raises:
        SplitError: If one is.
    """
    if task.group_names is not None:
        for first, second in itertools.combinations(rows, 2):
            if shared := set(task.group_names[rows[first]]) & set(task.group_names[rows[second]]):
                raise SplitError(
                    f"{task.store.path}: {task.card.target_of} {sorted(shared)[0]} has images in both {first} and {second} "
                    f"({len(shared)} such groups), and one label. Ingest again with --resplit and known patients."
                )
    if task.patients is None:
        warn(f"{task.store.path}: patients are unknown, so splits are by image and scores may be too good.")
        return
    for first, second in itertools.combinations(rows, 2):
        shared = set(task.patients[rows[first]]) & set(task.patients[rows[second]])
        if shared:
            raise SplitError(
                f"{task.store.path}: patient {sorted(shared)[0]} has images in both {first} and {second} "
                f"({len(shared)} such patients). Ingest again with --resplit."
            )


def absent_classes(task: Task, rows: dict[str, np.ndarray]) -> list[str]:
    """Sentences about classes that metrics leave out, because validation or test has no image of them.

    Args:
        task: The task; only of those with classes, grades or labels is something said, and of survival without an event.
        rows: Rows of each split.
    """
    sentences = []
    for split in [name for name in ("val", "test") if name in rows and task.kind not in ("segmentation", "regression")]:
        labels = task.labels[rows[split]]
        if task.kind == "survival":
            sentences += [] if (labels[:, 1] == 1).any() else [f"{split} has no event: there is no C-index"]
            continue
        if task.kind != "multilabel":
            counts = np.bincount(labels, minlength=len(task.classes))
            absent = [name for name, count in zip(task.classes, counts, strict=True) if not count]
            reason = "has no image of class"
        else:
            both = [
                ((labels[:, label] == 0).any() and (labels[:, label] == 1).any()) for label in range(labels.shape[1])
            ]
            absent = [name for name, has_both in zip(task.classes, both, strict=True) if not has_both]
            reason = "does not have both outcomes of label"
        if absent:
            present = len(task.classes) - len(absent)
            sentences.append(
                f"{split} {reason} {', '.join(absent)}: balanced accuracy, AUROC and F1 are of the other {present} of "
                f"{len(task.classes)} classes"
            )
    return sentences


def assert_fraction(task: Task, chosen: np.ndarray, fraction: float) -> None:
    """Check that a fraction has all images of its patients, and the right number of patients up to rounding in each stratum.

    Raises:
        SplitError: If it has not.
    """
    all_rows, groups = task.rows("train"), task.label_units()
    kept, available = set(groups[chosen].tolist()), set(groups[all_rows].tolist())
    whole = np.array_equal(chosen, all_rows[np.isin(groups[all_rows], list(kept))])
    slack = len(np.unique(task.strata[all_rows])) if fraction < 1 else 0
    if not whole or abs(len(kept) - fraction * len(available)) > slack:
        raise SplitError(
            f"{task.store.path}: fraction {fraction} gave {len(chosen)} images of {len(kept)} patients, out of {len(all_rows)} "
            f"of {len(available)}; expected whole patients, about {fraction * len(available):.0f}. Please report this defect."
        )
