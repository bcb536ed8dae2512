"""Values that are not finite: NaN, infinity, and the ends of float32, which are used as padding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ssl_transfer.data.readers.reader import Unreadable, named_file

LARGEST = 1e30  # no physical value is larger; float padding is often ±3.4e38


def replace_non_finite(values: np.ndarray, padding: float | None = None) -> tuple[np.ndarray, int]:
    """Replace NaN, infinity, padding, and absolute values of at least 1e30 by finite ones of the same image or volume.

    +∞ and its like become the largest finite value. NaN, −∞ and padding become background: 0, or the smallest finite value where
    that is lower.

    Args:
        values: Numbers of any shape.
        padding: Value that the file states as missing; None: no such value.

    Returns:
        The values, in the same dtype (a copy only if some are replaced), and how many are replaced.

    Raises:
        Unreadable: If no value is finite.

    Example:
        >>> replace_non_finite(np.array([1.0, np.nan, np.inf, 3.0]))
        (array([1., 0., 3., 3.]), 2)
    """
    is_float = values.dtype.kind == "f"
    if not is_float and padding is None:
        return values, 0
    with np.errstate(invalid="ignore"):
        finite = np.abs(values) < LARGEST if is_float else np.ones(values.shape, bool)
    if padding is not None:
        finite &= values != padding
    replaced = int(finite.size - np.count_nonzero(finite))
    if not replaced:
        return values, 0
    if replaced == finite.size:
        raise Unreadable("none of its values is finite (NaN, infinity or padding)")
    lowest, highest = values[finite].min(), values[finite].max()
    with np.errstate(invalid="ignore"):
        above = ~finite & (values > 0) & (values != (np.nan if padding is None else padding))
    values = values.copy()
    values[~finite] = min(lowest, 0)
    values[above] = highest
    return values, replaced


def replaced_note(counts: Mapping[str, int]) -> list[str]:
    """The warning about replaced values; empty if there are none.

    Args:
        counts: Number of replaced values, by file.
    """
    files = sorted((file for file in counts if counts[file]), key=lambda file: -counts[file])
    if not files:
        return []
    examples = ", ".join(f"{named_file(file)} ({counts[file]:,})" for file in files[:3])
    return [
        f"{sum(counts.values()):,} values of {len(files)} file(s) were NaN, infinite or padding and were replaced (column "
        f"non_finite): {examples}"
    ]
