"""Penalties that pull the backbone towards its starting point (L2-SP, L1-SP)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.numerics import without_autocast
from ssl_transfer.schedule import Schedule


class StartingPoint(Strategy):
    """Loss + α · distance(θ_B, θ⁰) + β/2 · ‖θ_H‖². It replaces weight decay, which pulls to 0 and is switched off.

    Args:
        alpha: Weight of the backbone's distance from θ⁰, dimensionless.
        beta: Weight of ‖θ_H‖² / 2, dimensionless.

    References:
        Li, Grandvalet & Davoine 2018, https://arxiv.org/abs/1802.01483.
    """

    def __init__(self, backbone: Backbone, head: nn.Module, schedule: Schedule, *, alpha: float, beta: float):
        super().__init__(backbone, head, schedule)
        self.alpha, self.beta = alpha, beta
        for number, parameter in enumerate(self.backbone_parameters.values()):
            self.register_buffer(f"start_{number}", parameter.detach().clone())

    def groups(self) -> list[Group]:
        """Backbone and head, both without weight decay."""
        return [group._replace(decays=False) for group in super().groups()]

    def distance(self, moved: torch.Tensor) -> torch.Tensor:
        """Distance of a tensor from its starting point, given their difference."""
        raise NotImplementedError

    def penalty(self) -> torch.Tensor:
        """The two penalty terms, in float32 at any precision of the training."""
        device = next(iter(self.head_parameters.values())).device
        with without_autocast(device):
            pull: Any = sum(
                self.distance(parameter.float() - self.get_buffer(f"start_{number}"))
                for number, parameter in enumerate(self.backbone_parameters.values())
            )
            size = sum(parameter.float().square().sum() for parameter in self.head_parameters.values())
            return self.alpha * pull + self.beta / 2 * size


class L2SP(StartingPoint):
    """Penalty on the distance to the pretrained weights: loss + α/2 · ‖θ_B − θ⁰‖² + β/2 · ‖θ_H‖² (Li et al. 2018, 1802.01483).

    Args:
        alpha: Weight of ‖θ_B − θ⁰‖² / 2, dimensionless. Paper: 0.1, among the values that it selects from on
            validation.
        beta: Weight of ‖θ_H‖² / 2, dimensionless. Paper: 0.01.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        schedule: Schedule,
        *,
        alpha: NonNegativeFloat = 0.1,
        beta: NonNegativeFloat = 0.01,
    ):
        super().__init__(backbone, head, schedule, alpha=alpha, beta=beta)

    def distance(self, moved: torch.Tensor) -> torch.Tensor:
        """Half the squared Euclidean norm."""
        return moved.square().sum() / 2


class L1SP(StartingPoint):
    """Penalty on the distance to the pretrained weights: loss + α · ‖θ_B − θ⁰‖₁ + β/2 · ‖θ_H‖² (Li et al. 2018, 1802.01483).

    Args:
        alpha: Weight of ‖θ_B − θ⁰‖₁, dimensionless. This project's choice: 1e-4; the paper chooses it on validation.
        beta: Weight of ‖θ_H‖² / 2, dimensionless. Paper: 0.01.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        schedule: Schedule,
        *,
        alpha: NonNegativeFloat = 1e-4,
        beta: NonNegativeFloat = 0.01,
    ):
        super().__init__(backbone, head, schedule, alpha=alpha, beta=beta)

    def distance(self, moved: torch.Tensor) -> torch.Tensor:
        """Sum of absolute values."""
        return moved.abs().sum()
