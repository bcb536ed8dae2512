"""Families of tests: which contrasts are corrected together and by which rule, and what each is decided to be.

Secondary contrasts are corrected by Holm's rule, which bounds the chance of even one false finding in a family; exploratory
ones by Benjamini and Hochberg's, which bounds the expected share of false findings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.errors import RunError, nearest
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.study.statistics.corrections import (
    benjamini_hochberg,
    benjamini_hochberg_decisions,
    holm,
    holm_decisions,
)
from ssl_transfer.study.statistics.verdicts import confidence_beside, verdicts
from ssl_transfer.study.table import CELL, matches

FAMILY = ("protocol", "metric", "fraction")
SECONDARY, EXPLORATORY = "secondary", "exploratory"
Selectors = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Families:
    """How contrasts are divided into families.

    Attributes:
        columns: A family is the contrasts of one kind (secondary or exploratory) that share the values of these columns.
        main_metrics: (task, protocol) -> its main metric, for the default of `exploratory`.
        secondary: Columns of `CELL` -> value or list of values; contrasts that match none are exploratory. None: see
            `exploratory`.
        exploratory: The same, for contrasts that are exploratory; all others are secondary. None, if `secondary` is None too:
            those whose metric is not the main metric of their task and protocol.
    """

    columns: Sequence[str] = FAMILY
    main_metrics: Mapping[tuple[str, str], str] | None = None
    secondary: Selectors | None = None
    exploratory: Selectors | None = None

    def check(self, columns: Sequence[str]) -> None:
        """Refuse families by a column that contrasts do not have.

        Raises:
            RunError: With the nearest name.
        """
        for name in self.columns:
            if name not in columns:
                raise RunError(f"statistics.family: contrasts have no column '{name}'.{nearest(name, columns)}")

    def kinds(self, table: pd.DataFrame) -> np.ndarray:
        """`secondary` or `exploratory`, of each contrast."""
        exploratory = np.zeros(len(table), bool)
        if self.exploratory is not None:
            exploratory |= _any_matches(table, self.exploratory)
        if self.secondary is not None:
            exploratory |= ~_any_matches(table, self.secondary)
        if self.exploratory is None and self.secondary is None and self.main_metrics is not None:
            main = [self.main_metrics.get(key) for key in zip(table["task"], table["protocol"], strict=True)]
            pairs = zip(main, table["metric"], strict=True)
            exploratory |= np.array([name not in (None, metric) for name, metric in pairs], bool)
        return np.where(exploratory, EXPLORATORY, SECONDARY).astype(object)

    def _numbers(self, table: pd.DataFrame, planned: pd.DataFrame | None) -> np.ndarray:
        """The family of each contrast of the table, then of each planned one, as a number."""
        keys = ["family", *self.columns]
        frames = [frame for frame in (table, planned) if frame is not None and len(frame)]
        rows = pd.concat(
            [frame.assign(family=self.kinds(frame))[keys] for frame in frames] or [table.assign(family="")[keys]]
        )
        return rows.groupby(keys, dropna=False).ngroup().to_numpy(int)

    def decide(self, table: pd.DataFrame, planned: pd.DataFrame | None = None) -> pd.DataFrame:
        """Correct the p-values of contrasts, and decide every contrast.

        Equivalence and difference are corrected separately, each over all tests of the family: a contrast that differs may
        still be falsely called equivalent, so finding differences leaves no fewer tests of equivalence.

        Args:
            table: Contrasts with `difference`, `p_value` and `p_tost`.
            planned: The contrasts of the whole study, with the columns of the families: a family has at least as many tests as
                are planned. None: the contrasts of the table that could be tested.

        Returns:
            The table with p_holm, p_bh, verdict, family, level (at which the verdict was reached, or at which the contrast is
            still open) and confidence (of the interval that agrees with the verdict, see `verdicts.confidence_beside`).
        """
        kinds, family = self.kinds(table), self._numbers(table, planned)
        tests = np.bincount(family[len(table) :], minlength=family.max(initial=0) + 1)
        columns = {name: np.full(len(table), np.nan) for name in ("p_holm", "p_bh", "level", "confidence")}
        different, equivalent = np.zeros(len(table), bool), np.zeros(len(table), bool)
        p, p_tost = table["p_value"].to_numpy(float), table["p_tost"].to_numpy(float)
        for rows in _groups(family[: len(table)]):
            m = max(int(tests[family[rows[0]]]), int(np.isfinite(p[rows]).sum()))
            decisions = holm_decisions if kinds[rows[0]] == SECONDARY else benjamini_hochberg_decisions
            columns["p_holm"][rows], columns["p_bh"][rows] = holm(p[rows], m), benjamini_hochberg(p[rows], m)
            different[rows], level = decisions(p[rows], m)
            equivalent[rows], level_equivalent = decisions(p_tost[rows], m)
            columns["level"][rows] = np.where(equivalent[rows] & ~different[rows], level_equivalent, level)
            columns["confidence"][rows] = confidence_beside(different[rows], equivalent[rows], level, level_equivalent)
        verdict = _verdicts(table, different, equivalent)
        return table.assign(**columns, verdict=verdict, family=kinds)


def _any_matches(table: pd.DataFrame, selectors: Selectors) -> np.ndarray:
    """Rows that match at least one selector."""
    chosen = np.zeros(len(table), bool)
    for selector in selectors:
        if unknown := [name for name in selector if name not in CELL]:
            raise RunError(f"statistics: contrasts are not selected by '{unknown[0]}'.{nearest(unknown[0], CELL)}")
        chosen |= matches(table, selector)
    return chosen


def _groups(number: np.ndarray) -> list[np.ndarray]:
    """The rows of each number; none for an empty array."""
    order = np.argsort(number, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return [rows for rows in groups if len(rows)]


def _verdicts(table: pd.DataFrame, different: np.ndarray, equivalent: np.ndarray) -> np.ndarray:
    signs = {metric: metric_sign(metric) for metric in table["metric"].unique()}
    improved = (table["difference"] * table["metric"].map(signs).astype(float) > 0).to_numpy()
    return verdicts(different, equivalent, improved)
