"""Rates by relative gradient norm (Auto-RGN)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import PositiveInt
from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Gradients, Strategy
from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule

EPSILON = 1e-12
SMALLEST = 1e-6  # relative learning rate of a tensor whose gradient is 0


class AutoRGN(Strategy):
    """Learning rate per tensor: the peak rate times RGN / max RGN, with RGN = ‖gradient‖ / ‖tensor‖.

    RGN is measured at the start of every epoch, as the mean over `batches` batches (if an epoch is shorter, every `batches`
    steps). The maximum is taken separately over backbone and head, since a new head would dominate a common maximum. The
    ratio of a tensor of norm 0 (a bias or gain initialised at 0) is infinite: it is left out of the maximum, and its rate is
    the peak rate.

    Args:
        batches: Number of batches over which RGN is averaged at the start of an epoch. Authors' code: 5.

    References:
        Lee et al. 2023, https://arxiv.org/abs/2210.11466.
    """

    shares: torch.Tensor

    def __init__(self, backbone: Backbone, head: nn.Module, schedule: Schedule, *, batches: PositiveInt = 5):
        super().__init__(backbone, head, schedule)
        self.batches = batches
        self.register_buffer("shares", torch.ones(len(self.groups())))

    def groups(self) -> list[Group]:
        """One group per tensor."""
        return [Group(name, [tensor]) for name, tensor in (self.backbone_parameters | self.head_parameters).items()]

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """The schedule's rate times the relative rate of each tensor."""
        return {group.name: factor * share for group, share in zip(self.groups(), self.shares.tolist(), strict=True)}

    def before_step(self, step: int, gradients: Gradients) -> None:
        """Measure RGN again at the start of an epoch."""
        if step % max(self.schedule.steps_per_epoch, self.batches):
            return
        tensors = [group.parameters[0] for group in self.groups()]
        norms = torch.stack([tensor.detach().float().norm() for tensor in tensors])
        rgn = torch.zeros_like(norms)
        for batch in range(self.batches):
            for index, gradient in enumerate(gradients(step + batch)):
                if gradient is not None:
                    rgn[index] += gradient.float().norm() / (norms[index] + EPSILON) / self.batches
        self.shares.copy_(relative_shares(rgn, norms, len(self.backbone_parameters)))


def relative_shares(rgn: torch.Tensor, norms: torch.Tensor, backbone_tensors: int) -> torch.Tensor:
    """RGN divided by its maximum, in (0, 1]: separately for the first `backbone_tensors` and the rest; 1 for norm 0."""
    shares = torch.ones_like(rgn)
    for part in (slice(None, backbone_tensors), slice(backbone_tensors, None)):
        counted = norms[part] > 0
        if counted.any() and rgn[part][counted].max() > 0:
            relative = rgn[part] / rgn[part][counted].max()
            shares[part] = torch.where(counted, relative.clamp(SMALLEST, 1.0), 1.0)
    return shares
