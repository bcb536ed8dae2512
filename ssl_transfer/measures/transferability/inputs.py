"""Checks of the inputs of transferability scores."""

from __future__ import annotations

import warnings

import numpy as np

from ssl_transfer.errors import ScoreError

ROWS_PER_FEATURE = 5  # with fewer images per feature, scores that are fitted to these images are too optimistic
ROUNDING = 1e-12  # largest rounding error of sums in float64
SUM_TOLERANCE = 1e-3  # for probabilities that were stored in float16


class FewImagesWarning(UserWarning):
    """There are fewer than five images per feature: scores that are fitted to these images are too optimistic."""


def checked_labels(labels: np.ndarray, n_rows: int | None = None, name: str = "labels", least: int = 2) -> np.ndarray:
    """Turn integer labels into class codes 0 … C − 1, int64 (N,).

    Raises:
        ScoreError: If they are not integers, not (N,), not as many as the rows, or have fewer classes than `least`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        advice = f": use {name}.ravel()" if labels.ndim == 2 and labels.shape[1] == 1 else ", one class per image"
        raise ScoreError(f"{name}: found shape {labels.shape}, expected (N,){advice}.")
    if labels.dtype.kind not in "iub":
        raise ScoreError(
            f"{name}: found {labels.dtype}, expected integers. Number the classes: np.unique({name}, return_inverse=True)[1]."
        )
    _match(labels, n_rows, name)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < least:
        raise ScoreError(f"{name}: found {len(classes)} class in {len(labels)} images, expected at least two.")
    return codes.astype(np.int64)


def checked_features(features: np.ndarray) -> np.ndarray:
    """Check features (N, D) and return them as float32 or float64. The scores compute in float64.

    Raises:
        ScoreError: If they are not numbers, not (N, D), or not finite.
    """
    features = _numbers(features, "features", "(N, D), one row per image")
    if len(features) < ROWS_PER_FEATURE * features.shape[1]:
        warnings.warn(
            f"{len(features)} images of {features.shape[1]} features: with fewer than {ROWS_PER_FEATURE} images per feature, "
            "scores are too optimistic. Compare only backbones with equally many features.",
            FewImagesWarning,
            stacklevel=3,
        )
    return features


def checked_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Check probabilities of source classes and return them as float64 (N, S), without classes of probability 0 in all images.

    Raises:
        ScoreError: If they are not (N, S), not finite, or negative, or if their rows do not sum to 1.
    """
    probabilities = _numbers(probabilities, "source_probabilities", "(N, S), one column per source class")
    probabilities = probabilities.astype(np.float64, copy=False)
    sums = probabilities.sum(1)
    if probabilities.min(initial=0) < 0 or np.abs(sums - 1).max() > SUM_TOLERANCE:
        row = int(np.argmax((probabilities < 0).any(1) | (np.abs(sums - 1) > SUM_TOLERANCE)))
        raise ScoreError(
            f"source_probabilities: row {row} sums to {sums[row]:.4g}, and its smallest value is "
            f"{probabilities[row].min():.4g}; expected values ≥ 0 that sum to 1. If these are logits, take their softmax."
        )
    if np.abs(sums - 1).max() > ROUNDING:
        probabilities = probabilities / sums[:, None]
    has_mass = probabilities.sum(0) > 0
    return probabilities if has_mass.all() else probabilities[:, has_mass]


def checked_targets(targets: np.ndarray, n_rows: int, binary: bool) -> np.ndarray:
    """Check target columns (N, K) or a single one (N,), and return those that vary as float64 (N, K).

    Raises:
        ScoreError: If they are not finite numbers or not as many as the rows, if none of them varies, or if `binary` targets are
            not 0 and 1.
    """
    targets = np.asarray(targets)
    targets = _numbers(targets[:, None] if targets.ndim == 1 else targets, "labels", "(N,) or (N, K)").astype(
        np.float64
    )
    _match(targets, n_rows, "labels")
    if binary and not np.isin(targets, (0, 1)).all():
        invalid = targets[~np.isin(targets, (0, 1))][0]
        raise ScoreError(
            f"labels: found {invalid:g}, expected only 0 and 1, one column per label. Leave out images with an unknown label."
        )
    varies = np.ptp(targets, axis=0) > 0
    if not varies.any():
        raise ScoreError(
            f"labels: none of {len(varies)} columns varies over the {len(targets)} images. Take more images."
        )
    return targets[:, varies]


def checked_count(value: int, name: str, most: float) -> None:
    """Check that a value is a whole number from 1 to `most`.

    Raises:
        ScoreError: If it is not.
    """
    if not isinstance(value, (int, np.integer)) or not 1 <= value <= most:
        raise ScoreError(
            f"{name}: found {value!r}, expected a whole number from 1 on"
            + (f", up to {most}." if most < np.inf else ".")
        )


def _numbers(values: np.ndarray, name: str, shape: str) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "iubf":
        raise ScoreError(f"{name}: found {values.dtype}, expected real numbers.")
    if values.ndim != 2 or 0 in values.shape:
        raise ScoreError(f"{name}: found shape {values.shape}, expected {shape}.")
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    # The sum is the cheaper check; it may overflow for finite values.
    if not np.isfinite(values.sum(dtype=np.float64)) and not np.isfinite(values).all():
        non_finite = np.flatnonzero(~np.isfinite(values).all(1))
        advice = ", or extract the features again in fp32" if name == "features" else ""
        raise ScoreError(
            f"{name}: {len(non_finite)} of {len(values)} rows are not finite (the first: row {non_finite[0]}). "
            f"Leave them out{advice}."
        )
    return values


def _match(labels: np.ndarray, n_rows: int | None, name: str) -> None:
    if n_rows is not None and len(labels) != n_rows:
        raise ScoreError(f"{name}: found {len(labels)} for {n_rows} images, expected one of each.")
