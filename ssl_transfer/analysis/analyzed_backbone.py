"""A backbone as an analysis sees it: a name, a card, and what it makes of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.store import ImageStore


@dataclass(frozen=True)
class AnalyzedBackbone:
    """One of the backbones that are looked into.

    Attributes:
        id: Of its features of the store that is looked at.
        name: As tables and pictures call it.
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


def before_and_after(subjects: list[AnalyzedBackbone]) -> list[tuple[AnalyzedBackbone, AnalyzedBackbone]]:
    """Those of which one came from another by a fine-tune or a further pretraining: the nearest ancestor, and what it became."""
    by_id = {subject.card.id: subject for subject in subjects}
    found = []
    for subject in subjects:
        ancestors = [by_id[parent] for parent in subject.card.parents if parent in by_id and parent != subject.card.id]
        if ancestors:
            found.append((ancestors[-1], subject))
    return found
