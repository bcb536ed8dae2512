"""Splits and label fractions: patients, never slices, are drawn, stratified by label and with a seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ssl_transfer.data.store import SPLITS
from ssl_transfer.errors import SplitError

FEWEST_GROUPS = 3  # fewer cannot be divided into three splits


def draw_splits(
    groups: Iterable, labels: Iterable, shares: Sequence[float], seed: int, *, by_rarest: bool = False
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
    draws = np.fromiter((int.from_bytes(_draw(seed, str(group)), "big") for group in groups), np.uint64)
    keys, codes = np.unique(draws, return_inverse=True)  # groups are told apart by 64 bits
    if len(keys) < FEWEST_GROUPS:
        return np.full(len(codes), SPLITS[0])
    strata = (_rarest if by_rarest else _majority)(codes, labels)
    order = np.argsort(strata, kind="stable").tolist()  # within a stratum in the order of the draws
    assigned = np.empty(len(keys), np.int64)
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


def _majority(codes: np.ndarray, labels: Iterable) -> np.ndarray:
    """Most frequent label of each group; of equally frequent ones, the first in alphabetical order. See `_label_counts`."""
    groups, found, counts, _ = _label_counts(codes, labels)
    return _first_of_groups(groups, found, (found, -counts))


def _rarest(codes: np.ndarray, labels: Iterable) -> np.ndarray:
    """The label of each group that the fewest groups have; none ("") only where a group has no label. See `_label_counts`."""
    groups, found, _, names = _label_counts(codes, labels)
    is_none = np.array([name == "" for name in names])[found]
    return _first_of_groups(groups, found, (found, np.bincount(found)[found], is_none))


def _first_of_groups(groups: np.ndarray, found: np.ndarray, keys: tuple[np.ndarray, ...]) -> np.ndarray:
    """The label of each group that comes first by some keys, the last one first, as `np.lexsort` takes them."""
    order = np.lexsort((*keys, groups))
    is_first = np.append(True, np.diff(groups[order]) > 0)
    return found[order[is_first]]


def _label_counts(codes: np.ndarray, labels: Iterable) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """How many rows of each group have each label: group, label, count, and the sorted names of labels, of which "" is none."""
    numbers: dict[str, int] = {}
    texts = ("" if label is None or label != label else str(label) for label in labels)
    raw = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)
    if len(raw) != len(codes):
        raise ValueError(f"{len(codes)} groups for {len(raw)} labels")
    names = sorted(numbers)
    rank = np.empty(len(names), np.int64)
    rank[[numbers[name] for name in names]] = np.arange(len(names))
    pairs, counts = np.unique(codes * len(names) + rank[raw], return_counts=True)
    return pairs // len(names), pairs % len(names), counts, names


def _draw(seed: int, group: str) -> bytes:
    """A random sort key of a group, which depends only on the seed and the group."""
    return hashlib.blake2b(f"{seed}|{group}".encode(), digest_size=8).digest()


def shared_groups(groups: Iterable, splits: Iterable) -> list[tuple[str, list[str]]]:
    """Groups with rows in more than one split, and these splits; rows of unknown groups (None) are left out."""
    seen: dict[str, tuple[str, ...]] = {}  # patient -> splits, one object for all patients with the same
    same: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group, split in zip(groups, splits, strict=True):
        if group is not None and str(split) not in seen.get(str(group), ()):
            where = (*seen.get(str(group), ()), str(split))
            seen[str(group)] = same.setdefault(where, where)
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
    strata: dict[int, list[int]] = defaultdict(list)
    majority = _majority(codes, labels.tolist())
    for patient in sorted(range(len(names)), key=lambda p: (p not in first_of_class, rank[p])):
        strata[int(majority[patient])].append(patient)
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
