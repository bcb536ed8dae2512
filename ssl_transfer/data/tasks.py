"""Tasks: a store, what is predicted of its images, and how that is scored. A task is one YAML file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_transfer.data.splits import label_fraction
from ssl_transfer.data.store import ImageStore, class_codes
from ssl_transfer.domains import Domain
from ssl_transfer.errors import SplitError, TaskError, nearest
from ssl_transfer.recipe import Section, read_yaml, recipes_folder, validate

METRICS = ("accuracy", "balanced_accuracy", "auroc", "f1", "ece")


class TaskCard(Section):
    """What a task's YAML file holds."""

    store: str
    target: str  # a column of rows.parquet
    metric: str  # settings are selected by it, and reports show it first
    averaging: Literal["macro", "weighted"] = "macro"  # of auroc and f1 over classes
    domain: str | None = None  # null: the store's


@dataclass(frozen=True)
class Task:
    """An opened task.

    Attributes:
        name: The card's file name.
        store: Its images.
        card: As written.
    """

    name: str
    store: ImageStore
    card: TaskCard

    @classmethod
    def load(cls, spec: str | Path) -> Task:
        """Open a task by the path of its card, or by name from `recipes/tasks/`.

        Raises:
            TaskError: If there is no such card, or the card does not fit its store.
            StoreError: If its store does not exist.
        """
        path = Path(spec)
        if not path.is_file():
            path = recipes_folder() / "tasks" / f"{spec}.yaml"
        if not path.is_file():
            known = [card.stem for card in path.parent.glob("*.yaml")]
            raise TaskError(f"{spec}: neither a task card nor a name in {path.parent}.{nearest(str(spec), known)}")
        card = validate(TaskCard, read_yaml(path), str(path))
        if card.metric not in METRICS:
            raise TaskError(f"{path}: metric: found '{card.metric}'.{nearest(card.metric, METRICS)}")
        task = cls(path.stem, ImageStore(card.store), card)
        if card.target not in task.store.columns:
            raise TaskError(
                f"{path}: target: {card.store} has no column '{card.target}'.{nearest(card.target, task.store.columns)}"
            )
        return task

    @property
    def domain(self) -> Domain:
        """The target domain."""
        return Domain.parse(self.card.domain) if self.card.domain else self.store.domain

    @cached_property
    def classes(self) -> list[str]:
        """Class names, in the store's order where it has one."""
        present = set(class_codes(self.store.column(self.card.target))[0].tolist())
        ordered = [name for name in self.store.card["classes"] or [] if name in present]
        classes = ordered if set(ordered) == present else sorted(present)
        if len(classes) < 2:
            raise TaskError(
                f"task {self.name}: column '{self.card.target}' has {len(classes)} class(es); 2 are needed."
            )
        return classes

    @cached_property
    def labels(self) -> np.ndarray:
        """Class number of every row of the store, −1 where unlabelled; int64, shape (N,)."""
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number.get(str(value), -1) for value in self.store.column(self.card.target)])

    @cached_property
    def patients(self) -> np.ndarray | None:
        """Patient of every row, shape (N,); None if the store does not know them."""
        return None if self.store.card["n_patients"] is None else self.store.column("patient")

    def groups(self) -> np.ndarray:
        """What is drawn or resampled as one: patients, or images where patients are unknown; shape (N,)."""
        return np.arange(len(self.store)) if self.patients is None else self.patients

    def rows(self, split: str, fraction: float = 1.0, seed: int = 0) -> np.ndarray:
        """Labelled rows of a split; of `train`, only those of a share of its patients.

        Fractions are nested and stratified (see `label_fraction`).

        Raises:
            SplitError: If nothing is left, or a class is missing from the training rows.
        """
        positions = np.asarray(self.store.positions(split))
        positions = positions[self.labels[positions] >= 0]
        if split == "train" and fraction < 1:
            kept = label_fraction(self.groups()[positions], self.labels[positions], fraction, seed)
            positions = positions[kept]
        if len(positions) == 0:
            raise SplitError(f"task {self.name}: no labelled image in the {split} split of {self.store.path}.")
        missing = set(range(len(self.classes))) - set(self.labels[positions].tolist())
        if split == "train" and missing:
            names = ", ".join(self.classes[c] for c in sorted(missing))
            raise SplitError(
                f"task {self.name}: no training image of class {names} at fraction {fraction}. Take a larger one."
            )
        return positions

    def count(self, positions: np.ndarray) -> dict[str, int | None]:
        """`images` and `patients` among some rows; patients are null when unknown."""
        patients = None if self.patients is None else len(set(self.patients[positions].tolist()))
        return {"images": len(positions), "patients": patients}
