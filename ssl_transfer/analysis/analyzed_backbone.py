"""A backbone to be analysed: its name, its card, and functions that extract features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.store import ImageStore


@dataclass(frozen=True)
class AnalyzedBackbone:
    """One of the backbones of an analysis.

    Attributes:
        id: Of its features of the analysed store.
        name: In tables and figures.
        card: Of the backbone.
        features: Of every image of a store, float32 (N, D).
        layers: Of some rows of a store: layer -> what it holds, float32 (n, C), the layer nearest the image first.
        pairs: Of some rows of a store: features of two random views of each, float32 (n, D).
    """

    id: str
    name: str
    card: BackboneCard
    features: Callable[[ImageStore], np.ndarray]
    layers: Callable[[ImageStore, np.ndarray], dict[str, np.ndarray]]
    pairs: Callable[[ImageStore, np.ndarray], tuple[np.ndarray, np.ndarray]]


def before_and_after(backbones: list[AnalyzedBackbone]) -> list[tuple[AnalyzedBackbone, AnalyzedBackbone]]:
    """Pairs of a backbone's nearest ancestor and the backbone, which was fine-tuned or further pretrained from it."""
    by_id = {backbone.card.id: backbone for backbone in backbones}
    pairs = []
    for backbone in backbones:
        ancestors = [
            by_id[parent] for parent in backbone.card.parents if parent in by_id and parent != backbone.card.id
        ]
        if ancestors:
            pairs.append((ancestors[-1], backbone))
    return pairs
