"""Contrasts over test patients: would other patients, and other pretraining seeds too, give the same difference?

The contrasts of `tables` have the pretraining seed as their unit and generalise over seeds, for the test patients at hand.
Here the patients are resampled. The metric of the contrast itself (balanced accuracy, AUROC, macro F1, Dice, …) is computed
anew for every run and resample, from the run's predictions; all runs of a target see the same resampled patients. Two
answers follow: over patients alone, for these trained models, and over seeds and patients together (`crossed`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.resampling import draw_counts
from ssl_transfer.study.statistics.corrections import ALPHA
from ssl_transfer.study.statistics.crossed import CrossedInterval, ResampledUnits, crossed_interval
from ssl_transfer.study.statistics.decision_table import decision_rows
from ssl_transfer.study.statistics.decisions import Decision
from ssl_transfer.study.table import CELL, complete

PATIENT_COLUMNS = [
    *CELL,
    "a",
    "b",
    "family",
    "level",
    "unit",
    "test",
    "n_a",
    "n_b",
    "n_cases",
    "n_patients",
    "resamples",
    *CrossedInterval.__dataclass_fields__,
]
FAMILIES = ("gate", "primary", "secondary", "exploratory")  # in this order where there are too many contrasts
MOST_CONTRASTS = 24
MOST_WORK = 5_000_000_000  # rows of predictions × classes (or rows) × resamples, over all runs: about a minute
FEWEST_RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class PredictedRun:
    """A finished run and how to read its predictions.

    Attributes:
        pretraining_seed: None: a backbone without one, such as public weights.
        seed: Evaluation seed.
        read: Returns the predictions of the test cases.
    """

    pretraining_seed: int | None
    seed: int
    read: Callable[[], CasePredictions]


Cell = Mapping[str, Any]  # the columns of `CELL`, and `pretraining`
RunsWithPredictions = Callable[[Cell], Iterable[PredictedRun]]  # the metric of the cell does not matter
Seeds = tuple[int | None, int]  # pretraining seed and evaluation seed
Measured = dict[Seeds, tuple[float, np.ndarray]]  # the metric of a run, and the metric in every resample (R,)


@dataclass(frozen=True)
class PatientContrast:
    """A contrast of two sides.

    Attributes:
        row: Values of `CELL`, a and b, and of family and level (of its intervals) where they are known.
        cells: What is averaged with equal weight (targets, fractions, …): the cell of side a and that of side b.
        paired: Whether runs of equal seeds belong together.
        units: The units that count, such as the pretraining seeds of a look; None: all. Of paired sides only.
    """

    row: Mapping[str, Any]
    cells: Sequence[tuple[Cell, Cell]]
    paired: bool = True
    units: Collection[int] | None = None

    @property
    def level(self) -> float:
        """Two-sided level of its intervals."""
        level = float(self.row.get("level", np.nan))
        return level if level > 0 else ALPHA


def patient_contrasts_of(pairs: pd.DataFrame) -> list[PatientContrast]:
    """Rows of `statistics.contrasts` as contrasts over patients, a cell each; not paired where `test` is `welch`."""
    contrasts = []
    row: Any
    for row in pairs.to_dict("records"):
        cell = {name: row[name] for name in CELL}
        sides = ({**cell, "pretraining": row["a"]}, {**cell, "pretraining": row["b"]})
        contrasts.append(PatientContrast(row, [sides], row.get("test") != "welch"))
    return contrasts


def declared_patient_contrasts(decisions: Sequence[Decision], frame: pd.DataFrame) -> list[PatientContrast]:
    """The gate and the declared primary contrasts over patients, of the seeds of the look that decided or the latest.

    Args:
        decisions: From `statistics.decide`; those without a look are left out.
        frame: The tidy table that they were decided on.
    """
    frame, made = complete(frame), []
    row: Any
    looked = [decision for decision in decisions if decision.look is not None]
    for decision, row in zip(looked, decision_rows(looked, {}).to_dict("records"), strict=True):
        sides, look = (decision.contrast.a, decision.contrast.b), decision.look
        columns = [name for name in [*CELL, "pretraining"] if name not in sides[0]]
        shared = decision.contrast.runs(frame)[columns].drop_duplicates().to_dict("records")
        cells = [({**cell, **sides[0]}, {**cell, **sides[1]}) for cell in shared]
        row |= {"family": decision.family, "level": look.level if look else np.nan}
        paired = decision.units.test == "paired"
        at_look = decision.units_at[decision.at].table["unit"] if paired and decision.at is not None else None
        made.append(PatientContrast(row, cells, paired, None if at_look is None else frozenset(at_look)))
    return made


def patient_contrasts(
    contrasts: Sequence[PatientContrast],
    runs: RunsWithPredictions,
    *,
    resamples: int = 2000,
    seed: int = 0,
    most: int = MOST_CONTRASTS,
) -> pd.DataFrame:
    """Compare the sides of each contrast over resampled patients, and over seeds and patients.

    Sides whose runs share pretraining seeds are paired: only what both have of (pretraining seed, evaluation seed) counts,
    and evaluation seeds are averaged within the pretraining seed. With one shared pretraining seed the units are evaluation
    seeds. Sides without shared pretraining seeds are compared unpaired. A unit that lacks a cell of the contrast is left out.

    Args:
        contrasts: From `declared_patient_contrasts` and `patient_contrasts_of`.
        runs: The runs of an arm in a cell.
        resamples: Number of bootstrap samples. Fewer are drawn where rows × resamples of all runs exceed `MOST_WORK`, but at
            least `FEWEST_RESAMPLES`.
        seed: Fixes the samples. Cells of one target share them; those of different targets are independent.
        most: Only so many contrasts, gate and primary ones first, then in their order.

    Returns:
        `PATIENT_COLUMNS`, a row for each contrast whose sides both have predictions of the same test cases. Intervals are at
        1 − `level`, by default 95 %.
    """
    position = {name: number for number, name in enumerate(FAMILIES)}
    chosen = sorted(contrasts, key=lambda contrast: position.get(contrast.row.get("family", ""), len(position)))[:most]
    drawn = _Drawn(runs, seed)
    drawn.resamples = drawn.affordable(chosen, resamples)
    rows = (_compared(contrast, drawn) for contrast in chosen)
    return pd.DataFrame([row for row in rows if row], columns=PATIENT_COLUMNS)


def _compared(contrast: PatientContrast, drawn: _Drawn) -> dict[str, Any] | None:
    """A row of the table; None without predictions, or if the sides were tested on different cases."""
    cells = [(drawn.runs(a), drawn.runs(b)) for a, b in contrast.cells]
    targets = {a["task"]: drawn.target(a) for a, _ in contrast.cells}
    if not cells or not all(a and b for a, b in cells) or None in targets.values():
        return None
    known = [target for target in targets.values() if target is not None]
    shared = [_paired_runs(*sides) for sides in cells]
    paired = contrast.paired and all(a for a, _ in shared)
    units, a, b = _units(shared if paired else cells, paired, contrast.units)
    if not len(a.value) or not len(b.value):
        return None
    fewest = min(len(target.patients) for target in known)
    return {
        **{name: contrast.row.get(name) for name in PATIENT_COLUMNS},
        "level": contrast.level,
        "unit": units,
        "test": "paired" if paired else "welch",
        "n_a": len(a.value),
        "n_b": len(b.value),
        "n_cases": sum(target.cases for target in known),
        "n_patients": sum(len(target.patients) for target in known),
        "resamples": drawn.resamples,
        **vars(crossed_interval(a, b, fewest, paired=paired, confidence=1 - contrast.level)),
    }


def _paired_runs(a: Measured, b: Measured) -> tuple[Measured, Measured]:
    """The runs of both sides whose seeds the other side has too; none of backbones without a pretraining seed."""
    shared = sorted((seeds for seeds in set(a) & set(b) if seeds[0] is not None), key=str)
    return {seeds: a[seeds] for seeds in shared}, {seeds: b[seeds] for seeds in shared}


def _units(
    cells: Sequence[tuple[Measured, Measured]], paired: bool, only: Collection[int] | None
) -> tuple[str, ResampledUnits, ResampledUnits]:
    """What a unit is, and the units of both sides: pretraining seeds where there are several, else evaluation seeds."""
    sides = [[sides[side] for sides in cells] for side in (0, 1)]
    several = [len({seeds[0] for runs in side for seeds in runs}) > 1 for side in sides]
    averaged = [_averaged(side, 0 if of_side else 1) for side, of_side in zip(sides, several, strict=True)]
    if paired:
        common = [unit for unit in averaged[0] if unit in averaged[1] and (only is None or unit in only)]
        averaged = [{unit: side[unit] for unit in common} for side in averaged]
    a, b = (
        ResampledUnits(np.array([value for value, _ in side.values()]), np.array([drawn for _, drawn in side.values()]))
        for side in averaged
    )
    return "pretraining_seed" if all(several) else "seed", a, b


def _averaged(cells: Sequence[Measured], by: int) -> dict[int | None, tuple[float, np.ndarray]]:
    """The runs of a side averaged within each unit of each cell, then over cells; units that lack a cell are left out.

    Args:
        cells: Its runs in each cell.
        by: Position of the unit in the seeds of a run: 0 pretraining seed, 1 evaluation seed.
    """
    units = dict.fromkeys(seeds[by] for seeds in cells[0])
    whole = [unit for unit in units if all(any(seeds[by] == unit for seeds in runs) for runs in cells)]
    means = {}
    for unit in whole:
        of_unit = [[run for seeds, run in runs.items() if seeds[by] == unit] for runs in cells]
        value = np.mean([np.mean([run[0] for run in runs]) for runs in of_unit])
        means[unit] = float(value), np.mean([np.mean([run[1] for run in runs], axis=0) for runs in of_unit], axis=0)
    return means


@dataclass(frozen=True, eq=False)
class _Target:
    """The test cases of a target, in the order of its first run, and how often each patient is drawn: counts (patients, R)."""

    keys: np.ndarray
    cases: int
    patients: np.ndarray
    counts: np.ndarray


class _Drawn:
    """The metric of every run under the resamples of its target's patients; each run is read once."""

    def __init__(self, runs: RunsWithPredictions, seed: int):
        self.resamples = FEWEST_RESAMPLES
        self._read = runs
        self._seed = seed
        self._targets: dict[str, _Target | None] = {}
        self._runs: dict[tuple, Measured] = {}

    def affordable(self, contrasts: Sequence[PatientContrast], resamples: int) -> int:
        """How many resamples of all runs of these contrasts stay within `MOST_WORK`."""
        arms = {_key(cell): cell for contrast in contrasts for sides in contrast.cells for cell in sides}
        rows = 0
        for cell in arms.values():
            found = list(self._read(cell))
            if found:
                first = found[0].read()
                each = (
                    len(first.table) if first.kind == "survival" else max(1, len(first.classes))
                )  # survival compares pairs
                rows += len(found) * len(first.table) * each
        return int(min(resamples, max(FEWEST_RESAMPLES, MOST_WORK // max(1, rows))))

    def target(self, cell: Cell) -> _Target | None:
        """The test cases of a cell's target; None if none were read, or if runs differ in them."""
        return self._targets.get(cell["task"])

    def runs(self, cell: Cell) -> Measured:
        """Runs of an arm in a cell; empty if there are none with predictions."""
        key = _key(cell)
        if key not in self._runs:
            self._runs[key] = dict(self._measured(cell))
        return self._runs[key]

    def _measured(self, cell: Cell) -> Iterator[tuple[Seeds, tuple[float, np.ndarray]]]:
        key = cell["task"]
        for run in self._read(cell):
            predictions = run.read()
            if key not in self._targets:
                self._targets[key] = self._new_target(cell, predictions)
            target = self._targets[key]
            if target is None or not np.array_equal(target.keys, _row_keys(predictions)):
                self._targets[key] = None  # differs in its test cases: nothing in this cell can be compared
                return
            weights = target.counts[np.searchsorted(target.patients, predictions.patients)]
            weights = np.hstack([np.ones((len(weights), 1)), weights])  # the first is that of all patients
            values = predictions.metric(cell["metric"], weights)
            yield (run.pretraining_seed, run.seed), (float(values[0]), values[1:])

    def _new_target(self, cell: Cell, predictions: CasePredictions) -> _Target:
        patients = np.unique(predictions.patients)
        seed = self._seed + zlib.crc32(str(cell["task"]).encode())
        counts = np.concatenate(list(draw_counts(np.arange(len(patients)), self.resamples, seed))).T
        return _Target(_row_keys(predictions), len(set(predictions.cases)), patients, counts)


def _key(cell: Cell) -> tuple:
    """A cell and arm as a key; a missing fraction equals itself."""
    return tuple(None if pd.isna(cell[name]) else cell[name] for name in [*CELL, "pretraining"])


def _row_keys(predictions: CasePredictions) -> np.ndarray:
    """Which case each row is of and, in segmentation, of which class."""
    if predictions.segmentation:
        return np.char.add(np.char.add(predictions.cases.astype(str), " "), predictions.table["class"].to_numpy(str))
    return predictions.cases
