"""Momentum networks: moving averages of the weights of a backbone and its projection head."""

from __future__ import annotations

import copy

import torch
from lightly.models.utils import deactivate_requires_grad
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from ssl_transfer.models.backbone import Backbone


class MomentumNetwork(nn.Sequential):
    """A copy of backbone and head whose weights are moving averages of theirs. It has no gradients, and its own BatchNorm
    statistics.

    Args:
        backbone: The backbone to copy.
        head: Its projection head.
        head_copy: A head with the same weights, for heads that `copy.deepcopy` cannot copy.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, head_copy: nn.Module | None = None):
        super().__init__(copy.deepcopy(backbone), head_copy or copy.deepcopy(head))
        deactivate_requires_grad(self)

    @torch.no_grad()
    def update(self, backbone: Backbone, head: nn.Module, momentum: float) -> None:
        """Set every parameter to momentum · parameter + (1 − momentum) · original parameter."""
        for copies, originals in ((self[0], backbone), (self[1], head)):
            for slow, fast in zip(copies.parameters(), originals.parameters(), strict=True):
                slow.mul_(momentum).add_(fast, alpha=1 - momentum)  # in place, as FSDP requires


def rising_momentum(momentum: float, step: int, total_steps: int) -> float:
    """A momentum that rises to 1 along a cosine (Grill et al. 2020, section 3.3)."""
    return cosine_schedule(step, total_steps + 1, momentum, 1.0)  # lightly's schedule ends one step before its last
