"""Dominance: the partial order that the verdicts of one cell establish among its arms."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ssl_transfer.study.statistics.verdicts import BETTER, NOT_DECIDED, WITHIN_MARGIN, WORSE

Pair = frozenset[str]


@dataclass(frozen=True)
class Dominance:
    """Which arms (or strategies) of a cell are better than, or equivalent to, which others.

    Attributes:
        arms: In the order of the contrasts.
        beaten: Arm -> those that it is better than.
        equivalent: Pairs within the stated margin.
        compared: All pairs that were compared.
        one_checkpoint: A verdict that decides holds for the weights compared, not for the way they were trained.
    """

    arms: list[str]
    beaten: dict[str, set[str]]
    equivalent: set[Pair]
    compared: set[Pair]
    one_checkpoint: bool

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> Dominance:
        """Read contrasts: columns a, b, verdict and unit."""
        arms = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
        beaten, equivalent, compared, one_checkpoint = {arm: set() for arm in arms}, set(), set(), False
        for a, b, verdict, unit in zip(pairs["a"], pairs["b"], pairs["verdict"], pairs["unit"], strict=True):
            compared.add(frozenset((a, b)))
            if verdict == BETTER:
                beaten[a].add(b)
            elif verdict == WORSE:
                beaten[b].add(a)
            elif verdict in WITHIN_MARGIN:
                equivalent.add(frozenset((a, b)))
            one_checkpoint |= unit == "seed" and verdict != NOT_DECIDED
        return cls(arms, beaten, equivalent, compared, one_checkpoint)

    @property
    def losers(self) -> set[str]:
        """Arms that another one is better than."""
        return set().union(*self.beaten.values())

    @property
    def winners(self) -> list[str]:
        """Undominated arms: no other is better, and they are better than at least one (else they may merely have few seeds)."""
        losers = self.losers
        return [arm for arm in self.arms if self.beaten[arm] and arm not in losers]

    @property
    def leaders(self) -> list[str]:
        """The winners that are better than most others."""
        most = max((len(self.beaten[arm]) for arm in self.winners), default=0)
        return [arm for arm in self.winners if len(self.beaten[arm]) == most]

    @property
    def all_equivalent(self) -> bool:
        """Every two arms are equivalent."""
        return len(self.arms) > 1 and len(self.equivalent) == len(self.arms) * (len(self.arms) - 1) // 2

    def bond(self, arms: list[str]) -> str:
        """How several arms relate of which none is better than another; empty for one arm.

        `equivalent` (every two), `not distinguished`, `not distinguished where compared` or `not compared`.
        """
        pairs = {frozenset((a, b)) for a in arms for b in arms if a != b}
        if not pairs:
            return ""
        if pairs <= self.equivalent:
            return "equivalent"
        if not pairs & self.compared:
            return "not compared"
        return "not distinguished" + ("" if pairs <= self.compared else " where compared")
