"""kNN: prediction by the nearest training images in feature space, without any training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from ssl_transfer.measures.neighbors import IndexKind, NeighborIndex, vote, vote_each, vote_mean

VOTES = ("weighted", "plain")


def knn(
    train: np.ndarray,
    labels: np.ndarray,
    queries: dict[str, np.ndarray],
    n_classes: int,
    seed: int = 0,
    kind: str = "multiclass",
    *,
    k: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 5, 20, 200),
    votes: Annotated[tuple[Literal["weighted", "plain"], ...], Field(min_length=1)] = VOTES,
    temperature: PositiveFloat = 0.1,
    index: IndexKind = "auto",
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray], Callable[[np.ndarray], np.ndarray]]]:
    """Predict by a vote of the nearest neighbours by cosine similarity, for each k and each kind of vote.

    Of classes, grades and labels, the score is the weighted share of the neighbours that have them; of a number, it is the
    weighted mean.

    Settings are in ascending order of k, the weighted vote before the plain one. For k = 1 the two votes are equal, and only
    the first is given. In multi-label tasks, the score of a label that is unknown for all neighbours is its prevalence among
    the training images with a known label, or 0.5 if there are none.

    Args:
        train: Features, shape (N, D).
        labels: Class or grade of each image, integers in [0, n_classes), shape (N,); multi-label: 0, 1, or −1 for unknown,
            shape (N, n_classes); regression: numbers, shape (N,).
        queries: Name -> features to score, shape (M, D).
        n_classes: Number of classes or labels.
        seed: Without effect, since nothing is random.
        kind: Kind of the task: `multiclass`, `ordinal`, `multilabel` or `regression`.
        k: Candidate numbers of neighbours, selected on validation; capped at the number of training images.
            DINO: 10, 20, 100, 200 (2104.14294, appendix F.1).
        votes: Candidates, selected on validation. `weighted`: a neighbour has the weight exp(similarity / temperature)
            (Wu et al. 2018, 1805.01978, section 3.4); `plain`: it has the weight 1.
        temperature: Temperature of the weighted vote, dimensionless. Wu et al.: 0.07 (section 3.4); 0.1 here, as in
            lightly.
        index: FAISS index: `exact`, `ivf`, `hnsw`, or `auto`: exact below 500,000 training images, else `ivf`.

    Yields:
        The setting (`k`, `vote`, `index`, and the `recall` at this k of an approximate index) and, for each query, class
        scores that sum to 1, or multi-label scores in [0, 1]; shape (M, n_classes), or numbers (M,); and what maps other
        features to scores.
    """
    counts = sorted({min(count, len(train)) for count in k})
    rows = NeighborIndex(train, index)
    neighbors = {name: rows.search(features, counts[-1]) for name, features in queries.items()}
    recall = None if rows.kind == "exact" else rows.recall(np.concatenate(list(queries.values())), counts)
    for count in counts:
        nearest = {
            name: (similarities[:, :count], positions[:, :count])
            for name, (similarities, positions) in neighbors.items()
        }
        requested = [each for each in VOTES if each in votes]
        for each in requested[:1] if count == 1 else requested:
            setting = {"k": count, "vote": each, "index": rows.kind}
            if recall is not None:
                setting["recall"] = round(recall[count], 4)
            weighting = temperature if each == "weighted" else None

            def scored(features: np.ndarray, count: int = count, weighting: float | None = weighting) -> np.ndarray:
                return _scores(*rows.search(features, count), labels, n_classes, weighting, kind)

            yield (
                setting,
                {name: _scores(*pair, labels, n_classes, weighting, kind) for name, pair in nearest.items()},
                scored,
            )


def _scores(
    similarities: np.ndarray,
    positions: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    temperature: float | None,
    kind: str,
) -> np.ndarray:
    if kind == "regression":
        return vote_mean(similarities, labels[positions], temperature)
    if labels.ndim == 1:
        return vote(similarities, labels[positions], n_classes, temperature)
    scores, labelled = vote_each(similarities, positions, labels, temperature), (labels >= 0).sum(0)
    prevalence = np.divide((labels == 1).sum(0), labelled, out=np.full(n_classes, 0.5), where=labelled > 0)
    return np.where(np.isnan(scores), prevalence, scores)
