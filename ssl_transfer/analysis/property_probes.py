"""Property probes: how linearly decodable properties of images are from features, cross-validated over patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.measures.classification import binary_auroc
from ssl_transfer.measures.standardize import Standardizer

FOLDS = 5
RIDGES = tuple(float(value) for value in np.logspace(-4, 4, 9))  # penalties per image, for standardised features
FEWEST = 30  # images with a value, and images per class
MOST_CLASSES = 30  # a text column with more distinct values is an id, not a property
FEWEST_NUMBERS = 10  # distinct values that make a numeric column a regression target; three if there are fractions


def probe_properties(
    features: np.ndarray, properties: pd.DataFrame, groups: np.ndarray, seed: int = 0, control: bool = True
) -> pd.DataFrame:
    """Predict properties from features by linear probes; every prediction is for a patient that is not in the training folds.

    Every probe is a ridge regression, of numbers (at least ten distinct values, or three if there are fractions) or of class
    indicators, one target per class, scored by AUROC. The penalty of each target is selected within the training patients. Groups
    are assigned to five folds at random. Left out are properties with fewer than 30 images or five groups, with one class or more
    than 30, or with numbers that never vary, and classes of fewer than 30 images.

    Args:
        features: Features (N, D), finite.
        properties: A column of numbers or text per property, N rows; None and NaN are unknown values.
        groups: Patient of each row, (N,).
        seed: Seed of folds and permutation.
        control: Whether chance is measured, too.

    Returns:
        A row per property: `property`; `measure` (`R2`, at most 1, and 0 for predicting the mean; or macro `AUROC`, averaged over
        folds); `value`; `chance`, its value if the property is permuted across patients (NaN without `control`); and `n`, the
        number of images.
    """
    by_rows: dict[bytes, list[Property]] = {}  # properties known for the same images share decompositions of features
    for name in properties:
        prepared = Property.of(str(name), properties[name].to_numpy())
        if prepared is not None and len(np.unique(groups[prepared.rows].astype(str))) >= FOLDS:
            by_rows.setdefault(prepared.rows.tobytes(), []).append(prepared)
    rows = []
    for columns in by_rows.values():
        sample = _Sample.of(features, groups, columns[0].rows, seed)
        target_arrays = [column.targets for column in columns]
        if control:
            target_arrays += [column.targets_of(sample.permuted(column.values)) for column in columns]
        bounded = np.repeat(
            [not column.classes for column in columns] * (1 + control), [part.shape[1] for part in target_arrays]
        )
        predicted, expected = _predicted(sample.inputs, np.hstack(target_arrays), sample.folds, bounded)
        edges = np.cumsum([part.shape[1] for part in target_arrays])[:-1]
        measured = [
            _mean_auroc(fold_outputs, truth, sample.folds) if column.classes else _r2(fold_outputs, truth, mean)
            for column, truth, fold_outputs, mean in zip(
                columns * (1 + control),
                target_arrays,
                np.split(predicted, edges, 1),
                np.split(expected, edges, 1),
                strict=True,
            )
        ]
        for index, column in enumerate(columns):
            chance = measured[len(columns) + index] if control else float("nan")
            measure = "AUROC" if column.classes else "R2"
            rows.append(
                {
                    "property": column.name,
                    "measure": measure,
                    "value": measured[index],
                    "chance": chance,
                    "n": len(column.rows),
                }
            )
    order = {name: index for index, name in enumerate(properties)}
    rows.sort(key=lambda row: order[row["property"]])
    return pd.DataFrame(rows, columns=["property", "measure", "value", "chance", "n"])


@dataclass(frozen=True, eq=False)
class Property:
    """A column that can be probed: rows with a value, their numbers or class codes, and the number of classes (0 for numbers)."""

    name: str
    rows: np.ndarray
    values: np.ndarray
    classes: int

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> Property | None:
        """A property with enough values, or None; see `probe_properties`."""
        rows = np.flatnonzero([value is not None and value == value for value in values])
        kept = np.asarray(values, object)[rows]
        if len(rows) < FEWEST:
            return None
        if all(isinstance(value, (int, float, np.number)) for value in kept):
            numbers = kept.astype(np.float64)
            distinct = np.unique(numbers)
            if len(distinct) >= FEWEST_NUMBERS or (len(distinct) > 2 and (distinct % 1 != 0).any()):
                return cls(name, rows, numbers, 0)
        names, codes, counts = np.unique(kept.astype(str), return_inverse=True, return_counts=True)
        frequent = counts >= FEWEST
        if len(names) > MOST_CLASSES or frequent.sum() < 2:
            return None
        in_frequent = frequent[codes]
        classes = np.unique(codes[in_frequent], return_inverse=True)[1]
        return cls(name, rows[in_frequent], classes, int(frequent.sum()))

    @property
    def targets(self) -> np.ndarray:
        """Regression targets: (n, 1) for numbers and for two classes, otherwise (n, C)."""
        return self.targets_of(self.values)

    def targets_of(self, values: np.ndarray) -> np.ndarray:
        """Regression targets of other values of this property; see `targets`."""
        if not self.classes:
            return values[:, None]
        ones = (values[:, None] == np.arange(self.classes)).astype(np.float64)
        return ones[:, 1:] if self.classes == 2 else ones


@dataclass(frozen=True)
class _Sample:
    """Features, folds and groups of the images with a value."""

    inputs: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    seed: int

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray, rows: np.ndarray, seed: int) -> _Sample:
        codes = np.unique(groups[rows].astype(str), return_inverse=True)[1]
        return cls(np.asarray(features[rows], np.float64), folds_of(groups[rows], seed), codes, seed)

    def permuted(self, target: np.ndarray) -> np.ndarray:
        """Permute values across groups: each group gets the values of another group, in order, repeated or cut to its length."""
        order = np.argsort(self.groups, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(self.groups))[:-1])
        sources = np.random.default_rng([self.seed, 1]).permutation(len(parts))
        shuffled = np.empty_like(target)
        for part, source in zip(parts, sources, strict=True):
            shuffled[part] = target[parts[source][np.arange(len(part)) % len(parts[source])]]
        return shuffled


def _predicted(
    inputs: np.ndarray, targets: np.ndarray, folds: np.ndarray, bounded: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold predictions of targets (n, T), and the means of the training targets as a baseline.

    Predictions of `bounded` targets (T,) are clipped to the range of the training targets, since linear models extrapolate.
    """
    predicted, expected = np.empty(targets.shape), np.empty(targets.shape)
    columns = np.arange(targets.shape[1])
    for fold in range(FOLDS):
        test, validation = folds == fold, folds == (fold + 1) % FOLDS
        train = ~test & ~validation
        trials = _ridge(inputs[train], targets[train], inputs[validation])
        errors = np.square(trials - targets[validation]).sum(1)  # (ridges, T)
        outputs = _ridge(inputs[~test], targets[~test], inputs[test])[errors.argmin(0), :, columns].T
        seen = targets[~test]
        predicted[test] = np.where(bounded, outputs.clip(seen.min(0), seen.max(0)), outputs)
        expected[test] = seen.mean(0)
    return predicted, expected


