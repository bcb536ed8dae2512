"""The cases of a ranking: training and validation images of a task, or groups of them, in folds and bootstrap samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ssl_transfer.data.groups import Bags
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SplitError, UsageError
from ssl_transfer.measures.metrics import METRICS, metric_sign
from ssl_transfer.measures.resampling import draw_counts
from ssl_transfer.models.group_probe import BagFeatures

LEAST_FOLDS = 3  # to train, to select, to test
UNDEFINED = -1e300  # stands for a metric without a value: less than any value


class HeldOut(NamedTuple):
    """Class scores of every case, (n, C), and the pooling that was best on validation (empty: of images)."""

    scores: np.ndarray
    pooling: str


@dataclass(frozen=True)
class Sample:
    """The cases of one task: its images, or with `target_of` groups of them.

    Folds and bootstrap samples are drawn by patient, and are the same for every backbone.

    Attributes:
        task: The task.
        rows: Positions of the images in the task's store.
        folds: Fold of each case, (n,).
        counts: How often each case is drawn in each bootstrap sample, (resamples, n).
        poolings: Candidate poolings of the images of a group; none of a task with a label per image.
    """

    task: Task
    rows: np.ndarray
    folds: np.ndarray
    counts: np.ndarray
    poolings: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, task: Task, fraction: float, seed: int, folds: int, resamples: int, poolings: Sequence[str] = ()
    ) -> Sample:
        """The validation images and a share of the training patients of a task.

        Raises:
            SplitError: If there are fewer than three patients (or images, where patients are unknown).
            UsageError: If fewer than three folds are requested.
        """
        if folds < LEAST_FOLDS:
            raise UsageError(f"folds: found {folds}, expected at least {LEAST_FOLDS}: to train, to select, to test.")
        rows = np.concatenate([task.rows("train", fraction, seed), task.rows("val")])
        cases = rows[task.bags(rows).first]
        patients, codes = np.unique(task.groups()[cases], return_inverse=True)
        most = np.unique(task.strata[cases], return_counts=True)[1].max()  # of the most frequent class
        if min(len(patients), most) < LEAST_FOLDS:
            raise SplitError(
                f"task {task.name}: found {len(patients)} patients in train and val, and at most {most} {task.case_word} of one "
                f"class; expected at least {LEAST_FOLDS} of both. Use a larger fraction."
            )
        splitter = StratifiedGroupKFold(min(folds, len(patients), most), shuffle=True, random_state=seed)
        fold_of = np.empty(len(cases), np.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class of fewer images than folds
            for fold, (_, held_out) in enumerate(splitter.split(cases, task.strata[cases], codes)):
                fold_of[held_out] = fold
        drawn = [np.empty((0, len(cases)), np.int64), *draw_counts(codes, resamples, seed)]
        return cls(task, rows, fold_of, np.concatenate(drawn), tuple(poolings))

    @cached_property
    def bags(self) -> Bags:
        """The cases of the images: the groups, or every image by itself."""
        return self.task.bags(self.rows)

    @cached_property
    def cases(self) -> np.ndarray:
        """Rows that stand for the cases, (n,): the images, or the first one of each group."""
        return self.rows[self.bags.first]

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of the cases, (n,) or (n, K)."""
        return self.task.labels[self.cases]

    @cached_property
    def units(self) -> int:
        """Number of patients (of images, where patients are unknown), the units of folds and bootstrap samples."""
        return len(np.unique(self.task.groups()[self.cases]))

    def inputs(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """Features of the cases, (n, D), by pooling of the images of a group (an empty name: of single images).

        Args:
            features: Features of `rows`.
        """
        if not self.poolings:
            return {"": features}
        of_groups = BagFeatures.of(features, self.bags)
        return {pooling: of_groups.pooled(pooling) for pooling in self.poolings}

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means over the images of each case, (n, S), of values of `rows`."""
        sums = np.zeros((len(self.cases), values.shape[1]))
        np.add.at(sums, self.bags.codes, values)
        return sums / self.bags.sizes[:, None]

    def drawn(self) -> Iterator[np.ndarray]:
        """Positions, within this sample, of the cases of each bootstrap sample; a case that is drawn twice occurs twice."""
        for counts in self.counts:
            yield np.repeat(np.arange(len(counts)), counts)

    def metric(self, scores: np.ndarray) -> float:
        """The task's metric of class scores (n, C) from `held_out`."""
        return float(self._metric(scores, np.ones((len(scores), 1)))[0])

    def metric_resampled(self, scores: np.ndarray) -> np.ndarray:
        """The metric in every bootstrap sample, (resamples,)."""
        return self._metric(scores, self.counts.T.astype(float))

    def _metric(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The metric under R sets of weights of the cases (n, R); shape (R,).

        Scores of two folds come from different probes and cannot be compared. A metric that compares them, such as AUROC, is
        therefore a mean over the folds in which it is defined, weighted by their numbers of cases.
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

    def held_out(self, protocol: Callable, inputs: Mapping[str, np.ndarray]) -> HeldOut:
        """Class scores of every case by a probe that was neither trained nor selected on its fold.

        For each fold, probes are trained on all folds but this one and the next, and the best one of all poolings is selected
        on the next fold.

        Args:
            protocol: The implementation of `knn` or `linear_probe`.
            inputs: Features of the cases by pooling, see `inputs`.

        Raises:
            SplitError: If so few patients have other classes that all training cases are of one class.
        """
        count = self.folds.max() + 1
        scores, validated = np.empty((len(self.cases), len(self.task.classes))), dict.fromkeys(inputs, 0.0)
        for fold in range(count):
            test, validation = self.folds == fold, self.folds == (fold + 1) % count
            train, best = ~test & ~validation, -np.inf
            if self.labels.ndim == 1 and len(np.unique(self.labels[train])) < 2:
                raise SplitError(
                    f"task {self.task.name}: without two of its {count} folds, all training {self.task.case_word} are of one "
                    "class; too few patients have other classes. Use more folds, or a larger fraction."
                )
            for pooling, features in inputs.items():
                value, of_test = self._selected(protocol, features, train, validation, test)
                validated[pooling] += value if value > UNDEFINED else 0.0
                if value > best:
                    best, scores[test] = value, of_test
        return HeldOut(scores, max(validated, key=validated.__getitem__))

    def _selected(
        self, protocol: Callable, features: np.ndarray, train: np.ndarray, validation: np.ndarray, test: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """The metric on validation of the best setting, in the direction of the metric, and its scores of the test fold."""
        metric, classes, best = self.task.card.metric, len(self.task.classes), None
        queries, truth = {"validation": features[validation], "test": features[test]}, self.labels[validation]
        for _, predicted, *_ in protocol(features[train], self.labels[train], queries, classes, kind=self.task.kind):
            measured = self.task.scoring.metrics(truth, predicted["validation"], [metric])[metric]
            value = float(np.nan_to_num(metric_sign(metric) * measured, nan=UNDEFINED))  # NaN: few images
            if best is None or value > best[0]:
                best = value, predicted["test"]
        assert best is not None  # a protocol has a setting
        return best
