"""Linear probing, then fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import nn

from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule, warmup_cosine


class LPFT(Strategy):
    """Linear probing, then fine-tuning: first the head is trained, then all layers.

    A trained head does not distort the features, as random weights would. Each part has its own cosine schedule.

    Args:
        head_share: Share of the steps in which only the head is trained, in (0, 1). This project's choice: 0.5.
        rate_share: Peak learning rate of the second part as a share of that of the first. This project's choice: 0.1;
            the paper chooses it on validation.

    References:
        Kumar et al. 2022, https://arxiv.org/abs/2202.10054.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        schedule: Schedule,
        *,
        head_share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        rate_share: PositiveFloat = 0.1,
    ):
        super().__init__(backbone, head, schedule)
        self.rate_share = rate_share
        self.turn = max(1, min(schedule.total_steps - 1, round(head_share * schedule.total_steps)))

    def rates(self, step: int, factor: float) -> Mapping[str, float]:
        """Rates of the head alone in the first part, then lower ones of backbone and head."""
        if step < self.turn:
            return {"backbone": 0.0, "head": warmup_cosine(step, self.turn, 0)}
        rate = self.rate_share * warmup_cosine(step - self.turn, self.schedule.total_steps - self.turn, 0)
        return {"backbone": rate, "head": rate}
