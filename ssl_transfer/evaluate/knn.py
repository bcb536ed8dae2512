"""kNN: what a backbone's neighbourhoods say, without any training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from ssl_transfer.neighbors import nearest, vote


def knn(
    train: np.ndarray, labels: np.ndarray, queries: dict[str, np.ndarray], n_classes: int,
    k: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5, 20, 200), temperature: PositiveFloat = 0.1,
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:  # fmt: skip
    """Score by cosine neighbours at each k, weighted by exp(similarity / temperature).

    Args:
        train: Features, shape (N, D).
        labels: Class of each, integers in [0, n_classes), shape (N,).
        queries: Name -> features to score, shape (M, D).
        n_classes: Number of classes.
        k: Numbers of neighbours; those above N count as N.

    Yields:
        The setting (`k`) and, for each query, class scores (M, n_classes).
    """
    counts = sorted({min(count, len(train)) for count in k})
    found = {name: nearest(train, features, counts[-1]) for name, features in queries.items()}
    for count in counts:
        yield (
            {"k": count},
            {
                name: vote(similarities[:, :count], labels[neighbors[:, :count]], n_classes, temperature)
                for name, (similarities, neighbors) in found.items()
            },
        )