def _ridge(inputs: np.ndarray, targets: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Predictions (ridges, m, P) for queries by ridge regressions on standardised features, one per penalty in `RIDGES`."""
    standardize, centre = Standardizer.of(inputs), targets.mean(0)
    inputs, queries = standardize(inputs), standardize(queries)
    variances, axes = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    projected = axes.T @ (inputs.T @ (targets - centre)) / len(inputs)
    coordinates = queries @ axes
    return np.stack([coordinates @ (projected / (variances.clip(min=0) + ridge)[:, None]) + centre for ridge in RIDGES])


def _r2(predicted: np.ndarray, truth: np.ndarray, expected: np.ndarray) -> float:
    """R² of a target, (n, 1)."""
    return float(1 - np.square(truth - predicted).sum() / np.square(truth - expected).sum())


def folds_of(groups: np.ndarray, seed: int) -> np.ndarray:
    """Fold of each row, int (N,): groups are assigned at random."""
    codes = np.unique(groups.astype(str), return_inverse=True)[1]
    return (np.random.default_rng(seed).permutation(codes.max() + 1) % FOLDS)[codes]


def fold_auroc(scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUROC averaged over classes, then over folds, weighted by images.

    A class without positives or negatives in a fold is left out there.

    Args:
        scores: Scores of each class, (N, C).
        truth: Indicators of each class, (N, C).
        folds: Fold of each row, (N,).
        weights: Weight of each row in each of R resamples, (N, R).

    Returns:
        Shape (R,); NaN if nothing is left.
    """
    total, count = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for fold in range(FOLDS):
        rows = folds == fold
        positive, of_fold = truth[rows] == 1, weights[rows]
        both = np.flatnonzero(positive.any(0) & ~positive.all(0))
        if len(both):
            with np.errstate(invalid="ignore"):
                each = np.stack([binary_auroc(positive[:, c], ~positive[:, c], scores[rows, c], of_fold) for c in both])
            known = np.isfinite(each)
            share = known.any(0) * of_fold.sum(0)
            total += share * np.where(known, each, 0).sum(0) / np.maximum(known.sum(0), 1)
            count += share
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def _mean_auroc(scores: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> float:
    return float(fold_auroc(scores, truth, folds, np.ones((len(truth), 1)))[0])
