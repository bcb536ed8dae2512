"""What is watched while a backbone learns: an online kNN on validation images, and signs of collapse."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ssl_transfer.console import warn
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import RunError, StoreError
from ssl_transfer.geometry import rankme
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.neighbors import nearest, vote
from ssl_transfer.training.embedding import embed

NEIGHBORS = 20
COLLAPSED_BELOW = 0.05  # normalised_std; a healthy representation is near 1
COLLAPSED_FOR = 5  # logged steps in a row


class OnlineKnn:
    """Balanced accuracy of a kNN from training rows to validation rows; test rows are never read.

    Args:
        store: Labelled store.
        label: Column of its rows.
        images: At most this many training and this many validation rows, drawn with `seed`.

    Raises:
        StoreError: If the store has no labels or no validation split.
    """

    def __init__(self, store: ImageStore, label: str, images: int, seed: int):
        labels = store.column(label)
        known = np.array([value is not None and value == value for value in labels])
        if len(set(labels[known])) < 2:
            raise StoreError(f"{store.path}: column '{label}' has fewer than two classes, so no kNN can be watched.")
        self.store = store
        self.classes, codes = np.unique(labels[known].astype(str), return_inverse=True)
        self.codes = np.full(len(labels), -1)
        self.codes[known] = codes
        draw = np.random.default_rng(seed)
        self.rows = {}
        for split in ("train", "val"):
            rows = store.positions(split)
            rows = rows[known[rows]]
            self.rows[split] = np.sort(draw.choice(rows, min(images, len(rows)), replace=False))

    def measure(self, backbone: Backbone, device: torch.device, bf16: bool) -> dict[str, float]:
        """`knn` (balanced accuracy on validation, k = 20) and `rankme` of the validation features."""
        features = {
            split: embed(backbone, self.store, rows, device=device, bf16=bf16) for split, rows in self.rows.items()
        }
        k = min(NEIGHBORS, len(features["train"]))
        similarities, neighbors = nearest(features["train"], features["val"], k)
        found = vote(similarities, self.codes[self.rows["train"]][neighbors], len(self.classes)).argmax(1)
        truth = self.codes[self.rows["val"]]
        recalls = [np.mean(found[truth == c] == c) for c in np.unique(truth)]
        return {"knn": float(np.mean(recalls)), "rankme": rankme(torch.from_numpy(features["val"]))}


@dataclass
class CollapseAlarm:
    """Raises when projections of different images have become the same.

    Args:
        on_collapse: `stop` raises, `warn` says it once.
        patience_steps: Steps at the start that are not judged (warm-up).
    """

    on_collapse: str
    patience_steps: int
    _low: int = field(default=0, init=False)
    _told: bool = field(default=False, init=False)

    def check(self, step: int, std: float, rows: torch.Tensor) -> None:
        """Judge a logged step, counted from 1.

        Raises:
            RunError: If `on_collapse` is `stop` and the spread was below its limit for several logged steps.
        """
        if step <= self.patience_steps:
            return
        self._low = self._low + 1 if std < COLLAPSED_BELOW else 0
        if self._low < COLLAPSED_FOR or self._told:
            return
        message = (
            f"step {step}: the representation has collapsed: normalised std of projections {std:.3f} for "
            f"{self._low} logged steps in a row (healthy: about 1). Rows of the batch: {row_list(rows)}. "
            "Lower optimizer.lr, warm up longer, or, to go on regardless, set monitor.on_collapse=warn."
        )
        if self.on_collapse == "stop":
            raise RunError(message)
        warn(message)
        self._told = True


def row_list(rows: torch.Tensor) -> str:
    """The first rows of a batch, for a message."""
    shown = ", ".join(map(str, rows[:8].tolist()))
    return f"{shown}, … ({len(rows)})" if len(rows) > 8 else shown
