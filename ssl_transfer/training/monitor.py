"""Monitoring of a pretraining: online kNN and linear probe on validation images, and alarms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl_transfer.console import warn
from ssl_transfer.data.images import Images
from ssl_transfer.data.store import class_codes
from ssl_transfer.errors import RunError, StoreError
from ssl_transfer.measures.geometry import rankme
from ssl_transfer.measures.neighbors import nearest, vote
from ssl_transfer.measures.standard_error import mean_recall_error
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.embedding import embed

NEIGHBORS = 20
COLLAPSED_BELOW = 0.05  # normalised_std; a healthy representation is near 1
COLLAPSED_FOR = 5  # logged steps in a row


class OnlineProbes:
    """Balanced accuracy of kNN and a linear probe, fitted to training rows and measured on validation rows. Test rows are not
    read.

    Args:
        store: Labelled store.
        label: Column with the labels.
        images: Largest number of training rows, and of validation rows.
        seed: Seed of the draw of these rows.

    Raises:
        StoreError: If the store has no labels or no validation split.
    """

    def __init__(self, store: Images, label: str, images: int, seed: int):
        self.classes, self.codes = class_codes(store.column(label))
        if len(self.classes) < 2:
            raise StoreError(f"{store.path}: column '{label}' has fewer than two classes, so nothing can be probed.")
        self.store = store
        draw = np.random.default_rng(seed)
        self.rows = {}
        for split in ("train", "val"):
            rows = store.positions(split)
            rows = rows[self.codes[rows] >= 0]
            self.rows[split] = np.sort(draw.choice(rows, min(images, len(rows)), replace=False))
        known = store.card.n_patients is not None
        self.patients = store.column("patient")[self.rows["val"]].astype(str) if known else None
        self.label = label

    def measure(self, backbone: Backbone, device: torch.device, bf16: bool) -> dict[str, float]:
        """`knn` (k = 20) with its standard error `knn_se` (see `mean_recall_error`), `linear_probe` (ridge on standardised
        features) and `rankme` of the validation features.
        """
        features = {
            split: embed(backbone, self.store, rows, device=device, bf16=bf16) for split, rows in self.rows.items()
        }
        if not all(np.isfinite(values).all() for values in features.values()):
            return dict.fromkeys(("knn", "knn_se", "linear_probe", "rankme"), math.nan)
        labels = {split: self.codes[rows] for split, rows in self.rows.items()}
        k = min(NEIGHBORS, len(features["train"]))
        similarities, neighbors = nearest(features["train"], features["val"], k)
        voted = vote(similarities, labels["train"][neighbors], len(self.classes)).argmax(1)
        probe = make_pipeline(StandardScaler(), RidgeClassifier(class_weight="balanced"))
        probed = probe.fit(features["train"], labels["train"]).predict(features["val"])
        return {
            "knn": _mean_recall(labels["val"], voted),
            "knn_se": mean_recall_error(labels["val"], voted, self.patients),
            "linear_probe": _mean_recall(labels["val"], probed),
            "rankme": rankme(torch.from_numpy(features["val"])),
        }

    def card(self) -> dict[str, Any]:
        """What is measured, for the card of a backbone: id of the store, column, and number of validation images and patients."""
        patients = None if self.patients is None else len(np.unique(self.patients))
        return {"store": self.store.id, "label": self.label, "images": len(self.rows["val"]), "patients": patients}


def _mean_recall(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.mean([np.mean(predicted[truth == c] == c) for c in np.unique(truth)]))


@dataclass
class Alarms:
    """Report a NaN or infinite loss and a collapsed representation, and stop the run or let it continue.

    Args:
        on_nonfinite: For a NaN or infinite loss: `stop` raises an error, `warn` prints one warning.
        on_collapse: For a collapsed representation: `stop` or `warn`.
        patience_steps: Number of first steps that are not checked for collapse (warm-up).
    """

    on_nonfinite: str
    on_collapse: str
    patience_steps: int
    _low: int = field(default=0, init=False)
    _reported: set[str] = field(default_factory=set, init=False)

    def nonfinite(self, step: int, loss: float, keys: Callable[[], str]) -> None:
        """Report a loss that is NaN or infinite; `keys` names the rows of the batch.

        Raises:
            RunError: If `on_nonfinite` is `stop`.
        """
        self._report(
            "nonfinite",
            self.on_nonfinite,
            lambda: (
                f"step {step}: the loss is {loss}. Rows of the batch: {keys()}. Lower optimizer.lr, warm up longer, set "
                "train.clip_gradient, or train.precision=fp32."
            ),
        )

    def projection_std(self, step: int, std: float, keys: Callable[[], str]) -> None:
        """Check the normalised standard deviation of the projections at a logged step, counted from 1.

        Raises:
            RunError: If `on_collapse` is `stop` and it was below its limit for several logged steps.
        """
        if step <= self.patience_steps:
            return
        self._low = self._low + 1 if std < COLLAPSED_BELOW else 0
        if self._low >= COLLAPSED_FOR:
            self._report(
                "collapse",
                self.on_collapse,
                lambda: (
                    f"step {step}: the representation has collapsed: normalised std of projections {std:.3f} for "
                    f"{self._low} logged steps in a row (healthy: about 1). Rows of the batch: {keys()}. "
                    "Lower optimizer.lr, warm up longer, or, to go on regardless, set monitor.on_collapse=warn."
                ),
            )

    def _report(self, kind: str, action: str, message: Callable[[], str]) -> None:
        if kind in self._reported:
            return
        if action == "stop":
            raise RunError(message())
        warn(message())
        self._reported.add(kind)
