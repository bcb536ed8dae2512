"""Full fine-tuning."""

from __future__ import annotations

from ssl_transfer.evaluation.strategies.strategy import Strategy


class Full(Strategy):
    """Everything learns from the first step, at one rate."""
