"""The learning rate as a function of the step: no state, so nothing to restore."""

from __future__ import annotations

import math


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
