"""Bootstrap intervals of nested data: seeds within seeds, cases within patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError
from ssl_transfer.measures.resampling import draw_positions, percentile_interval

BLOCK = 1_000_000  # numbers drawn at once


@dataclass(frozen=True)
class SeedBootstrap:
    """Difference of two arms with a percentile interval; `n_a` and `n_b` count pretraining seeds."""

    difference: float
    ci_low: float
    ci_high: float
    n_a: int
    n_b: int
    resamples: int


def nested_bootstrap(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> SeedBootstrap:
    """Resample pretraining seeds, and within each its fine-tuning seeds; difference = mean_a − mean_b.

    The mean of an arm is that of its pretraining seeds' means. With few of them the interval is too narrow,
    and `welch` over pretraining seeds is the test. Simulated (3000 studies, 3 fine-tuning seeds each, pretraining varying
    0.5 / 1 / 2 / 8 times as much as fine-tuning), a 95 % interval covers the truth in 95 / 91 / 88 / 87 % with 4
    pretraining seeds a side, in 97 / 94 / 92 / 92 % with 8, and in 97 / 95 / 94 / 93 % with 16.

    Args:
        a: Values of the fine-tuning seeds, one array per pretraining seed; the arrays may differ in length.
        b: Those of the other arm.
        resamples: Number of bootstrap samples.
        seed: Seed of the draw.
        confidence: Level of the percentile interval.

    Returns:
        Bounds are NaN with fewer than two pretraining seeds on a side or a value that is NaN.

    Raises:
        RunError: If an arm has no pretraining seed, or one of them no value.

    References:
        Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8.
    """
    rng = np.random.default_rng(seed)
    sides = [[np.asarray(values, float) for values in side] for side in (a, b)]
    for name, side in zip("ab", sides, strict=True):
        if not side or min(map(len, side)) == 0:
            raise RunError(
                f"nested bootstrap: side {name} has a pretraining seed without a value, or no such seed at all."
            )
    means = [np.mean([values.mean() for values in side]) for side in sides]
    low = high = np.nan
    if min(map(len, sides)) > 1 and np.isfinite(means).all():
        drawn = _resampled(sides[0], resamples, rng) - _resampled(sides[1], resamples, rng)
        low, high = percentile_interval(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    return SeedBootstrap(float(means[0] - means[1]), float(low), float(high), len(sides[0]), len(sides[1]), resamples)


def _resampled(side: list[np.ndarray], resamples: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of an arm in each bootstrap sample."""
    k, counts = len(side), np.array([len(values) for values in side])
    padded = np.zeros((k, counts.max()))
    for row, values in zip(padded, side, strict=True):
        row[: len(values)] = values
    means = []
    for size in _blocks(resamples, padded.size):
        outer = rng.integers(k, size=(size, k, 1))
        inner = (rng.random((size, k, counts.max())) * counts[outer]).astype(int)
        used = np.arange(counts.max()) < counts[outer]
        means.append((np.sum(padded[outer, inner] * used, -1) / counts[outer[..., 0]]).mean(-1))
    return np.concatenate(means)


def _blocks(resamples: int, each: int) -> list[int]:
    """Split resamples so that no block draws more than `BLOCK` numbers."""
    size = max(1, BLOCK // each)
    return [min(size, resamples - start) for start in range(0, resamples, size)]


@dataclass(frozen=True)
class PatientBootstrap:
    """Mean difference a − b over cases with a percentile interval; `n_dropped` cases lacked a score or a patient."""

    difference: float
    ci_low: float
    ci_high: float
    n_cases: int
    n_patients: int
    n_dropped: int
    resamples: int


def patient_bootstrap(
    cases: pd.DataFrame, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> PatientBootstrap:
    """Compare two arms case by case, resampling patients, because the slices of one patient are not independent.

    A patient enters with all cases or none, so a resample may have another number of cases; its difference is the mean
    over cases. The interval generalises over patients, for these two trained models, and not over seeds.

    Args:
        cases: One row per case: patient, a and b (scores of both arms). Rows with a NaN in any of them are dropped.
        resamples: Number of bootstrap samples.
        seed: Seed of the draw.
        confidence: Level of the percentile interval.

    Returns:
        Bounds are NaN with fewer than two patients.

    Raises:
        RunError: If a column is missing.
    """
    if missing := [name for name in ("patient", "a", "b") if name not in cases]:
        raise RunError(f"patient bootstrap: no column {', '.join(missing)}; expected patient, a and b, a row per case.")
    kept = cases[["patient", "a", "b"]].dropna()
    patient, patients = pd.factorize(kept["patient"])
    n = len(patients)
    counts = np.bincount(patient, minlength=n)
    sums = np.bincount(patient, (kept["a"] - kept["b"]).to_numpy(float), n)
    difference, low, high = (sums.sum() / counts.sum() if n else np.nan), np.nan, np.nan
    if n > 1:
        rng = np.random.default_rng(seed)
        draws = draw_positions(n, resamples, rng)
        means = np.concatenate([sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in draws])
        low, high = percentile_interval(means, ((1 - confidence) / 2, (1 + confidence) / 2))
    dropped = len(cases) - len(kept)
    return PatientBootstrap(float(difference), float(low), float(high), len(kept), n, dropped, resamples)
