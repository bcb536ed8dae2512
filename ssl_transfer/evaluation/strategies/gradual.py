"""Gradual unfreezing, from either end of the backbone."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Group


class Gradual(Strategy):
    """Unfreeze blocks one by one, after equal numbers of steps; an unfrozen block remains trainable and keeps its optimiser
    state.
    """

    def opening(self) -> list[list[str]]:
        """Names of the groups that are unfrozen at the start of each phase."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """One group per trainable block, and one for the head."""
        groups = [Group(block.name, block.trainable) for block in self.blocks]
        return [group for group in groups if group.parameters] + [Group("head", list(self.head_parameters.values()))]

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """The schedule's rate for unfrozen blocks, 0 for the others."""
        phases = self.opening()
        now = step * len(phases) // self.schedule.total_steps
        joined = {name for phase in phases[: now + 1] for name in phase}
        return {group.name: factor * (group.name in joined) for group in self.groups()}


class GradualLastFirst(Gradual):
    """Gradual unfreezing from the output: the head, then also the last block, and so on down to the stem.

    References:
        Howard & Ruder 2018, https://arxiv.org/abs/1801.06146.
    """

    def opening(self) -> list[list[str]]:
        """Head, last block, …, stem."""
        return [[group.name] for group in reversed(self.groups())]


class GradualFirstLast(Gradual):
    """Gradual unfreezing from the input: head and stem, then also the next block, and so on up to the last."""

    def opening(self) -> list[list[str]]:
        """Head and stem, next block, …, last block."""
        first, *rest, head = [group.name for group in self.groups()]
        return [[head, first], *([name] for name in rest)]
