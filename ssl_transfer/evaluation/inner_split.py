"""The inner split of a probe that selects its regularisation: stratified, by group, independent of the order of rows."""

from __future__ import annotations

import hashlib

import numpy as np


def inner_split(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, fraction: float, seed: int
) -> np.ndarray:
    """Choose rows to hold out: a share of the groups of each class.

    Groups are drawn in the order of a hash of their names; without groups, rows in the order of a hash of their features.
    So neither the order of rows nor their repetition changes the split, and equal rows are never separated.

    Args:
        features: Features, shape (N, D).
        labels: Class codes (N,), or multilabel 0 and 1 (N, K). A group belongs to the stratum of its rarest class or label.
        groups: Group of each row, (N,), or None.
        fraction: Share of the groups of each stratum that is held out: at least one and not all, or none of a single group.
        seed: Seed of the draw.

    Returns:
        Whether a row is held out, bool (N,).

    Raises:
        ValueError: If no class has two groups.
    """
    names = (
        [row.tobytes() for row in features] if groups is None else [repr(group).encode() for group in groups.tolist()]
    )
    salt = int(seed).to_bytes(8, "little")
    ranks = [int.from_bytes(hashlib.blake2b(name, digest_size=8, salt=salt).digest(), "little") for name in names]
    ranks, unit = np.unique(np.array(ranks, np.uint64), return_inverse=True)  # ascending: in the order of the draw
    has = np.eye(labels.max() + 1, dtype=bool)[labels] if labels.ndim == 1 else labels == 1
    units = np.zeros((len(ranks), has.shape[1]), bool)
    np.logical_or.at(units, unit, has)
    rarity = np.where(units, units.sum(0), len(units) + 1)
    stratum = np.where(units.any(1), rarity.argmin(1), -1)
    held_out = np.zeros(len(units), bool)
    for members in (np.flatnonzero(stratum == name) for name in np.unique(stratum)):
        if len(members) > 1:
            held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    if not held_out.any():
        raise ValueError(
            f"LinearProbe: no class has two different {'rows' if groups is None else 'groups'} among {len(features)} rows, so "
            "none can be held out to choose the regularisation. Give C, or more data."
        )
    return held_out[unit]
