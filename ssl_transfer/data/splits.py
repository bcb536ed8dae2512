"""Splits and label fractions: patients, never slices, are drawn, stratified by label and with a seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ssl_transfer.data.store import SPLITS
from ssl_transfer.errors import SplitError

FEWEST_GROUPS = 3  # fewer cannot be divided into three splits


def draw_splits(
    groups: Sequence, labels: Sequence, shares: Sequence[float], seed: int, *, by_rarest: bool = False
) -> np.ndarray:
    """Assign whole groups to train, val and test, so that the shares hold in total and for each label.

    The stratum of a group is its most frequent label, or that of its labels which the fewest groups have. With fewer than three
    groups all rows are train; with three or more, every split with a share above 0 gets at least one group.

    Args:
        groups: Patient of each row (or another unit that must stay in one split), shape (N,).
        labels: Label of each row, shape (N,); None if it has no label.
        shares: Shares of the groups in train, val and test; they sum to 1.
        seed: Seed of the order in which groups are assigned.
        by_rarest: Whether the stratum is the rarest label: a finding that few images of a patient show then counts.

    Returns:
        Split name of each row, shape (N,).

    Raises:
        SplitError: If the shares are not three numbers in [0, 1] that sum to 1, or train gets none.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[0] == 0:
        raise SplitError(
            f"split shares {tuple(shares)}: expected three (train, val, test) that sum to 1, train above 0."
        )
    names, codes = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    if len(names) < FEWEST_GROUPS:
        return np.full(len(codes), SPLITS[0])
    strata = (_rarest if by_rarest else _majority)(codes, labels, len(names))
    order = sorted(range(len(names)), key=lambda g: (strata[g], _draw(seed, names[g])))
    assigned = np.empty(len(names), np.int64)
    total, within = np.zeros(3), defaultdict(lambda: np.zeros(3))
    for group in order:
        counts = within[strata[group]]
        deficit = np.array(shares) * (total.sum() + 1) - total + np.array(shares) * (counts.sum() + 1) - counts
        deficit[np.array(shares) == 0] = -np.inf
        assigned[group] = split = int(np.argmax(deficit))
        counts[split] += 1
        total[split] += 1
    for empty in (split for split in range(3) if shares[split] and not total[split]):
        fullest = int(np.argmax(total))
        moved = next(group for group in reversed(order) if assigned[group] == fullest)
        assigned[moved] = empty
        total[fullest] -= 1
        total[empty] += 1
    return np.array(SPLITS)[assigned[codes]]


def _majority(codes: np.ndarray, labels: Sequence, groups: int) -> list[str]:
    """Most frequent label of each group, as text; of equally frequent ones, the first in alphabetical order."""
    return [min(count, key=lambda label: (-count[label], label)) for count in _label_counts(codes, labels, groups)]


def _rarest(codes: np.ndarray, labels: Sequence, groups: int) -> list[str]:
    """The label of each group, as text, that the fewest groups have; none ("") only where a group has no label."""
    counts = _label_counts(codes, labels, groups)
    having = Counter(label for count in counts for label in count)
    return [min(count, key=lambda label: (label == "", having[label], label)) for count in counts]


def _label_counts(codes: np.ndarray, labels: Sequence, groups: int) -> list[Counter]:
    """How many rows of each group have each label, as text; "" is none."""
    counts: list[Counter] = [Counter() for _ in range(groups)]
    for code, label in zip(codes.tolist(), labels, strict=True):
        counts[code]["" if label is None or label != label else str(label)] += 1
    return counts


def _draw(seed: int, group: str) -> bytes:
    """A random sort key of a group, which depends only on the seed and the group."""
    return hashlib.blake2b(f"{seed}|{group}".encode(), digest_size=8).digest()


def shared_groups(groups: Sequence, splits: Sequence) -> list[tuple[str, list[str]]]:
    """Groups with rows in more than one split, and these splits; rows of unknown groups (None) are left out."""
    seen: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        if group is not None:
            seen[str(group)].add(str(split))
    return [(group, [s for s in SPLITS if s in where]) for group, where in sorted(seen.items()) if len(where) > 1]


def label_fraction(patients: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw the training rows of an experiment with a fraction of the labels.

    Patients are drawn, never single slices, and fractions are nested: a patient in the 1 % subset is also in the 10 % subset of
    the same seed, so that points of a learning curve differ only in size. Patients are drawn separately for each class (the class
    of a patient is its most frequent one), and every class keeps at least one of its patients.

    Args:
        patients: Patient of each row, shape (N,); positions of the rows if patients are unknown.
        labels: Class of each row; integers, shape (N,).
        fraction: Share of the patients of each class, in (0, 1].
        seed: Seed of the order in which patients are drawn, which does not depend on `fraction`.

    Returns:
        Positions of the chosen rows, ascending; int64, shape (n,).

    Raises:
        SplitError: If `fraction` is not in (0, 1].

    Example:
        >>> label_fraction(np.array([7, 7, 8, 9]), np.array([0, 0, 0, 1]), 0.5, seed=0).size in (2, 3)
        True
    """
    if not 0 < fraction <= 1:
        raise SplitError(f"label fraction {fraction}: expected a share in (0, 1], such as 0.1 for 10 %.")
    names, codes = np.unique(np.asarray(patients).astype(str), return_inverse=True)
    draws = [_draw(seed, name) for name in names]
    order = sorted(range(len(names)), key=draws.__getitem__)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    labels = np.asarray(labels)
    first_of_class = {order[rank[codes[labels == label]].min()] for label in np.unique(labels)}
    strata: dict[str, list[int]] = defaultdict(list)
    majority = _majority(codes, labels.tolist(), len(names))
    for patient in sorted(range(len(names)), key=lambda p: (p not in first_of_class, rank[p])):
        strata[majority[patient]].append(patient)
    chosen = np.zeros(len(names), bool)
    for members in strata.values():
        always = sum(patient in first_of_class for patient in members)
        chosen[members[: max(always, round(fraction * len(members)))]] = True
    return np.flatnonzero(chosen[codes]).astype(np.int64)


def permuted_labels(labels: np.ndarray, patients: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
    """Exchange labels between patients, so that nothing can be learnt from them: a control.

    Where all rows of each patient have one label, every patient gets that of another (or, by chance, its own). Otherwise the
    rows of a patient get labels of as few other patients as possible, in random order: with the order kept, slices of equal
    position would keep their label.

    Args:
        labels: Classes, shape (N,); or 0, 1 and −1 (unknown) of each label, shape (N, K): a row stays together.
        patients: Patient of each row, shape (N,); positions of the rows where patients are unknown.
        seed: Fixes the permutation.

    Returns:
        Labels of the same shape.

    Example:
        >>> sorted(permuted_labels(np.array([0, 1, 2]), np.array([7, 8, 9]), seed=0).tolist())
        [0, 1, 2]
    """
    random = np.random.default_rng(seed)
    _, first, codes = np.unique(np.asarray(patients).astype(str), return_index=True, return_inverse=True)
    donors = random.permutation(len(first))
    if np.array_equal(labels, labels[first[codes]]):
        return labels[first[donors[codes]]]
    rows = [random.permutation(np.flatnonzero(codes == donor)) for donor in donors]
    permuted = np.empty_like(labels)
    permuted[np.argsort(codes, kind="stable")] = labels[np.concatenate(rows)]
    return permuted
