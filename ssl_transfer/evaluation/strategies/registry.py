"""The registry of fine-tuning strategies."""

from __future__ import annotations

from ssl_transfer.evaluation.strategies.auto_rgn import AutoRGN
from ssl_transfer.evaluation.strategies.full import Full
from ssl_transfer.evaluation.strategies.gradual import GradualFirstLast, GradualLastFirst
from ssl_transfer.evaluation.strategies.head_only import HeadOnly
from ssl_transfer.evaluation.strategies.llrd import LLRD
from ssl_transfer.evaluation.strategies.lora import LoRA
from ssl_transfer.evaluation.strategies.lp_ft import LPFT
from ssl_transfer.evaluation.strategies.starting_point import L1SP, L2SP
from ssl_transfer.evaluation.strategies.strategy import Strategy

STRATEGIES: dict[str, type[Strategy]] = {
    "full": Full,
    "head_only": HeadOnly,
    "gradual_last_first": GradualLastFirst,
    "gradual_first_last": GradualFirstLast,
    "lp_ft": LPFT,
    "l1_sp": L1SP,
    "l2_sp": L2SP,
    "auto_rgn": AutoRGN,
    "llrd": LLRD,
    "lora": LoRA,
}

__all__ = ["STRATEGIES", "Strategy"]
