"""The images of a ranking: training and validation images of a task, in folds and bootstrap samples of patients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SplitError, UsageError
from ssl_transfer.measures.metrics import METRICS, metric_sign
from ssl_transfer.measures.resampling import draw_counts

LEAST_FOLDS = 3  # to train, to select, to test


@dataclass(frozen=True)
class Sample:
    """Images of one task. Folds and bootstrap samples are drawn by patient, and are the same for every backbone.

    Attributes:
        task: The task.
        rows: Positions of the images in the task's store, (n,).
        folds: Fold of each image, (n,).
        counts: How often each image is drawn in each bootstrap sample, (resamples, n).
    """

    task: Task
    rows: np.ndarray
    folds: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, task: Task, fraction: float, seed: int, folds: int, resamples: int) -> Sample:
        """The validation images and a share of the training patients of a task.

        Raises:
            SplitError: If there are fewer than three patients (or images, where patients are unknown).
            UsageError: If fewer than three folds are requested.
        """
        if folds < LEAST_FOLDS:
            raise UsageError(f"folds: found {folds}, expected at least {LEAST_FOLDS}: to train, to select, to test.")
        rows = np.concatenate([task.rows("train", fraction, seed), task.rows("val")])
        patients, codes = np.unique(task.groups()[rows], return_inverse=True)
        images = np.unique(task.strata[rows], return_counts=True)[1].max()  # of the most frequent class
        if min(len(patients), images) < LEAST_FOLDS:
            raise SplitError(
                f"task {task.name}: found {len(patients)} patients in train and val, and at most {images} images of one class; "
                f"expected at least {LEAST_FOLDS} of both. Use a larger fraction."
            )
        splitter = StratifiedGroupKFold(min(folds, len(patients), images), shuffle=True, random_state=seed)
        fold_of = np.empty(len(rows), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds
            for fold, (_, held_out) in enumerate(splitter.split(rows, task.strata[rows], codes)):
                fold_of[held_out] = fold
        drawn = [np.empty((0, len(rows)), np.int64), *draw_counts(codes, resamples, seed)]
        return cls(task, rows, fold_of, np.concatenate(drawn))

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of the images, (n,) or (n, K)."""
        return self.task.labels[self.rows]

    @cached_property
    def units(self) -> int:
        """Number of patients (of images, where patients are unknown), the units of folds and bootstrap samples."""
        return len(np.unique(self.task.groups()[self.rows]))

    def drawn(self) -> Iterator[np.ndarray]:
        """Positions, within this sample, of the images of each bootstrap sample; an image that is drawn twice occurs twice."""
        for counts in self.counts:
            yield np.repeat(np.arange(len(counts)), counts)

    def metric(self, scores: np.ndarray) -> float:
        """The task's metric of class scores (n, C) from `held_out_scores`."""
        return float(self._metric(scores, np.ones((len(scores), 1)))[0])

    def metric_resampled(self, scores: np.ndarray) -> np.ndarray:
        """The metric in every bootstrap sample, (resamples,)."""
        return self._metric(scores, self.counts.T.astype(float))

    def _metric(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The metric under R sets of image weights (n, R); shape (R,).

        Scores of two folds come from different probes and cannot be compared. A metric that compares them, such as AUROC, is
        therefore a mean over the folds in which it is defined, weighted by their numbers of images.
        """
        metric, weighted = self.task.card.metric, self.task.scoring.weighted
        if not METRICS[metric].compares_images:
            return weighted(self.labels, scores, weights, [metric])[metric]
        values, shares = [], []
        for fold in range(self.folds.max() + 1):
            rows = self.folds == fold
            values.append(weighted(self.labels[rows], scores[rows], weights[rows], [metric])[metric])
            shares.append(np.where(np.isnan(values[-1]), 0, weights[rows].sum(0)))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nansum(np.multiply(values, shares), 0) / np.sum(shares, 0)

    def held_out_scores(self, protocol: Callable, features: np.ndarray) -> np.ndarray:
        """Class scores (n, C) of every image by a probe that was neither trained nor selected on its fold.

        For each fold, probes are trained on all folds but this one and the next, and the best one is selected on the next fold.

        Args:
            protocol: The implementation of `knn` or `linear_probe`.
            features: Features of the sample, (n, D).

        Raises:
            SplitError: If so few patients have other classes that all training images are of one class.
        """
        metric, classes, count = self.task.card.metric, self.task.classes, self.folds.max() + 1
        scores = np.empty((len(self.rows), len(classes)))
        for fold in range(count):
            test, validation = self.folds == fold, self.folds == (fold + 1) % count
            train = ~test & ~validation
            queries, best = {"validation": features[validation], "test": features[test]}, -np.inf
            if self.labels.ndim == 1 and len(np.unique(self.labels[train])) < 2:
                raise SplitError(
                    f"task {self.task.name}: without two of its {count} folds, all training images are of one class; too few "
                    "patients have other classes. Use more folds, or a larger fraction."
                )
            for _, predicted, *_ in protocol(
                features[train], self.labels[train], queries, len(classes), kind=self.task.kind
            ):
                truth = self.labels[validation]
                measured = self.task.scoring.metrics(truth, predicted["validation"], [metric])[metric]
                value = np.nan_to_num(metric_sign(metric) * measured, nan=-1e300)  # NaN: few images
                if value > best:
                    best, scores[test] = value, predicted["test"]
        return scores
