"""Gradual unfreezing, from either end of the backbone."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_transfer.evaluation.strategies.strategy import Strategy, trainable
from ssl_transfer.methods.objective import Group


class Gradual(Strategy):
    """Blocks are unfrozen one after the other, after equal numbers of steps; an unfrozen block stays so and keeps its optimiser
    state.
    """

    def opening(self) -> list[list[str]]:
        """Groups that join at the beginning of each phase."""
        raise NotImplementedError

    def groups(self) -> list[Group]:
        """One of each block that can learn, and the head."""
        groups = [Group(block.name, trainable(block)) for block in self.blocks]
        return [group for group in groups if group.parameters] + [Group("head", list(self.head_parameters.values()))]

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """The schedule's rate for blocks that have joined."""
        phases = self.opening()
        now = step * len(phases) // self.schedule.total_steps
        joined = {name for phase in phases[: now + 1] for name in phase}
        return {group.name: factor * (group.name in joined) for group in self.groups()}


class GradualLastFirst(Gradual):
    """Gradual unfreezing: first the head, then the last block too, and so on down to the stem.

    References:
        Howard & Ruder 2018, https://arxiv.org/abs/1801.06146.
    """

    def opening(self) -> list[list[str]]:
        """Head, last block, …, stem."""
        return [[group.name] for group in reversed(self.groups())]


class GradualFirstLast(Gradual):
    """Gradual unfreezing from the image: first head and stem, then the next block too, and so on up to the last."""

    def opening(self) -> list[list[str]]:
        """Head and stem, next block, …, last block."""
        first, *rest, head = [group.name for group in self.groups()]
        return [[head, first], *([name] for name in rest)]
