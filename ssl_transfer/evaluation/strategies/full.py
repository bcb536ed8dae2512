"""Full fine-tuning."""

from __future__ import annotations

from ssl_transfer.evaluation.strategies.strategy import Strategy


class Full(Strategy):
    """All layers are trained from the first step, at one learning rate."""
