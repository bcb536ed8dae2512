"""Tasks: a store, what is predicted of its images, and how that is scored. A task is one YAML file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_transfer.console import say
from ssl_transfer.data.altered import ClearedAir, RecodedMasks
from ssl_transfer.data.groups import PLURALS, Bags, group_names, labels_of_groups
from ssl_transfer.data.images import Images
from ssl_transfer.data.splits import label_fraction
from ssl_transfer.data.store import ImageStore, class_codes
from ssl_transfer.data.subgroups import assert_columns
from ssl_transfer.data.targets import grades, numbers, strata_of, survival
from ssl_transfer.data.task_card import MASK, TaskCard
from ssl_transfer.data.truths import truths
from ssl_transfer.domains import Domain
from ssl_transfer.errors import RecipeError, SplitError, TaskError, nearest
from ssl_transfer.measures.metrics import metrics_of
from ssl_transfer.measures.overlap import IGNORED
from ssl_transfer.measures.scoring import Scoring
from ssl_transfer.recipe import find_recipe, read_yaml, validate
from ssl_transfer.target_kinds import KINDS
from ssl_transfer.texts import is_missing

MASKS_AT_ONCE = 256


@dataclass(frozen=True)
class Task:
    """An opened task.

    Attributes:
        name: The card's file name.
        store: Its images; masks are in the task's classes.
        card: As written.
    """

    name: str
    store: Images
    card: TaskCard

    @classmethod
    def load(cls, spec: str | Path) -> Task:
        """Open a task by the path of its card, or by name from `recipes/tasks/`.

        Raises:
            TaskError: If there is no such card, or the card does not fit its store.
            StoreError: If its store does not exist.
        """
        try:
            path = find_recipe(spec, "tasks")
        except RecipeError as error:
            raise TaskError(str(error)) from None
        return cls.opened(path.stem, validate(TaskCard, read_yaml(path), str(path)), str(path))

    @classmethod
    def opened(cls, name: str, card: TaskCard, where: str = "task") -> Task:
        """Open a card's store and check that they fit each other; see `load`."""
        metrics = metrics_of(*KINDS[card.kind].metrics)
        metrics = {name for name, metric in metrics.items() if not metric.calibrated}  # which nothing is selected by
        if card.metric not in metrics:
            raise TaskError(f"{where}: metric: found '{card.metric}'.{nearest(card.metric, metrics)}")
        store: Images = ImageStore(card.store)
        assert_columns(store, card.subgroups or (), where)
        if card.air:
            store = ClearedAir(store)
        if card.target == MASK:
            return cls(name, RecodedMasks(store, mask_codes(store, card, where)), card)
        for column in card.columns:
            if column not in store.columns:
                raise TaskError(
                    f"{where}: target: {card.store} has no column '{column}'.{nearest(column, store.columns)}"
                )
        return cls(name, store, card)

    @property
    def kind(self) -> str:
        """Kind of the target, such as `multiclass`; see `TaskCard.kind`."""
        return self.card.kind

    @property
    def domain(self) -> Domain:
        """The target domain."""
        return Domain.parse(self.card.domain) if self.card.domain else self.store.domain

    @cached_property
    def classes(self) -> list[str]:
        """Names: of classes in the store's order where it has one; of grades in ascending order; of labels; of masks' classes
        from 1 on; none of regression and survival.
        """
        if KINDS[self.kind].number is not None:
            return []
        if self.kind == "ordinal":
            return self._grades[0]
        if self.kind == "segmentation":
            return list(mask_classes(self.store, self.card))
        if self.kind == "multilabel":
            return list(self._label_values)
        present = set(class_codes(self._column)[0].tolist())
        ordered = [name for name in self.store.card.classes or () if name in present]
        classes = ordered if set(ordered) == present else sorted(present)
        if len(classes) < 2:
            raise TaskError(
                f"task {self.name}: column '{self.card.target}' has {len(classes)} class(es); 2 are needed."
            )
        return classes

    @property
    def scoring(self) -> Scoring:
        """How predictions of its images are measured."""
        stated = self.card.averaging, self.card.operating_point
        return Scoring(self.kind, tuple(self.classes), *stated, levels=self.levels)

    @property
    def levels(self) -> dict[str, float]:
        """Name of each grade -> its position in the order of the card, or the number that it is without one; else empty."""
        if self.kind != "ordinal":
            return {}
        order = self.card.order
        return {name: float(order.index(name) if order else name) for name in self.classes}

    @cached_property
    def labels(self) -> np.ndarray:
        """Of every row of the store: class or grade numbers (N,), or 0 and 1 of each label (N, K), int64, −1 where unknown;
        numbers of regression (N,), or time and event of survival (N, 2), float64, NaN where unknown.

        With `target_of`, every row of a group has the label of the group.

        Raises:
            TaskError: If the target is the mask, or the rows of a group have different labels.
        """
        if self.kind == "segmentation":
            raise TaskError(
                f"task {self.name}: its target is the mask, which belongs to pixels. Evaluate it by segment."
            )
        return self.grouped(self._labels_of_rows())

    def _labels_of_rows(self) -> np.ndarray:
        """The labels as the columns of the store have them."""
        if self.kind == "multilabel":
            return np.stack(list(self._label_values.values()), 1)
        if self.kind == "ordinal":
            return self._grades[1]
        if self.kind == "regression":
            return numbers(self._columns[0], f"task {self.name}: column '{self.card.column}'")
        if self.kind == "survival":
            time, event = self._columns
            return survival(time, event, f"task {self.name}", self.card.columns)
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number.get(str(value), -1) for value in self._column])

    def grouped(self, labels: np.ndarray) -> np.ndarray:
        """Labels of all rows as those of their groups, see `labels_of_groups`; as they are without `target_of`."""
        if not self.card.target_of or self.group_names is None:
            return labels
        where = f"task {self.name}"
        return labels_of_groups(labels, self.group_names, self.classes, self.card.target_of, where)

    @cached_property
    def group_names(self) -> np.ndarray | None:
        """Name of the group of every row, (N,), None where unknown; None without `target_of`."""
        if not self.card.target_of:
            return None
        return group_names(self.store, self.card.target_of, f"task {self.name}")

    def bags(self, rows: np.ndarray) -> Bags:
        """The groups of some rows; without `target_of` each row is one."""
        if self.group_names is None:
            every = np.arange(len(rows))
            return Bags(every, every, every)
        return Bags.of(self.group_names[rows])

    @cached_property
    def known(self) -> np.ndarray:
        """Whether the target of a row is known (of a multi-label one, any label), bool (N,)."""
        labels = self.labels.reshape(len(self.labels), -1)
        return np.any(np.isfinite(labels) if labels.dtype.kind == "f" else labels >= 0, axis=1)

    @cached_property
    def _grades(self) -> tuple[list[str], np.ndarray]:
        """Names of the grades, and the grade of each row."""
        return grades(self._columns[0], self.card.order, f"task {self.name}: column '{self.card.column}'")

    @property
    def _columns(self) -> list[np.ndarray]:
        """The target's columns of the store."""
        return [self.store.column(name) for name in self.card.columns]

    @property
    def _column(self) -> np.ndarray:
        """The target's column of the store, if it is a single one."""
        return self.store.column(str(self.card.target))

    @cached_property
    def _label_values(self) -> dict[str, np.ndarray]:
        """Name of each label -> 0, 1 or −1 of every row."""
        if not isinstance(self.card.target, str):
            return {name: self._truths(name) for name in self.card.target}
        rows = [None if is_missing(value) else set(str(value).split(self.card.separator)) for value in self._column]
        words = set().union(*(row for row in rows if row)) - {self.card.negative, ""}
        if not words:
            raise TaskError(f"task {self.name}: column '{self.card.target}' names no label. Is it the right column?")
        names = self.card.labels or sorted(words)
        for name in names:
            if name not in words:
                raise TaskError(
                    f"task {self.name}: labels: no row of '{self.card.target}' has '{name}'.{nearest(name, words)}"
                )
        return {name: np.array([-1 if row is None else int(name in row) for row in rows]) for name in names}

    def _truths(self, name: str) -> np.ndarray:
        """0, 1 or −1 of every row, of a column of numbers or words; how words are read is printed."""
        where = f"task {self.name}: column '{name}'"
        codes, words = truths(self.store.column(name).tolist(), where)
        if words:
            meaning = {1: "1", 0: "0", -1: "unknown"}
            say(f"{where}: " + ", ".join(f"'{word}' is {meaning[code]}" for word, code in words.items()))
        return codes

    @cached_property
    def strata(self) -> np.ndarray:
        """What fractions are stratified by, int64 (N,): the class or grade, or the rarest label or mask class of a row + 1, 0
        for none; the fifth of the numbers; whether there was an event.
        """
        if self.kind in ("multiclass", "ordinal"):
            return self.labels
        if self.kind == "regression":
            return strata_of(self.labels)
        if self.kind == "survival":
            return (self.labels[:, 1] == 1).astype(np.int64)
        present = self._mask_presence() if self.kind == "segmentation" else self.labels == 1
        rarity = np.where(present, present.sum(0), np.iinfo(np.int64).max)
        return np.where(present.any(1), rarity.argmin(1) + 1, 0)

    def _mask_presence(self) -> np.ndarray:
        """Whether each class is in each mask, (N, K)."""
        present = np.zeros((len(self.store), len(self.classes)), bool)
        for start in range(0, len(present), MASKS_AT_ONCE):
            positions = np.arange(start, min(start + MASKS_AT_ONCE, len(present)))
            for position, mask in zip(positions, self.store.masks(positions), strict=True):
                present[position] = np.bincount(mask[mask > 0], minlength=len(self.classes) + 1)[1:] > 0
        return present

    @cached_property
    def patients(self) -> np.ndarray | None:
        """Patient of every row, shape (N,); None if the store does not know them."""
        return None if self.store.card.n_patients is None else self.store.column("patient")

    def groups(self) -> np.ndarray:
        """The unit of drawing and resampling: patient, or image where patients are unknown; shape (N,)."""
        return np.arange(len(self.store)) if self.patients is None else self.patients

    @property
    def case_word(self) -> str:
        """What has one label each, in the plural, for messages: `images`, or with `target_of` `patients`, `studies`, `series`."""
        return PLURALS[self.card.target_of] if self.card.target_of else "images"

    def label_units(self) -> np.ndarray:
        """The unit that fractions draw and count: the group of a label with `target_of`, else as `groups`; shape (N,)."""
        return self.groups() if self.group_names is None else self.group_names

    def rows(self, split: str, fraction: float = 1.0, seed: int = 0) -> np.ndarray:
        """Labelled rows of a split; of `train`, only those of a share of its patients (or other `label_units`).

        Fractions are nested and stratified (see `label_fraction`).

        Args:
            split: `train`, `val` or `test`.
            fraction: Share of the training patients, in (0, 1].
            seed: Fixes the draw of these patients; an evaluation gives its `draw_seed`.

        Raises:
            SplitError: If nothing is left, or a class is missing from the training rows.
        """
        positions = np.asarray(self.store.positions(split))
        if self.kind != "segmentation":
            positions = positions[self.known[positions]]
        if split == "train" and fraction < 1:
            kept = label_fraction(self.label_units()[positions], self.strata[positions], fraction, seed)
            positions = positions[kept]
        if len(positions) == 0:
            raise SplitError(f"task {self.name}: no labelled image in the {split} split of {self.store.path}.")
        if split == "train" and self.kind in ("multiclass", "ordinal"):
            missing = set(range(len(self.classes))) - set(self.labels[positions].tolist())
            if missing:
                names = ", ".join(self.classes[c] for c in sorted(missing))
                advice = (
                    "Take a larger fraction"
                    if fraction < 1
                    else "All its patients are in other splits: ingest again with --resplit and another --seed, add images "
                    "of it, or empty its labels to leave it out"
                )
                raise SplitError(
                    f"task {self.name}: no training image of class {names} at fraction {fraction:g}. {advice}."
                )
        return positions

    def with_labels(self, labels: np.ndarray) -> Task:
        """The same task with other labels, of the shape of `labels`."""
        task = replace(self)
        vars(task)["labels"] = labels  # in place of the cached property
        return task

    def count(self, positions: np.ndarray) -> dict[str, int | None]:
        """`images` and `patients` among some rows, and `groups` with `target_of`; patients are null when unknown."""
        patients = None if self.patients is None else len(set(self.patients[positions].tolist()))
        groups = {} if self.group_names is None else {"groups": len(self.bags(positions).names)}
        return {"images": len(positions), "patients": patients, **groups}


