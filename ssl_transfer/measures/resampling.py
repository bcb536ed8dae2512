"""The bootstrap: patients (or other units) are drawn with replacement, and intervals are percentiles over these samples.

`draw_counts` gives how often each unit is drawn, for statistics that take weights; `draw_positions` gives which units are drawn,
for statistics of one value per unit. Both are seeded; they use different random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

DRAWN_AT_ONCE = 2**22  # numbers in memory at once: rows x resamples
LEVELS = (0.025, 0.975)  # quantiles of a 95 % interval


def draw_counts(codes: np.ndarray, resamples: int, seed: int | Sequence[int]) -> Iterator[np.ndarray]:
    """How often each row is drawn; all rows of a unit (a patient) are drawn together.

    Args:
        codes: Unit of each row, integers 0 to n − 1, shape (N,).
        resamples: Number of bootstrap samples.
        seed: Fixes the samples.

    Yields:
        Counts of a part of the resamples, in order, int64, shape (r, N); parts hold at most `DRAWN_AT_ONCE` numbers.
    """
    units = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    for count in _parts(resamples, len(codes)):
        yield rng.multinomial(units, np.full(units, 1 / units), size=count)[:, codes]


def draw_positions(units: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Which of n units are drawn, n of them each time.

    Yields:
        Positions 0 to n − 1 of a part of the resamples, int64, shape (r, n); parts hold at most `DRAWN_AT_ONCE` numbers.
    """
    for count in _parts(resamples, units):
        yield rng.integers(units, size=(count, units))


def percentile_interval(values: np.ndarray, levels: tuple[float, float] = LEVELS) -> tuple[float, float]:
    """Quantiles of the finite values of a statistic over bootstrap samples; (NaN, NaN) if there are none.

    Args:
        values: The statistic of each bootstrap sample, shape (R,).
        levels: Lower and upper probability.
    """
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, levels) if len(values) else (np.nan, np.nan)
    return float(low), float(high)


def patient_intervals(
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]], groups: np.ndarray, resamples: int, seed: int
) -> dict[str, list[float]]:
    """95 % percentile intervals of weighted statistics over resampled patients.

    Args:
        statistic, groups, seed: See `patient_samples`.
        resamples: Number of bootstrap samples; 0 gives no intervals.

    Returns:
        Name -> [low, high], see `intervals_of`.
    """
    return intervals_of(patient_samples(statistic, groups, resamples, seed))


def patient_samples(
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]],
    groups: np.ndarray,
    resamples: int,
    seed: int | Sequence[int],
) -> dict[str, np.ndarray]:
    """Weighted statistics in every bootstrap sample of the patients.

    Args:
        statistic: Maps weights of the rows (N, R) to values (R,) by name.
        groups: Patient of each row, shape (N,).
        resamples: Number of bootstrap samples R.
        seed: Fixes the samples.

    Returns:
        Name -> value in each sample, (R,); empty without resamples.
    """
    _, codes = np.unique(groups, return_inverse=True)
    samples: dict[str, list[np.ndarray]] = {}
    for counts in draw_counts(codes, resamples, seed):
        for name, values in statistic(np.ascontiguousarray(counts.T, dtype=float)).items():
            samples.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in samples.items()}


def intervals_of(samples: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """95 % percentile interval of each statistic over its finite samples; statistics without any are left out."""
    intervals = {name: percentile_interval(values) for name, values in samples.items()}
    return {name: list(interval) for name, interval in intervals.items() if not np.isnan(interval[0])}


def _parts(resamples: int, each: int) -> list[int]:
    """Sizes of the parts that resamples of `each` numbers are cut into, at most `DRAWN_AT_ONCE` numbers per part."""
    size = max(1, DRAWN_AT_ONCE // each)
    return [min(size, resamples - start) for start in range(0, resamples, size)]
