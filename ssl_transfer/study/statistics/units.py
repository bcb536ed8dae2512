"""Units of analysis: the independent values of every arm, and the pairs of values that two arms share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.domains import DISTANCE
from ssl_transfer.study.statistics.two_samples import Samples, differences
from ssl_transfer.study.table import CELL, SCRATCH, complete

BLOCK = 2_000_000  # runs that are joined at once


def seed_units(frame: pd.DataFrame) -> pd.DataFrame:
    """The independent values of each arm in each cell.

    The unit is the pretraining seed: evaluation seeds are averaged within it, because they are not independent. An arm with a
    single pretraining seed (or none, such as public weights) has only its evaluation seeds.

    Args:
        frame: As for `contrasts`.

    Returns:
        One row per unit: the columns of `CELL`, pretraining, unit (`pretraining_seed` or `seed`), unit_seed (which
        one) and value (NaN where a run of the unit has no value).
    """
    frame = complete(frame)
    seeds = frame.groupby([*CELL, "pretraining"], dropna=False)["pretraining_seed"]
    several = (seeds.transform("nunique") > 1) & (seeds.transform("count") == seeds.transform("size"))
    frame = frame.assign(
        unit=np.where(several, "pretraining_seed", "seed"),
        unit_seed=frame["pretraining_seed"].where(several, frame["seed"]),
    )
    runs = frame.groupby([*CELL, "pretraining", "unit", "unit_seed"], dropna=False)["value"]
    return runs.mean().where(runs.count() == runs.size()).reset_index()


@dataclass(frozen=True)
class PairedUnits:
    """The units that two arms share, of many pairs of arms.

    Attributes:
        pair: Number of the pair of arms, of each unit; ascending.
        a: Value of the first arm, of each unit.
        b: Value of the second arm.
        runs: Number of shared runs of each pair of arms, shape (pairs,).
        by_seed: Whether the units of a pair of arms are evaluation seeds of one pretraining seed, shape (pairs,).
    """

    pair: np.ndarray
    a: np.ndarray
    b: np.ndarray
    runs: np.ndarray
    by_seed: np.ndarray

    def samples(self) -> tuple[Samples, Samples, Samples]:
        """Samples of a, of b, and of their differences; one of each per pair of arms."""
        count = len(self.runs)
        a, b = (Samples.grouped(values, self.pair, count) for values in (self.a, self.b))
        return a, b, differences(self.a, self.b, self.pair, count)


@dataclass(frozen=True)
class Arms:
    """The arms that are compared within each group, and their runs.

    Attributes:
        table: A row per arm: the columns of the group, those that distinguish arms, and `unit` (see `seed_units`).
        group: Group of each arm, ascending.
        pretrainings: Number of pretraining seeds of each arm. Runs without one share the pretraining seed "unknown".
        trained: Whether all runs of an arm have a pretraining seed.
        public: Whether none has, as of public weights.
        arm: Arm of each run, as a row of the table; ascending.
        pretraining: Pretraining seed of each run, as a code; ascending within an arm.
        seed: Evaluation seed of each run, as a code; ascending within a pretraining seed.
        value: Of each run.
    """

    table: pd.DataFrame
    group: np.ndarray
    pretrainings: np.ndarray
    trained: np.ndarray
    public: np.ndarray
    arm: np.ndarray
    pretraining: np.ndarray
    seed: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, runs: pd.DataFrame, within: list[str], names: list[str]) -> Arms:
        """Arms of a complete frame, distinguished and ordered by the columns `names`, in groups of equal columns `within`."""
        arms = runs.groupby([*within, *names], dropna=False)
        seeds = arms["pretraining_seed"]
        table = seeds.agg(["nunique", "count", "size"]).reset_index()
        trained = (table["count"] == table["size"]).to_numpy()
        several = trained & (table["nunique"] > 1).to_numpy()
        table = table.assign(unit=np.where(several, "pretraining_seed", "seed"))
        codes = [pd.factorize(runs[name], sort=True)[0] for name in ("pretraining_seed", "seed")]
        pretrainings = (table["nunique"] + (table["count"] < table["size"])).to_numpy(int)
        arm = arms.ngroup().to_numpy(int)
        order = np.lexsort((codes[1], codes[0], arm))
        return cls(
            table=table.drop(columns=["nunique", "count", "size"]),
            group=table.groupby(within, dropna=False).ngroup().to_numpy(),
            pretrainings=pretrainings,
            trained=trained,
            public=(table["count"] == 0).to_numpy(),
            arm=arm[order],
            pretraining=codes[0][order],
            seed=codes[1][order],
            value=runs["value"].to_numpy(float, na_value=np.nan)[order],
        )

    def samples(self) -> Samples:
        """The units of every arm, as `seed_units` defines them: NaN where a run has no value."""
        by_seed = (self.table["unit"] == "seed").to_numpy()[self.arm]
        key = np.where(by_seed, self.seed, self.pretraining)
        order = np.lexsort((key, self.arm))
        unit = _numbered(self.arm[order], key[order])
        return Samples.grouped(_means(self.value[order], unit), self.arm[order][_first(unit)], len(self.table))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pair within a group: the row of its first and of its second arm, in the order of rows."""
        row = np.arange(len(self.group))
        return _ranges(row + 1, np.searchsorted(self.group, self.group, "right") - row - 1)

    def missing(self) -> np.ndarray:
        """Number of runs of each arm that have no value."""
        return np.bincount(self.arm, ~np.isfinite(self.value), len(self.table)).astype(int)

    def valued(self) -> np.ndarray:
        """Number of runs of each arm that have a value."""
        return np.bincount(self.arm, np.isfinite(self.value), len(self.table)).astype(int)

    def shared(self, a: np.ndarray, b: np.ndarray) -> PairedUnits:
        """The units that pairs of arms share.

        A run counts if the other arm has one of the same pretraining seed and evaluation seed, and both have a value.
        Evaluation seeds are averaged within the pretraining seed. Where arms share a single pretraining seed, evaluation seeds
        are the units.

        Args:
            a: Row of the first arm of each pair, shape (pairs,).
            b: Row of the second.
        """
        runs, by_seed, parts = np.zeros(len(a), int), np.zeros(len(a), bool), [[np.zeros(0)] * 3]
        for block in self._blocks(a):
            pair, of_a, of_b = self._joined(a[block], b[block])
            count = block.stop - block.start
            unit = _numbered(pair, self.pretraining[of_a])
            shared = np.bincount(pair[_first(unit)], minlength=count)
            single = (self.pretrainings[a[block]] == 1) & (self.pretrainings[b[block]] == 1)
            runs[block], by_seed[block] = np.bincount(pair, minlength=count), np.where(shared == 0, single, shared == 1)
            unit = _numbered(pair, unit, np.where(by_seed[block][pair], np.arange(len(pair)), 0))
            means = [_means(self.value[rows], unit) for rows in (of_a, of_b)]
            parts.append([pair[_first(unit)] + block.start, *means])
        pair, of_a, of_b = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return PairedUnits(pair.astype(int), of_a, of_b, runs, by_seed)

    def _blocks(self, a: np.ndarray) -> Iterator[slice]:
        """Slices of the pairs, so that no slice joins many more runs than `BLOCK`."""
        runs = np.cumsum(np.bincount(self.arm, minlength=len(self.table))[a])
        start = 0
        while start < len(a):
            done = runs[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(runs, done + BLOCK, "right")))
            yield slice(start, stop)
            start = stop

    def _joined(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Runs that two arms share, with a value on both sides: the pair, and the position of the run on either side."""
        start = np.searchsorted(self.arm, a)
        pair, of_a = _ranges(start, np.searchsorted(self.arm, a, "right") - start)
        seeds = self.seed.max(initial=0) + 2  # −1: no evaluation seed
        each = (self.pretraining.max(initial=0) + 2) * seeds
        within = (self.pretraining + 1) * seeds + self.seed + 1
        key = self.arm * each + within  # ascending
        wanted = b[pair] * each + within[of_a]
        of_b = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        kept = (key[of_b] == wanted) & np.isfinite(self.value[of_a]) & np.isfinite(self.value[of_b])
        return pair[kept], of_a[kept], of_b[kept]


def _numbered(*keys: np.ndarray) -> np.ndarray:
    """Number runs of equal keys, where the rows are sorted by the keys: 0 for the first."""
    new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return np.concatenate([[0], np.cumsum(new)])[: len(keys[0])].astype(int)


def _first(number: np.ndarray) -> np.ndarray:
    """Position of the first row of each number; numbers ascend."""
    return np.flatnonzero(np.diff(number, prepend=-1))


def _means(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean of each group 0, 1, …; NaN if any of its values is."""
    return np.bincount(group, values) / np.bincount(group)


def _ranges(first: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay out the ranges first[i] … first[i] + length[i] − 1: for each of their members i and the member."""
    owner = np.repeat(np.arange(len(length)), length)
    return owner, first[owner] + np.arange(len(owner)) - (np.cumsum(length) - length)[owner]


def domain_arms(frame: pd.DataFrame, boundaries: Mapping[tuple[str, str], str] | None = None) -> Arms:
    """Pretrainings within cells, with their boundary: the nearest source domain first, random initialisation last.

    Args:
        frame: As for `contrasts`.
        boundaries: (pretraining, task) -> boundary; None: the frame's own.
    """
    frame = complete(frame)
    keys: Any = ["pretraining", "task"]
    known = frame.groupby(keys)["boundary"].first()
    if boundaries is not None:
        known = pd.Series([boundaries.get(key, "") for key in known.index], known.index, dtype="object")
    boundary = known.reindex(pd.MultiIndex.from_frame(frame[keys])).to_numpy(object)
    frame = frame.assign(boundary=pd.Series(boundary, frame.index, dtype="object"))
    random_init = (frame["pretraining"] == SCRATCH) | (frame["boundary"] == SCRATCH)
    frame["distance"] = frame["boundary"].map(DISTANCE).fillna(3).where(~random_init, 4)
    return Arms.of(frame, CELL, ["distance", "pretraining", "boundary"])
