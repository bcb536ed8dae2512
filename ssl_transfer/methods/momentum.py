"""Momentum networks: moving averages of the weights of a backbone and its projection head, and schedules of their targets."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightly.models.utils import deactivate_requires_grad
from lightly.utils.scheduler import cosine_schedule
from timm.layers.drop import DropPath
from timm.layers.patch_dropout import PatchDropout
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from ssl_transfer.models.backbone import Backbone


class MomentumNetwork(nn.Sequential):
    """A copy of backbone and head whose weights are moving averages of theirs. It has no gradients, its own BatchNorm
    statistics, and no dropout or stochastic depth, so that targets are not noisy (as in the authors' code of DINO).

    Args:
        backbone: The backbone to copy.
        head: Its projection head.
        head_copy: A head with the same weights, for heads that `copy.deepcopy` cannot copy.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, head_copy: nn.Module | None = None):
        super().__init__(copy.deepcopy(backbone), head_copy or copy.deepcopy(head))
        deactivate_requires_grad(self)
        _drop_nothing(self)

    @torch.no_grad()
    def update(self, backbone: Backbone, head: nn.Module, momentum: float) -> None:
        """Set every parameter to momentum · parameter + (1 − momentum) · original parameter."""
        for copies, originals in ((self[0], backbone), (self[1], head)):
            slow, fast = list(copies.parameters()), list(originals.parameters())
            if slow[0].is_cuda:
                many: Any = torch  # one kernel for many tensors; type checkers do not know these operations
                many._foreach_lerp_(slow, fast, 1 - momentum)  # in place, as FSDP requires
                continue
            for mine, original in zip(slow, fast, strict=True):
                mine.mul_(momentum).add_(original, alpha=1 - momentum)


def rising_momentum(momentum: float, step: int, total_steps: int) -> float:
    """A momentum that rises to 1 along a cosine (Grill et al. 2020, section 3.3)."""
    return cosine_schedule(step, total_steps + 1, momentum, 1.0)  # lightly's schedule ends one step before its last


def linear_warmup(first: float, last: float, warmup_steps: float, step: int) -> float:
    """A value that changes linearly from `first` to `last` over so many steps, and then stays."""
    return last if step >= warmup_steps else first + (last - first) * step / warmup_steps


def _drop_nothing(module: nn.Module) -> None:
    """Set all rates of dropout, stochastic depth and patch dropout to 0."""
    for part in module.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, _DropoutNd):
            part.p = 0.0
        elif isinstance(part, PatchDropout):
            part.prob = 0.0
