"""Nearest neighbours by cosine similarity, and votes over them (FAISS)."""

from __future__ import annotations

import numpy as np


def nearest(index_features: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar rows of `index_features` for each query, exactly.

    Args:
        index_features: Shape (N, D).
        queries: Shape (M, D).
        k: At most N.

    Returns:
        Cosine similarities, descending, float32 (M, k), and positions, int64 (M, k).
    """
    import faiss

    index = faiss.IndexFlatIP(index_features.shape[1])
    index.add(_unit(index_features))
    return index.search(_unit(queries), k)


def vote(
    similarities: np.ndarray, neighbor_labels: np.ndarray, n_classes: int, temperature: float | None = 0.1
) -> np.ndarray:
    """Class scores from neighbours' labels.

    Args:
        similarities: Shape (M, k).
        neighbor_labels: Class of each neighbour, integers, shape (M, k).
        n_classes: Number of classes.
        temperature: A neighbour counts exp(similarity / temperature); None: each counts 1.

    Returns:
        Scores that sum to 1, float64 (M, n_classes).

    Source:
        Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4.
    """
    weights = np.ones(similarities.shape)
    if temperature is not None:
        weights = np.exp((similarities - similarities.max(1, keepdims=True)).astype(np.float64) / temperature)
    scores = np.zeros((len(similarities), n_classes))
    for column in range(similarities.shape[1]):
        scores[np.arange(len(scores)), neighbor_labels[:, column]] += weights[:, column]
    return scores / scores.sum(1, keepdims=True)


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(length, 1e-12))
