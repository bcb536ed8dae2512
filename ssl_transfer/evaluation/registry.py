"""The implementation of each protocol that `ssl_transfer.protocols` declares."""

from __future__ import annotations

from collections.abc import Callable

from ssl_transfer.evaluation.finetune import finetune
from ssl_transfer.evaluation.knn import knn
from ssl_transfer.evaluation.linear_probe import linear_probe
from ssl_transfer.evaluation.segment import segment

IMPLEMENTATIONS: dict[str, Callable] = {
    "linear_probe": linear_probe,
    "knn": knn,
    "finetune": finetune,
    "segment": segment,
}
