"""The schedule of a training: its length, its learning rate, and the steps at which it logs, measures and saves."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, warm-up and cadence of a training, in optimiser steps.

    Attributes:
        total_steps: Steps of the whole training.
        steps_per_epoch: Steps of one pass over the training images.
        warmup_steps: Steps over which the learning rate rises to its peak.
        freeze_steps: First steps in which the backbone is frozen and only the heads are trained.
        batch_size: Images per step, over all processes.
        accumulate: Micro-batches that make one step.
        log_every: Steps between two lines of the log.
        checkpoint_every: Steps between two checkpoints.
        watch_every: Steps between two measurements of the model.
    """

    total_steps: int = 1
    steps_per_epoch: int = 1
    warmup_steps: int = 0
    freeze_steps: int = 0
    batch_size: int = 1
    accumulate: int = 1
    log_every: int = 1
    checkpoint_every: int = 1
    watch_every: int = 1

    def rate(self, step: int) -> float:
        """Learning rate at `step` (from 0), as a share of its peak."""
        return warmup_cosine(step, self.total_steps, self.warmup_steps)

    def freezes_at(self, step: int) -> bool:
        """Whether the backbone is frozen in a step, counted from 0."""
        return step < self.freeze_steps

    def release(self, step: int) -> float:
        """Rate of the backbone at `step` (from 0) as a share of the heads' rate.

        It is 0 while the backbone is frozen, then rises linearly to 1 over as many steps as the warm-up of the heads.

        Example:
            >>> [Schedule(freeze_steps=2, warmup_steps=4).release(step) for step in range(7)]
            [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
            >>> Schedule(warmup_steps=4).release(0)
            1.0
        """
        if not self.freeze_steps:
            return 1.0
        return min(1.0, max(0, step - self.freeze_steps + 1) / max(1, self.warmup_steps))

    def is_last(self, step: int) -> bool:
        """Whether a step, counted from 1, ends the training."""
        return step == self.total_steps

    def checkpoints_at(self, step: int) -> bool:
        """Whether a checkpoint is written after a step, counted from 1."""
        return self.is_last(step) or step % self.checkpoint_every == 0

    def watches_at(self, step: int) -> bool:
        """Whether the model is measured after a step, counted from 1."""
        return self.is_last(step) or step % self.watch_every == 0

    def logs_at(self, step: int) -> bool:
        """Whether a line of the log is written after a step, counted from 1."""
        return self.checkpoints_at(step) or self.watches_at(step) or step % self.log_every == 0


def warmup_cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up to 1, then a half cosine to 0.

    Source: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983; warm-up as Goyal et al. 2017.

    Example:
        >>> [round(warmup_cosine(s, 10, 2), 2) for s in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, total_steps - warmup_steps)))
