"""Counter-based random numbers: draws are functions of (seed, epoch, image, view), and orders functions of (seed, epoch).

There is no generator with a state. A view does not depend on the worker or rank that makes it, nor on whether the run was
resumed, and an epoch over twelve million images needs no list of them.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 6  # of the Feistel network
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(key: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele 2014, doi 10.1145/2660193.2660195); overflow is intended."""
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def uniforms(seed: int, epoch: int | np.ndarray, rows: np.ndarray, view: int, draws: int) -> np.ndarray:
    """Uniform random numbers of images.

    Args:
        seed: Seed of the run.
        epoch: Epoch, counted from 0: one for all images, or one per image, shape (B,).
        rows: Rows of the images; integers, shape (B,).
        view: Number of the view.
        draws: Number of random numbers per image.

    Returns:
        Float64 in [0, 1), shape (B, draws).

    Example:
        >>> a = uniforms(0, 3, np.array([7, 8]), 0, 2)
        >>> b = uniforms(0, 3, np.array([8]), 0, 2)
        >>> bool((a[1] == b[0]).all())
        True
    """
    with np.errstate(over="ignore"):
        key = np.zeros(1, np.uint64)
        for part in (seed, epoch, view):
            key = _mix((key ^ np.asarray(part, np.uint64)) + _GOLDEN)
        keys = _mix(np.asarray(rows, np.uint64) * _GOLDEN + key)
        slots = np.arange(1, draws + 1, dtype=np.uint64) * _GOLDEN
        return (_mix(keys[:, None] + slots) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def shuffled(positions: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """The items at some positions of a random order of 0 … count − 1, computed without the whole order.

    A Feistel network permutes the numbers below the next power of four; it is applied again until the result is below `count`,
    which is a bijection for every key.

    Args:
        positions: Integers in [0, count), shape (B,).
        count: Number of items.
        seed: Seed of the run.
        epoch: Number of the order.

    Returns:
        Int64, shape (B,).

    Source:
        Black & Rogaway 2002, Ciphers with arbitrary finite domains, section 4 (generalised Feistel, cycle walking).

    Example:
        >>> sorted(shuffled(np.arange(5), 5, 0, 0).tolist())
        [0, 1, 2, 3, 4]
    """
    half = np.uint64(max(1, (int(count - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    with np.errstate(over="ignore"):
        key = np.atleast_1d(np.uint64(0))
        for part in (seed, epoch):
            key = _mix((key ^ np.uint64(part)) + _GOLDEN)
        keys = _mix(key + np.arange(1, ROUNDS + 1, dtype=np.uint64) * _GOLDEN)
        items = np.asarray(positions).astype(np.uint64)
        walking = np.arange(len(items))
        while len(walking):
            left, right = items[walking] >> half, items[walking] & low
            for round_key in keys:
                left, right = right, left ^ (_mix(right * _GOLDEN + round_key) & low)
            items[walking] = (left << half) | right
            walking = walking[items[walking] >= count]
    return items.astype(np.int64)
