"""Layer-wise learning rate decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.blocks import blocks
from ssl_transfer.schedule import Schedule


class LLRD(Strategy):
    """Layer-wise learning rate decay: each layer has a lower learning rate than the next one; the head has the peak rate.

    Args:
        decay: Learning rate of a layer as a share of the next one's, in (0, 1]. MAE: 0.75 (2111.06377, Table 9).

    References:
        Clark et al. 2020 (ELECTRA), https://arxiv.org/abs/2003.10555; for images Bao et al. 2022 (BEiT), 2106.08254.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        schedule: Schedule,
        *,
        decay: Annotated[float, Field(gt=0, le=1)] = 0.75,
    ):
        super().__init__(backbone, head, schedule)
        self.blocks = blocks(backbone.model, coarse=False)
        self.decay = decay

    def groups(self) -> list[Group]:
        """One group per trainable layer, and one for the head."""
        groups = [Group(block.name, block.trainable) for block in self.blocks]
        return [group for group in groups if group.parameters] + [Group("head", list(self.head_parameters.values()))]

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """The schedule's rate, multiplied by `decay` once per layer below the head."""
        names = [group.name for group in self.groups()]
        return {name: factor * self.decay ** (len(names) - 1 - depth) for depth, name in enumerate(names)}
