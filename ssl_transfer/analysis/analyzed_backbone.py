"""A backbone to be analysed: its name, its card, and functions that extract features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.images import Images


@dataclass(frozen=True)
class AnalyzedBackbone:
    """A backbone of an analysis.

    Attributes:
        id: Id of its features on the analysed store.
        name: Name in tables and figures.
        card: Card of the backbone.
        features: Computes, for a store, the features of all its images, float32 (N, D).
        layers: Computes, for a store and rows, the pooled activations of each layer from input to output, float32 (n, C); none
            for features from a file.
        pairs: Computes, for a store and rows, the features of two random views of each image, float32 (n, D); None for features
            from a file.
    """

    id: str
    name: str
    card: BackboneCard
    features: Callable[[Images], np.ndarray]
    layers: Callable[[Images, np.ndarray], dict[str, np.ndarray]]
    pairs: Callable[[Images, np.ndarray], tuple[np.ndarray, np.ndarray] | None]


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
