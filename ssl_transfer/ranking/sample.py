"""What a ranking looks at: training and validation images of a task, dealt into folds and resampled by patient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SplitError, UsageError
from ssl_transfer.measures.metrics import classification_metrics, metric_sign, weighted_metrics
from ssl_transfer.measures.resampling import draw_counts

LEAST_FOLDS = 3  # to learn from, to choose on, to score


@dataclass(frozen=True)
class Sample:
    """Images of one task. Everything that is drawn is drawn by patient, and is the same for every backbone.

    Attributes:
        rows: Positions in the task's store, (n,).
        folds: Fold of each, (n,).
        times: How often each is drawn in each resample, (resamples, n).
    """

    task: Task
    rows: np.ndarray
    folds: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, task: Task, fraction: float, seed: int, folds: int, resamples: int) -> Sample:
        """Of a task's validation images and a share of its training patients.

        Raises:
            SplitError: If there are fewer than three patients (or images, where patients are unknown).
            UsageError: If there are to be fewer than three folds.
        """
        if folds < LEAST_FOLDS:
            raise UsageError(f"folds: found {folds}, expected at least {LEAST_FOLDS}: to learn, to choose, to score.")
        rows = np.concatenate([task.rows("train", fraction, seed), task.rows("val")])
        names, patients = np.unique(task.groups()[rows], return_inverse=True)
        images = np.unique(task.strata[rows], return_counts=True)[1].max()  # of the most frequent class
        if min(len(names), images) < LEAST_FOLDS:
            raise SplitError(
                f"task {task.name}: {len(names)} patients in train and val, and at most {images} images of one class; a ranking "
                f"needs at least {LEAST_FOLDS} of both. Take a larger fraction."
            )
        dealt = StratifiedGroupKFold(min(folds, len(names), images), shuffle=True, random_state=seed)
        number = np.empty(len(rows), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds
            for fold, (_, held_out) in enumerate(dealt.split(rows, task.strata[rows], patients)):
                number[held_out] = fold
        drawn = [np.empty((0, len(rows)), np.int64), *draw_counts(patients, resamples, seed)]
        return cls(task, rows, number, np.concatenate(drawn))

    @cached_property
    def labels(self) -> np.ndarray:
        """As the task has them, (n,) or (n, K)."""
        return self.task.labels[self.rows]

    def drawn(self) -> Iterator[np.ndarray]:
        """Of each resample, the positions within this sample, those drawn twice standing twice."""
        for times in self.times:
            yield np.repeat(np.arange(len(times)), times)

    def metric(self, scores: np.ndarray) -> float:
        """The task's metric of class scores (n, C) that `held_out_scores` gave."""
        return float(self._measured(scores, np.ones((len(scores), 1)))[0])

    def metric_resampled(self, scores: np.ndarray) -> np.ndarray:
        """The same of every resample, (resamples,)."""
        return self._measured(scores, self.times.T.astype(float))

    def _measured(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Under weights (n, R), (R,). An AUROC compares scores with each other, which probes of two folds do not share: it is
        the mean over folds by their weight, without those in which it is undefined."""
        card, classes = self.task.card, self.task.classes
        if card.metric != "auroc":
            return weighted_metrics(self.labels, scores, card.averaging, classes, weights)[card.metric]
        values, shares = [], []
        for fold in range(self.folds.max() + 1):
            own = self.folds == fold
            values.append(
                weighted_metrics(self.labels[own], scores[own], card.averaging, classes, weights[own])["auroc"]
            )
            shares.append(np.where(np.isnan(values[-1]), 0, weights[own].sum(0)))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nansum(np.multiply(values, shares), 0) / np.sum(shares, 0)

    def held_out_scores(self, protocol: Callable, features: np.ndarray) -> np.ndarray:
        """Class scores (n, C) of every image by a probe that has neither learnt from its fold nor chosen a setting on it.

        For each fold in turn, settings are fitted to all others but the next one, and chosen by the task's metric there.

        Args:
            protocol: `knn` or `linear_probe` of `evaluate`.
            features: Of the sample, (n, D).

        Raises:
            SplitError: If a class has so few patients that images to learn from have one class alone.
        """
        card, classes, count = self.task.card, self.task.classes, self.folds.max() + 1
        scores = np.empty((len(self.rows), len(classes)))
        for fold in range(count):
            judged, chooses = self.folds == fold, self.folds == (fold + 1) % count
            learns = ~judged & ~chooses
            queries, best = {"choice": features[chooses], "score": features[judged]}, -np.inf
            if self.labels.ndim == 1 and len(np.unique(self.labels[learns])) < 2:
                raise SplitError(
                    f"task {self.task.name}: without two folds of {count}, the images left to learn from have one class: too few "
                    "patients have the others. Take more folds, or a larger fraction."
                )
            for _, found in protocol(features[learns], self.labels[learns], queries, len(classes)):
                chosen = classification_metrics(self.labels[chooses], found["choice"], card.averaging, classes)
                value = np.nan_to_num(
                    metric_sign(card.metric) * chosen[card.metric], nan=-1e300
                )  # undefined on few images
                if value > best:
                    best, scores[judged] = value, found["score"]
        return scores
