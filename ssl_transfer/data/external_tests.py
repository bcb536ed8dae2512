"""External tests: further stores on which the model of a task is tested after it was selected on the task's own store.

Classes of the two stores are matched by name. No pixel of an external store is read here: only its card and its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.altered import ClearedAir, RecodedMasks
from ssl_transfer.data.groups import knows_groups
from ssl_transfer.data.images import Images
from ssl_transfer.data.passport import TrainingRecord
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.targets import grade_name
from ssl_transfer.data.tasks import Task, TaskCard, mask_classes, mask_codes
from ssl_transfer.errors import SplitError, TaskError
from ssl_transfer.texts import is_missing

LISTED = 5  # patients or classes that a message names


@dataclass(frozen=True, eq=False)
class ExternalTest:
    """A task on an external store.

    Attributes:
        name: Name of the store's folder.
        task: The task on the external store; its classes are those of the task, in the same order.
        rows: Positions of the test images, int64, ascending: all labelled images of all splits, without those whose pixels
            are in the task's own store.
        classes: The classes of the task that the external store has; see also `classes_of`.
        notes: What the stores do not have in common, as sentences.
    """

    name: str
    task: Task
    rows: np.ndarray
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def classes_of(self, rows: np.ndarray) -> tuple[str, ...]:
        """The classes that some of its images have: of multi-label tasks, the labels that are known of any of them.

        Masks are not read: of segmentation tasks, all of `classes`.
        """
        if self.task.kind in ("multiclass", "ordinal"):
            present = np.unique(self.task.labels[rows])
        elif self.task.kind == "multilabel":
            present = np.flatnonzero(np.any(self.task.labels[rows] >= 0, axis=0))
        else:
            return self.classes
        return tuple(name for code, name in enumerate(self.task.classes) if code in present)

    def missing(self, classes: Sequence[str]) -> list[str]:
        """Notes about the classes of the task that are not among those that its test images have."""
        if not self.task.classes:
            return []
        left = f"metrics and gap are of {_listed(classes)}"
        never = [name for name in self.task.classes if name not in self.classes]
        gone = [name for name in self.classes if name not in classes]
        notes = [f"has no class {_listed(never)}: {left}"] if never else []
        return notes + ([f"all its images of class {_listed(gone)} are left out: {left}"] if gone else [])


def external_tests(task: Task, stores: Sequence[str | Path]) -> list[ExternalTest]:
    """Open the external stores of a task, and check that they fit it.

    Args:
        task: The task on its own store.
        stores: Folders of the external stores.

    Raises:
        SplitError: If a patient occurs in both stores.
        StoreError: If a store does not exist.
        TaskError: If a store lacks the target, has no class of the task, or no image of its own; or two have one name.
    """
    tests = [_external_test(task, Path(store)) for store in stores]
    for name, count in Counter(test.name for test in tests).items():
        if count > 1:
            raise TaskError(
                f"task {task.name}: external: {count} stores are called '{name}'. Rename one of the folders."
            )
    return tests


def _external_test(task: Task, path: Path) -> ExternalTest:
    where = f"task {task.name}: external: {path}"
    store: Images = ImageStore(path)
    store = ClearedAir(store) if task.card.air else store
    _refuse_shared_patients(task.store, store, where)
    external, classes, notes = _MATCHED[task.kind](task, store, where)
    if task.classes and not classes:
        raise TaskError(
            f"{where}: has no class of the task; expected some of {_listed(task.classes)}"
            f"{f', found {_listed(_names_in(store, task.card))}' if _names_in(store, task.card) else ''}. Classes are matched by "
            "name: ingest it again with the names of the task."
        )
    rows = np.arange(len(store))
    if task.kind != "segmentation":
        rows = rows[external.known]
    if not len(rows):
        raise TaskError(
            f"{where}: none of its {len(store)} images has a label. Ingest it with labels, or take another store."
        )
    known = np.isin(store.column("pixel_digest")[rows].astype(str), task.store.column("pixel_digest").astype(str))
    if known.any():
        notes += [f"{int(known.sum())} of {len(rows)} images are left out: their pixels are in the task's own store"]
    if known.all():
        raise TaskError(f"{where}: all its {len(rows)} labelled images are in {task.store.path}. Take another store.")
    if task.card.target_of and not knows_groups(store, task.card.target_of):
        notes += [f"no {task.card.target_of} is known: every image is a case of its own"]
    notes += [
        f"has no column {name}: no subgroups by it" for name in task.card.subgroups or () if name not in store.columns
    ]
    if store.units != task.store.units:
        notes += [f"its images are {store.units}, those of the task's store {task.store.units}"]
    return ExternalTest(path.name, external, rows[~known], tuple(classes), tuple(notes))


def _refuse_shared_patients(own: Images, external: Images, where: str) -> None:
    """Refuse stores with a common patient, where equal hashes mean one patient.

    Raises:
        SplitError: If there is one.
    """
    record = TrainingRecord.of_store(own, np.arange(len(own)))
    if not record.shares_hashes_with(external):
        return
    first, second = ({str(name) for name in store.column("patient") if name == name} for store in (own, external))
    if shared := sorted((first & second) - {"None"}):
        raise SplitError(
            f"{where}: {len(shared)} patient(s) are in {own.path}, too: {_listed(shared)}. An external test is on other "
            "patients: ingest the store without them, or, if two archives number different patients alike, ingest one of them "
            "with other ids (--patient-from)."
        )


def _multiclass(task: Task, store: Images, where: str) -> tuple[Task, list[str], list[str]]:
    column = _column(store, task.card.columns[0], where)
    if task.kind == "ordinal":
        names = [grade_name(value) or None for value in column.tolist()]
    else:
        names = [None if is_missing(value) else str(value) for value in column]
    number = {name: code for code, name in enumerate(task.classes)}
    found = Counter(name for name in names if name is not None)
    unknown = {name: count for name, count in found.items() if name not in number}
    notes = []
    if unknown:
        counts = ", ".join(f"{name} ({count} images)" for name, count in sorted(unknown.items())[:LISTED])
        notes = [f"images of classes that the task does not have are left out: {counts}"]
    labels = np.array([-1 if name is None else number.get(name, -1) for name in names])
    return _on(task, store, labels), [name for name in task.classes if name in found], notes


def _values(task: Task, store: Images, where: str) -> tuple[Task, list[str], list[str]]:
    """Of numbers and survival, which have no classes."""
    for name in task.card.columns:
        _column(store, name, where)
    of_rows = Task(task.name, store, task.card.model_copy(update={"target_of": None})).labels
    return _on(task, store, of_rows), [], []


def _multilabel(task: Task, store: Images, where: str) -> tuple[Task, list[str], list[str]]:
    card = task.card
    columns = [card.target] if isinstance(card.target, str) else [name for name in card.target if name in store.columns]
    for name in columns:
        _column(store, name, where)
    if not columns:
        raise TaskError(f"{where}: has none of the columns {_listed(task.classes)}. Ingest it with these labels.")
    notes, target = [], card.target if isinstance(card.target, str) else tuple(columns)
    every = Task(task.name, store, card.model_copy(update={"target": target, "labels": None, "target_of": None}))
    position = {name: code for code, name in enumerate(every.classes)}
    classes = [name for name in task.classes if name in position]
    if not card.labels and (unknown := [name for name in position if name not in task.classes]):
        notes = [f"labels that the task does not have are left out: {_listed(unknown)}"]
    labels = np.full((len(store), len(task.classes)), -1)
    for code, name in enumerate(task.classes):
        if name in position:
            labels[:, code] = every.labels[:, position[name]]
    return _on(task, store, labels), classes, notes


def _segmentation(task: Task, store: Images, where: str) -> tuple[Task, list[str], list[str]]:
    masks = store.card.masks
    if masks is None:
        raise TaskError(f"{where}: has no masks. Ingest it again with --masks PATH or PATTERN.")
    values_of: dict[str, list[int]] = {}
    for value, name in masks.classes.items():
        values_of.setdefault(str(name), []).append(int(value))
    own_masks = task.store.card.masks
    own_names = {int(value): str(name) for value, name in own_masks.classes.items()} if own_masks else {}
    classes: dict[str, Any] = {}
    for name, values in mask_classes(task.store, task.card).items():
        alike = {name} if values == "any" else {name, *(own_names[value] for value in values if value in own_names)}
        classes[name] = (
            "any" if values == "any" else tuple(v for other in sorted(alike) for v in values_of.get(other, ()))
        )
    notes = []
    if not values_of and task.card.classes:
        classes = dict(task.card.classes)
        notes = ["its masks have no names: values mean what the task card says"]
    used = {value for values in classes.values() if values != "any" for value in values}
    rest = sorted(name for name, values in values_of.items() if not used.issuperset(values))
    if rest and "any" not in classes.values():
        notes = [f"masks of classes that the task does not have count as background: {_listed(rest)}"]
    card = task.card.model_copy(update={"store": str(store.path), "classes": classes, "domain": None})
    recoded = RecodedMasks(store, mask_codes(store, card, where))
    return replace(task, store=recoded, card=card), [name for name, values in classes.items() if values], notes


_MATCHED = {
    "multiclass": _multiclass,
    "ordinal": _multiclass,
    "multilabel": _multilabel,
    "regression": _values,
    "survival": _values,
    "segmentation": _segmentation,
}


def _on(task: Task, store: Images, labels: np.ndarray) -> Task:
    """The task on another store, with the task's classes and these labels; with `target_of`, of its groups."""
    card = task.card.model_copy(update={"store": str(store.path), "domain": None})
    given: dict[str, Any] = {"classes": task.classes}  # in place of cached properties, which read the store
    if card.target_of and not knows_groups(store, card.target_of):
        given["group_names"] = np.array([f"image {number}" for number in range(len(store))], object)
    external = replace(task, store=store, card=card)
    vars(external).update(given)
    vars(external)["labels"] = external.grouped(labels)
    return external


def _column(store: Images, name: str, where: str) -> np.ndarray:
    """A column of a store.

    Raises:
        TaskError: If there is none.
    """
    if name not in store.columns:
        raise TaskError(f"{where}: has no column '{name}', which is the target. Ingest it with labels of that name.")
    return store.column(name)


def _names_in(store: Images, card: TaskCard) -> list[str]:
    """Names of the classes that a store has."""
    if card.kind == "segmentation":
        return sorted(map(str, store.card.masks.classes.values())) if store.card.masks else []
    if card.kind in ("multiclass", "ordinal"):
        return sorted({str(value) for value in store.column(card.columns[0]) if value is not None and value == value})
    return []


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(str, names[:LISTED])) + more
