"""The independent values of both sides of a declared contrast.

The unit is the pretraining seed: both sides are averaged within it over evaluation seeds, label fractions and targets.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.study.declared import DeclaredContrast

STUDY = "study"  # column of a frame with several studies, which are decided at once
CELL_COLUMNS = ("task", "fraction", "strategy", "pretraining")  # averaged within a pretraining seed, with equal weights
PAIRED, WELCH = "paired", "welch"


def contrast_sides(frame: pd.DataFrame, contrast: DeclaredContrast) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of a complete frame on either side of a contrast."""
    runs = contrast.runs(frame)
    return _having(runs, contrast.a), _having(runs, contrast.b)


def cells_of(contrast: DeclaredContrast) -> list[str]:
    """Columns of the cells that are averaged within a pretraining seed."""
    return [name for name in CELL_COLUMNS if name not in contrast.a]


def _having(runs: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    keep = np.ones(len(runs), bool)
    for column, value in values.items():
        keep &= (runs[column] == value).to_numpy(bool)
    return runs[keep]


# What a verdict is limited to, by the number of checkpoints in place of recipes with several pretraining seeds.
CHECKPOINTS = ("", "this checkpoint", "these two checkpoints")


@dataclass(frozen=True)
class Units:
    """The independent values of both sides.

    Attributes:
        table: Paired: columns unit (pretraining or evaluation seed), a and b. Else: unit, side (`a` or `b`) and value. Of
            several studies, the column study too.
        unit: `pretraining_seed`; or `seed`, if a side has no more than one pretraining seed.
        test: `paired` or `welch`.
        left_out: Runs of one side without a counterpart on the other, or without a value.
        by_pretraining: Side -> whether its units are pretraining seeds.
    """

    table: pd.DataFrame
    unit: str
    test: str
    left_out: int
    by_pretraining: Mapping[str, bool]

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Values of side a and of side b."""
        if self.test == PAIRED:
            return self.table["a"].to_numpy(float), self.table["b"].to_numpy(float)
        a, b = (self.table.loc[self.table["side"] == side, "value"].to_numpy(float) for side in "ab")
        return a, b


def contrast_units(
    frame: pd.DataFrame, contrast: DeclaredContrast, shared_draws: bool = True, to_come: Collection[int] = ()
) -> Units:
    """The independent values of both sides of a contrast.

    With pretraining seeds on both sides, evaluations of equal (pretraining seed, evaluation seed) are paired; what one side
    lacks is left out on both. Pairs are averaged within each cell (target, fraction, …) of a pretraining seed, then over cells;
    a pretraining seed that lacks a whole cell is left out, because cells differ in level. Public weights on both sides share the
    draws of their evaluation seeds, and are paired by them. Without pretraining seeds on one side alone, or without shared
    draws, each side has its own units.

    Args:
        frame: A complete tidy frame (`table.complete`); with a column `study`, of several studies.
        contrast: The contrast.
        shared_draws: As for `decide`.
        to_come: Pretraining seeds that are still to come: with a single seed so far, that seed is a unit then.
    """
    within = [STUDY] if STUDY in frame else []
    sides = contrast_sides(frame, contrast)
    same_pretrainings = "pretraining" not in contrast.a  # strategies start from the same weights, public ones too
    trained = all(side["pretraining_seed"].notna().all() for side in sides)
    public = all(len(side) and side["pretraining_seed"].isna().all() for side in sides)
    if shared_draws and (same_pretrainings or trained or public):
        return _paired_units(*sides, within, cells_of(contrast), to_come)
    parts, by_pretraining, left_out = [], {}, 0
    for name, side in zip("ab", sides, strict=True):
        finite = side[side["value"].notna()]
        left_out += len(side) - len(finite)
        several = bool(finite["pretraining_seed"].notna().all()) and _several(finite, to_come)
        by_pretraining[name] = several
        unit = "pretraining_seed" if several else "seed"
        parts.append(_cell_means(finite, within, cells_of(contrast), unit, ["value"]).assign(side=name))
    table = pd.concat(parts, ignore_index=True)[[*within, "unit", "side", "value"]]
    unit = "pretraining_seed" if all(by_pretraining.values()) else "seed"
    return Units(table, unit, WELCH, left_out, by_pretraining)


def paired_runs(a: pd.DataFrame, b: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Runs of two sides side by side: the keys, and columns a and b, NaN where a side lacks the run or its value."""
    columns = [*keys, "value"]
    right = b[columns].rename(columns={"value": "b"})
    return a[columns].rename(columns={"value": "a"}).merge(right, how="outer", on=list(keys))


def _several(runs: pd.DataFrame, to_come: Collection[int]) -> bool:
    """Whether there is more than one pretraining seed, or will be."""
    return len({*runs["pretraining_seed"].unique(), *to_come}) > 1


def _paired_units(
    a: pd.DataFrame, b: pd.DataFrame, within: list[str], cells: list[str], to_come: Collection[int]
) -> Units:
    both = paired_runs(a, b, [*within, *cells, "pretraining_seed", "seed"])
    pairs = both.dropna(subset=["a", "b"])
    unit = "pretraining_seed" if _several(pairs, to_come) else "seed"
    table = _cell_means(pairs, within, cells, unit, ["a", "b"])
    used = pairs.merge(table[[*within, "unit"]].rename(columns={"unit": unit}), on=[*within, unit])
    left_out = int(both[["a", "b"]].notna().sum().sum()) - 2 * len(used)
    left_out += int(both[["a", "b"]].isna().all(axis=1).sum())
    return Units(table, unit, PAIRED, left_out, dict.fromkeys("ab", unit == "pretraining_seed"))


def _cell_means(runs: pd.DataFrame, within: list[str], cells: list[str], unit: str, values: list[str]) -> pd.DataFrame:
    """Means of each unit over its cells, every cell with equal weight; units that lack a cell are left out."""
    by_cell = runs.groupby([*within, *cells, unit], dropna=False)[values].mean().reset_index()
    cell = by_cell.groupby(cells, dropna=False).ngroup()
    units = [*within, unit]
    has = by_cell.groupby(units)[values[0]].transform("size")
    expected = cell.groupby([by_cell[name] for name in within]).transform("nunique") if within else cell.nunique()
    means = by_cell[has == expected].groupby(units)[values].mean()
    return means.rename_axis([*within, "unit"]).reset_index()


def paired_differences(frame: pd.DataFrame, contrast: DeclaredContrast) -> pd.DataFrame:
    """Differences a − b of every (pretraining seed, evaluation seed), averaged over the cells of the contrast.

    A cell whose results do not depend on the evaluation seed, so that it is planned once, counts in each of them.

    Args:
        frame: A complete tidy frame (`table.complete`).
        contrast: The contrast.

    Returns:
        Columns pretraining_seed, seed and difference; seeds that lack a cell are left out.
    """
    keys, cells = ["pretraining_seed", "seed"], cells_of(contrast)
    pairs = paired_runs(*contrast_sides(frame, contrast), [*cells, *keys])
    values = pairs.assign(difference=pairs["a"] - pairs["b"]).dropna(subset=["difference", *keys])
    return _over_cells(values, cells, keys, "difference")


def side_values(frame: pd.DataFrame, contrast: DeclaredContrast) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values of either side at every evaluation, averaged over the cells of the contrast; for contrasts with public weights.

    Args:
        frame: A complete tidy frame (`table.complete`).
        contrast: The contrast.

    Returns:
        For each side columns pretraining_seed and seed (public weights: seed alone) and value; seeds that lack a cell are left
        out.
    """
    a, b = (
        _side_values(side.dropna(subset=["value", "seed"]), cells_of(contrast))
        for side in contrast_sides(frame, contrast)
    )
    return a, b


def _side_values(runs: pd.DataFrame, cells: list[str]) -> pd.DataFrame:
    if runs["pretraining_seed"].notna().all():
        return _over_cells(runs, cells, ["pretraining_seed", "seed"], "value")
    return _cell_means(runs, [], cells, "seed", ["value"]).rename(columns={"unit": "seed"})


def _over_cells(runs: pd.DataFrame, cells: list[str], keys: list[str], column: str) -> pd.DataFrame:
    """Means of a column over cells, for each combination of the keys, the last of which is the evaluation seed."""
    if runs.empty:
        return runs[[*keys, column]]
    runs = runs.assign(cell=runs.groupby(cells, dropna=False).ngroup())
    table = runs.pivot_table(column, keys, "cell")
    for cell in table if len(table.columns) > 1 else ():
        if runs.loc[runs["cell"] == cell, "seed"].nunique() == 1:
            table[cell] = table[cell].groupby(level="pretraining_seed").transform("mean")
    return table.dropna().mean(axis=1).rename(column).reset_index()
