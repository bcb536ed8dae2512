"""Momentum networks: slow copies of a backbone and its projection head."""

from __future__ import annotations

import copy

import torch
from lightly.models.utils import deactivate_requires_grad
from lightly.utils.scheduler import cosine_schedule
from torch import nn

from ssl_transfer.models.backbone import Backbone


class MomentumNetwork(nn.Sequential):
    """A copy of backbone and head that takes no gradients and follows them. It keeps its own BatchNorm statistics.

    Args:
        backbone: To copy.
        head: Its projection head.
        head_copy: An equal head, where `head` cannot be copied.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, head_copy: nn.Module | None = None):
        super().__init__(copy.deepcopy(backbone), head_copy or copy.deepcopy(head))
        deactivate_requires_grad(self)

    @torch.no_grad()
    def follow(self, backbone: Backbone, head: nn.Module, momentum: float) -> None:
        """Every parameter becomes momentum · itself + (1 − momentum) · its original."""
        for copies, originals in ((self[0], backbone), (self[1], head)):
            for slow, fast in zip(copies.parameters(), originals.parameters(), strict=True):
                slow.mul_(momentum).add_(fast, alpha=1 - momentum)  # in place: FSDP keeps parts of it elsewhere


def rising(momentum: float, step: int, total_steps: int) -> float:
    """A momentum that goes to 1 along a cosine (Grill et al. 2020, section 3.3)."""
    return cosine_schedule(step, total_steps + 1, momentum, 1.0)  # lightly's ends at its last step but one