def open_task(spec: str | Path) -> Task:
    """Open a task by name from `recipes/tasks/`, or by the path of its card.

    Raises:
        TaskError: If there is no such card, or the card does not fit its store.
        StoreError: If its store does not exist.
    """
    return Task.load(spec)


def mask_classes(store: Images, card: TaskCard) -> dict[str, tuple[int, ...] | Literal["any"]]:
    """Name of each class of a mask -> its values."""
    named = store.card.masks.classes if store.card.masks else {}
    if card.classes:
        return card.classes
    return {str(name): (int(value),) for value, name in named.items()}


def mask_codes(store: Images, card: TaskCard, where: str) -> np.ndarray:
    """Class code of every value that a mask may hold.

    Raises:
        TaskError: If the store has no masks, or neither it nor the card names their classes, or two classes share a value.
    """
    if store.card.masks is None:
        raise TaskError(f"{where}: target: {card.store} has no masks. Ingest again with --masks PATH or PATTERN.")
    classes = mask_classes(store, card)
    if not classes:
        raise TaskError(
            f"{where}: the masks of {card.store} have no names. Write them into the card, for example "
            "`classes: {liver: 1, tumour: 2}`, or `classes: {nucleus: any}`."
        )
    codes = np.zeros(np.iinfo(np.dtype(store.card.masks.dtype)).max + 1, np.int64)
    ignored = store.card.masks.ignore
    if ignored is not None:
        codes[ignored] = IGNORED
    for code, (name, values) in enumerate(classes.items(), 1):
        for value in () if values == "any" else values:
            if not 0 < value < len(codes):
                raise TaskError(
                    f"{where}: classes.{name}: found {value}. Expected a whole number from 1 to {len(codes) - 1}."
                )
            if value == ignored:
                raise TaskError(f"{where}: classes.{name}: pixels of value {value} are ignored, as ingest was told.")
            if codes[value]:
                raise TaskError(f"{where}: classes: two of them have the value {value}. Each pixel has one class.")
            codes[value] = code
    for code, values in enumerate(classes.values(), 1):
        if values == "any":
            codes[1:][codes[1:] == 0] = code
    return codes
