"""The registry of metrics, and functions that compute all metrics of a kind.

To add a metric, write its function (in `classification`, `overlap`, …) and add one entry to `METRICS`. Tasks then accept it,
protocols compute it with its interval, studies know which direction is better, and reports show its title.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ssl_transfer.measures import classification, ordinal, overlap, regression, survival
from ssl_transfer.measures.classification import PerClass, ScoredImages
from ssl_transfer.measures.regression import ScoredValues
from ssl_transfer.measures.resampling import patient_intervals
from ssl_transfer.measures.survival import ScoredTimes
from ssl_transfer.target_kinds import KINDS, MetricKind

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Metric:
    """An entry of `METRICS`.

    Attributes:
        kind: `classification` (multiclass, multi-label and ordinal tasks), `ordinal`, `regression`, `survival`, `segmentation`,
            several of them, or `external`: not computed here, known from tables that were made elsewhere.
        sign: 1 if more is better, −1 if less is better.
        title: Name in reports.
        compute: Classification and ordinal: maps `ScoredImages` to values (R,) or `PerClass`; regression: `ScoredValues` to
            values (R,); survival: `ScoredTimes` to values (R,). Segmentation: maps the masks of one class in one case, a
            `MaskPair`, to a number.
        per_class: Whether there is also NAME_CLASS for each class; `compute` of classification then returns `PerClass`.
        calibrated: Classification: `compute` is given the probabilities after temperature scaling on validation. The metric
            exists on test alone, so that nothing can be selected by it.
        compares_images: Classification: whether scores of different images are compared with each other, as an AUROC does, so
            that scores of different classifiers cannot be pooled.
        has_unit: Whether its values are in the unit of a target (numbers, grades), or in mm or pixels, so that values on several
            targets cannot be averaged.
        present_only: Segmentation: the metric whose mean this is over the cases that have the class in truth. It has no
            `compute`.
        range: Smallest and largest possible value.
    """

    kind: MetricKind | tuple[MetricKind, ...]
    sign: Literal[1, -1]
    title: str
    compute: Callable | None = None
    per_class: bool = False
    calibrated: bool = False
    compares_images: bool = False
    has_unit: bool = False
    present_only: str | None = None
    range: tuple[float, float] = (0, 1)

    @property
    def kinds(self) -> tuple[MetricKind, ...]:
        """All its kinds."""
        return (self.kind,) if isinstance(self.kind, str) else self.kind


METRICS: dict[str, Metric] = {
    "quadratic_kappa": Metric("ordinal", 1, "quadratic kappa", ordinal.quadratic_kappa, range=(-1, 1)),
    "mae": Metric(("ordinal", "regression"), -1, "MAE", regression.mae, has_unit=True, range=(0, inf)),
    "rmse": Metric("regression", -1, "RMSE", regression.rmse, has_unit=True, range=(0, inf)),
    "r2": Metric("regression", 1, "R²", regression.r2, range=(-inf, 1)),
    "spearman": Metric("regression", 1, "Spearman correlation", regression.spearman, range=(-1, 1)),
    "c_index": Metric("survival", 1, "C-index", survival.c_index),
    "accuracy": Metric("classification", 1, "accuracy", classification.accuracy),
    "balanced_accuracy": Metric("classification", 1, "balanced accuracy", classification.balanced_accuracy),
    "auroc": Metric("classification", 1, "AUROC", classification.auroc, per_class=True, compares_images=True),
    "average_precision": Metric(
        *("classification", 1, "average precision", classification.average_precision),
        per_class=True,
        compares_images=True,
    ),
    "sensitivity_at_specificity": Metric(
        *("classification", 1, "sensitivity at specificity", classification.sensitivity_at_specificity),
        per_class=True,
        compares_images=True,
    ),
    "specificity_at_sensitivity": Metric(
        *("classification", 1, "specificity at sensitivity", classification.specificity_at_sensitivity),
        per_class=True,
        compares_images=True,
    ),
    "f1": Metric("classification", 1, "F1", classification.f1),
    "mcc": Metric("classification", 1, "MCC", classification.mcc, range=(-1, 1)),
    "ece": Metric("classification", -1, "ECE", classification.calibration_error),
    "ece_scaled": Metric("classification", -1, "ECE scaled", classification.calibration_error, calibrated=True),
    "brier": Metric("classification", -1, "Brier", classification.brier, range=(0, 2)),
    "brier_scaled": Metric("classification", -1, "Brier scaled", classification.brier, calibrated=True, range=(0, 2)),
    "dice": Metric("segmentation", 1, "Dice", overlap.dice, per_class=True),
    "hd95": Metric("segmentation", -1, "HD95", overlap.hd95, per_class=True, has_unit=True, range=(0, inf)),
    "nsd": Metric("segmentation", 1, "NSD", overlap.nsd, per_class=True),
    "dice_present": Metric("segmentation", 1, "Dice present", per_class=True, present_only="dice"),
    "calibration_error": Metric("external", -1, "calibration error", range=(0, inf)),
    "loss": Metric("external", -1, "loss", range=(-inf, inf)),
    "nll": Metric("external", -1, "nll", range=(-inf, inf)),
}


def metrics_of(*kinds: MetricKind) -> dict[str, Metric]:
    """The entries of some kinds, in order."""
    return {name: metric for name, metric in METRICS.items() if not set(kinds).isdisjoint(metric.kinds)}


def base_metric(name: str) -> str | None:
    """The metric of a name, which may be that of a value of one class: `hd95_liver` -> `hd95`; None for an unknown metric."""
    return max((base for base in METRICS if name == base or name.startswith(f"{base}_")), key=len, default=None)


def metric_sign(name: str) -> int:
    """1 if more of a metric is better, −1 if less is better. `hd95_liver` has the sign of `hd95`, an unknown metric has 1."""
    base = base_metric(name)
    return METRICS[base].sign if base else 1


def metric_range(name: str) -> tuple[float, float]:
    """Smallest and largest possible value; `hd95_liver` is as `hd95`, an unknown metric may have any value."""
    base = base_metric(name)
    return METRICS[base].range if base else (-inf, inf)


def has_unit(name: str) -> bool:
    """Whether values of a metric on several targets cannot be averaged; `hd95_liver` is as `hd95`, an unknown metric can be."""
    base = base_metric(name)
    return base is not None and METRICS[base].has_unit


def classification_metrics(
    labels: np.ndarray,
    scores: np.ndarray,
    averaging: str,
    classes: Sequence[str],
    *,
    operating_point: float = classification.OPERATING_POINT,
    temperature: float | None = None,
    names: Collection[str] | None = None,
) -> dict[str, float]:
    """Compute every classification metric of multiclass or multi-label predictions.

    Multiclass: `auroc`, `average_precision`, `f1` and the metrics at an operating point are averages over classes, each against
    the rest, and `balanced_accuracy` is the mean recall; a class without an image is left out (of f1, one that is never
    predicted either). `ece` is that of the top class. `brier` is the mean over images of Σ_c (p_c − y_c)², in [0, 2]; of two
    classes it is (p_1 − y_1)², in [0, 1]. With two classes the metrics against the rest are those of the second against the
    first, and there are none per class.

    Multi-label: all are averages over labels, from the entries that are known; a label is predicted by a score above
    0.5. All leave out labels that do not have both outcomes, but `accuracy`, `ece` (of the label's probability) and `brier`
    ((p − y)²), which leave out labels without a known entry, and `average_precision`, labels without a positive.

    Args:
        labels: True class, integers in [0, C), shape (N,); or 1, 0 or, where unknown, −1, shape (N, C).
        scores: Class probabilities, rows sum to 1; or label probabilities; shape (N, C).
        averaging: Averaging of auroc, average_precision, f1 and the metrics at an operating point over classes: `macro`, or
            `weighted` by the images of a class.
        classes: C names.
        operating_point: The specificity at which the sensitivity is measured, and the reverse, in (0, 1).
        temperature: Of temperature scaling, for `ece_scaled` and `brier_scaled`; None: without these.
        names: Entries of `METRICS` to compute; None: all of classification.

    Returns:
        Each of these metrics, then NAME_CLASS for those with values per class. Undefined values are NaN: auroc
        without both outcomes, averages over nothing.

    Raises:
        ValueError: If there are not as many names as columns of scores.

    Source:
        ece: Guo et al. 2017, https://arxiv.org/abs/1706.04599, 15 bins of equal width. brier: Brier 1950.
    """
    values = weighted_metrics(
        *(labels, scores, averaging, classes, np.ones((len(labels), 1))),
        operating_point=operating_point,
        temperature=temperature,
        names=names,
    )
    return {name: float(value[0]) for name, value in values.items()}


def weighted_metrics(
    labels: np.ndarray,
    scores: np.ndarray,
    averaging: str,
    classes: Sequence[str],
    weights: np.ndarray,
    *,
    operating_point: float = classification.OPERATING_POINT,
    temperature: float | None = None,
    names: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """The metrics of `classification_metrics` under weights of the images, shape (N, R); each has shape (R,).

    Args:
        labels, scores, averaging, classes, operating_point, temperature: See `classification_metrics`.
        weights: Weight of each image in each of R resamples, shape (N, R).
        names: Entries of `METRICS` to compute; None: all of classification.
    """
    if scores.shape[1] != len(classes):
        raise ValueError(f"scores of {scores.shape[1]} classes, names of {len(classes)}")
    scored = ScoredImages(labels, scores, averaging, weights, operating_point, temperature)
    return measured(scored, "multiclass", classes, names)


def measured(
    scored: ScoredImages | ScoredValues | ScoredTimes, kind: str, classes: Sequence[str], names: Collection[str] | None
) -> dict[str, np.ndarray]:
    """The metrics of a kind of task, each of shape (R,).

    Args:
        scored: Truth and predictions under R sets of weights.
        kind: Kind of the task, see `target_kinds.KINDS`.
        classes: Names of the classes, for values per class.
        names: Entries of `METRICS` to compute; None: all of the kind.
    """
    values, by_class = {}, {}
    with np.errstate(invalid="ignore", divide="ignore"):  # undefined values are NaN
        for name, metric in metrics_of(*KINDS[kind].metrics).items():
            if metric.compute is None or (names is not None and name not in names):
                continue
            given: Any = scored
            if metric.calibrated:
                if given.temperature is None:
                    continue
                given = given.calibrated
            value = metric.compute(given)
            if isinstance(value, PerClass):
                by_class |= {f"{name}_{label}": row for label, row in zip(classes, value.each, strict=False)}
                value = value.mean
            values[name] = value
    return values | by_class


def classification_intervals(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    averaging: str,
    classes: Sequence[str],
    resamples: int,
    seed: int,
    *,
    operating_point: float = classification.OPERATING_POINT,
    temperature: float | None = None,
) -> dict[str, list[float]]:
    """95 % percentile intervals of `classification_metrics` by the bootstrap over patients; see `patient_intervals`.

    Args:
        labels, scores, averaging, classes, operating_point, temperature: See `classification_metrics`.
        groups: Patient of each image, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
        seed: Fixes the samples.
    """

    def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
        stated = {"operating_point": operating_point, "temperature": temperature}
        return weighted_metrics(labels, scores, averaging, classes, weights, **stated)

    return patient_intervals(statistic, groups, resamples, seed)


def case_overlap(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: Mapping[int, str],
    spacing_mm: Sequence[float] | None,
    tolerance: float = overlap.TOLERANCE,
) -> list[dict[str, str | int | float]]:
    """Compare two segmentations of one case, class by class, by every segmentation metric.

    A case of one slice is measured in two dimensions. Empty masks go by `overlap.POLICY`.

    Args:
        truth: Class ids, integers, shape (S, H, W); S is 1 for a single image. Pixels of −1 are left out.
        predicted: Predicted class ids, of the same shape.
        classes: Names of the ids that are measured. The background, 0, is never measured; ids without a name belong to no class.
        spacing_mm: Spacing of slices, rows and columns, mm; None: distances are in pixels.
        tolerance: Distance of surfaces that NSD accepts, in mm or pixels.

    Returns:
        For each class: `class`, `dice`, `hd95`, `nsd`, `truth_voxels`, `found_voxels`.

    Raises:
        ValueError: If the shapes differ or are not (S, H, W), or the spacing is not three lengths above 0.
    """
    rows = []
    for name, pair in overlap.mask_pairs(truth, predicted, classes, spacing_mm, tolerance):
        values = {key: metric.compute(pair) for key, metric in metrics_of("segmentation").items() if metric.compute}
        voxels = {"truth_voxels": pair.truth_voxels, "found_voxels": pair.predicted_voxels}
        rows.append({"class": name, **values, **voxels})
    return rows


def overlap_metrics(cases: pandas.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Average segmentation metrics over cases, then over classes, so that a rare class counts as much as a frequent one.

    `dice_present` is the mean of Dice over the cases that have the class in truth: where most cases do not, `dice` mainly says
    that nothing was predicted in them.

    Args:
        cases: Rows of `case_overlap`; columns `class`, `dice`, `hd95`, `nsd`, `truth_voxels`.
        classes: Names, without the background.

    Returns:
        `dice`, `hd95`, `nsd` and `dice_present`, then each with `_CLASS`; NaN for a class without such a row, which the mean
        leaves out, as it does values of NaN.
    """
    values = weighted_overlap(cases, classes, np.ones((len(cases), 1)))
    return {name: float(value[0]) for name, value in values.items()}


def overlap_intervals(cases: pandas.DataFrame, groups: np.ndarray, resamples: int, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals of `overlap_metrics` by the bootstrap over patients; see `patient_intervals`.

    Args:
        cases: See `overlap_metrics`; the classes are those of its rows.
        groups: Patient of each row, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
        seed: Fixes the samples.
    """
    classes = list(dict.fromkeys(cases["class"]))
    return patient_intervals(lambda weights: weighted_overlap(cases, classes, weights), groups, resamples, seed)


def weighted_overlap(cases: pandas.DataFrame, classes: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of `overlap_metrics` under weights of the rows, shape (N, R); each has shape (R,).

    Metrics without a column are left out: predictions of earlier versions have no `nsd`.
    """
    member = (cases["class"].to_numpy() == np.array(classes, object)[:, None]).astype(float)  # (C, N)
    present = member * (cases["truth_voxels"].to_numpy() > 0)
    metrics, means = metrics_of("segmentation"), {}
    metrics = {name: metric for name, metric in metrics.items() if (metric.present_only or name) in cases}
    with np.errstate(invalid="ignore"):  # a class that no drawn patient has
        for name, metric in metrics.items():
            counted = present if metric.present_only else member
            numbers = cases[metric.present_only or name].to_numpy(float)
            counted = counted * ~np.isnan(numbers)
            means[name] = (counted * np.nan_to_num(numbers)) @ weights / (counted @ weights)
        values = {name: np.nansum(mean, 0) / (~np.isnan(mean)).sum(0) for name, mean in means.items()}
    for name, mean in means.items():
        if metrics[name].per_class:
            values |= {f"{name}_{label}": row for label, row in zip(classes, mean, strict=True)}
    return values
