"""The tests of a declared contrast at its looks, for one study or for many studies at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.statistics.contrast_units import PAIRED, STUDY, Units
from ssl_transfer.study.statistics.two_samples import (
    Difference,
    Samples,
    differences,
    paired_difference,
    welch_difference,
)

OUTSIDE = 2**31  # position of a seed that is not in the design


@dataclass(frozen=True)
class LookTests:
    """The tests of one look, without a level; every field has an entry per study.

    Attributes:
        n_a: Units of side a; with pairs, equal to `n_b`.
        n_b: Units of side b.
        mean_a: Mean of side a.
        mean_b: Mean of side b.
        test: Of mean_a − mean_b: a paired t-test, or Welch's.
        p_tost: The larger p-value of two one-sided tests at the margin; NaN without a margin.
    """

    n_a: np.ndarray
    n_b: np.ndarray
    mean_a: np.ndarray
    mean_b: np.ndarray
    test: Difference
    p_tost: np.ndarray

    @classmethod
    def paired(cls, a: np.ndarray, b: np.ndarray, study: np.ndarray, studies: int, margin: float) -> LookTests:
        """Paired t-tests of units that belong together, of each study."""
        samples = differences(a, b, study, studies)
        of_a, of_b = (Samples.grouped(values, study, studies).mean for values in (a, b))
        with np.errstate(divide="ignore", invalid="ignore"):  # studies without units
            test = paired_difference(samples)
            return cls(samples.n, samples.n, of_a, of_b, test, test.p_tost(margin))

    @classmethod
    def welch(cls, a: Samples, b: Samples, margin: float) -> LookTests:
        """Welch's tests of independent units, of each study."""
        with np.errstate(divide="ignore", invalid="ignore"):
            test = welch_difference(a, b)
            return cls(a.n, b.n, a.mean, b.mean, test, test.p_tost(margin))

    @property
    def difference(self) -> np.ndarray:
        """mean_a − mean_b."""
        return self.test.value

    @property
    def p_value(self) -> np.ndarray:
        """Two-sided p-value."""
        return self.test.p_value


class ContrastData:
    """The units of a contrast, which tests at the looks of one study or of many.

    Args:
        contrast: The contrast.
        units: Its units.
        order: Pretraining seeds in the order they are run.
        pending: Pretraining seeds that are still to come: looks wait for them.
        looks: Seeds at each look of the design.
        margin: Largest difference that counts as equivalent; NaN: none.
        studies: Number of studies, numbered from 0 in the column study of the units.
    """

    def __init__(
        self,
        contrast: DeclaredContrast,
        units: Units,
        order: Sequence[int],
        pending: Collection[int | None],
        looks: tuple[int, ...],
        margin: float,
        studies: int = 1,
    ):
        self.contrast, self.units, self.order, self.pending = contrast, units, list(order), set(pending)
        self.margin, self.studies = margin, studies
        grows = any(units.by_pretraining.values())
        self.looks = looks if grows else looks[-1:]  # checkpoints alone never become more: they are tested once
        table = units.table
        self.study = table[STUDY].to_numpy(int) if STUDY in table else np.zeros(len(table), int)
        self.position = self._positions(table)

    def _positions(self, table: pd.DataFrame) -> np.ndarray:
        """Position of each unit in the order of seeds; −1 for evaluation seeds of a side without pretraining seeds."""
        position = pd.Index(self.order).get_indexer(pd.Index(table["unit"].to_numpy(int)))
        position = np.where(position < 0, OUTSIDE, position)
        if self.units.test == PAIRED:
            counted = np.full(len(table), self.units.by_pretraining["a"])
        else:
            counted = table["side"].map(self.units.by_pretraining).to_numpy(bool)
        return np.where(counted, position, -1)

    def reached(self) -> np.ndarray:
        """Number of looks that each study has reached: their seeds are there or failed, and they add seeds to the look before."""
        if not len(self.study) or None in self.pending:  # None: of public weights
            return np.zeros(self.studies, int)
        if (self.position < 0).all():
            return np.bincount(self.study, minlength=self.studies).astype(bool) * int(not self.pending)
        present, known = (
            np.zeros((self.studies, len(self.order)), bool),
            (self.position >= 0) & (self.position < OUTSIDE),
        )
        present[self.study[known], self.position[known]] = True
        count, on, before = np.zeros(self.studies, int), np.ones(self.studies, bool), 0
        for look in self.looks:
            if self.pending & set(self.order[:look]):
                break
            on = on & present[:, before:look].any(1)
            count, before = count + on, look
        return count

    def at(self, look: int) -> np.ndarray:
        """Whether each unit belongs to a look, by its index."""
        return self.position < self.looks[look]

    def test(self, look: int) -> LookTests:
        """The tests at a look, by its index, on the units of the seeds of that look."""
        here = self.at(look)
        table, study = self.units.table[here], self.study[here]
        if self.units.test == PAIRED:
            a, b = table["a"].to_numpy(float), table["b"].to_numpy(float)
            return LookTests.paired(a, b, study, self.studies, self.margin)
        of_a = (table["side"] == "a").to_numpy()
        values = table["value"].to_numpy(float)
        a, b = (Samples.grouped(values[side], study[side], self.studies) for side in (of_a, ~of_a))
        return LookTests.welch(a, b, self.margin)
