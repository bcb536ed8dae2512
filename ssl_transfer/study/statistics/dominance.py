"""Who was shown to be better than whom: the verdicts of one cell, read together and never beyond what they say."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ssl_transfer.study.statistics.tables import EQUIVALENT

Pair = frozenset[str]


@dataclass(frozen=True)
class Dominance:
    """What all contrasts of one cell say of its arms (or strategies).

    Attributes:
        arms: In the order of the contrasts.
        beaten: Arm -> those that it was better than.
        equivalent: Pairs within the stated margin.
        compared: All pairs that were compared; others say nothing of each other.
        one_checkpoint: A verdict that decides holds for the checkpoints compared, not for their recipes.
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
            if verdict == "better":
                beaten[a].add(b)
            elif verdict == "worse":
                beaten[b].add(a)
            elif verdict in EQUIVALENT:
                equivalent.add(frozenset((a, b)))
            one_checkpoint |= unit == "seed" and verdict != "not decided"
        return cls(arms, beaten, equivalent, compared, one_checkpoint)

    @property
    def losers(self) -> set[str]:
        """Arms that another one was better than."""
        return set().union(*self.beaten.values())

    @property
    def winners(self) -> list[str]:
        """Arms that stand unbeaten with a win of their own. What never won may merely have few seeds, or one."""
        losers = self.losers
        return [arm for arm in self.arms if self.beaten[arm] and arm not in losers]

    @property
    def leaders(self) -> list[str]:
        """The winners that were better than most."""
        most = max((len(self.beaten[arm]) for arm in self.winners), default=0)
        return [arm for arm in self.winners if len(self.beaten[arm]) == most]

    @property
    def all_equivalent(self) -> bool:
        """Every two arms are equivalent."""
        return len(self.arms) > 1 and len(self.equivalent) == len(self.arms) * (len(self.arms) - 1) // 2

    def bond(self, arms: list[str]) -> str:
        """What is known among several arms of which none was better than another; empty for one arm.

        `equivalent` (every two), `not told apart`, `not told apart where compared` or `not compared`.
        """
        pairs = {frozenset((a, b)) for a in arms for b in arms if a != b}
        if not pairs:
            return ""
        if pairs <= self.equivalent:
            return "equivalent"
        if not pairs & self.compared:
            return "not compared"
        return "not told apart" if pairs <= self.compared else "not told apart where compared"
