"""Distances between domains in a feature space: images of two stores, or of two scanners."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ssl_transfer.analysis.property_probes import probe_properties
from ssl_transfer.measures.geometry import frechet_distance, mmd

MOST_OF_HALF = 500  # images per half of a domain
MOST_DOMAINS = 8
FEWEST = 50  # images


def domain_distances(features: np.ndarray, domains: np.ndarray, groups: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Compare the features of every two domains, scaled to root mean square length 1 so that backbones can be compared.

    Every domain is split into halves with disjoint patients and equal numbers of images, since distances depend on the number.
    `frechet` is the mean over two comparisons of halves of different domains, `frechet_by_chance` the larger of the two
    distances between halves of one domain.

    Args:
        features: Shape (N, D).
        domains: Domain of each row, (N,), or None. Only the eight largest with 50 images or more are used.
        groups: Patient of each row, (N,).
        seed: Seed of the halves, of the sample of at most 500 images of each half, and of the folds.

    Returns:
        A row per pair: `domain_a`, `domain_b`, `frechet` (squared), `frechet_by_chance` (its value without a difference;
        NaN if a domain has a single patient), `mmd` (squared, unbiased), `separability` (AUROC of a linear probe on held-out
        patients: .5 inseparable, 1 perfectly separable), `separability_by_chance`, and `n` images of both.
    """
    rng = np.random.default_rng(seed)
    names_of = pd.Series(domains, dtype=object)
    counts = names_of.value_counts()
    names = sorted(counts[counts >= FEWEST].index[:MOST_DOMAINS], key=str)
    drawn = {name: _halves(np.flatnonzero(names_of == name), groups, rng) for name in names}
    least = min((len(half) for halves in drawn.values() for half in halves), default=0)
    drawn = {name: [half[: min(least, MOST_OF_HALF)] for half in halves] for name, halves in drawn.items()}
    scale = np.sqrt(np.square(features).sum(1).mean()) if names else 1.0
    unit = np.asarray(features, np.float64) / (scale or 1.0)
    rows = []
    for first, second in itertools.combinations(names, 2):
        a, b = (np.concatenate(drawn[name]) for name in (first, second))
        across = [frechet_distance(unit[x], unit[y]) for x, y in zip(drawn[first], drawn[second], strict=True)]
        alone = any(len(np.unique(groups[half].astype(str))) < 2 for half in (a, b))
        within = [frechet_distance(*(unit[half] for half in drawn[name])) for name in (first, second)]
        row = {
            "domain_a": first,
            "domain_b": second,
            "frechet": np.mean(across),
            "frechet_by_chance": np.nan if alone else max(within),
            "mmd": mmd(unit[a], unit[b]),
            "n": len(a) + len(b),
        }
        both = np.concatenate([a, b])
        separable = probe_properties(
            features[both], pd.DataFrame({"domain": names_of[both].to_numpy()}), groups[both], seed
        )
        if len(separable):
            row |= {"separability": separable["value"][0], "separability_by_chance": separable["chance"][0]}
        rows.append(row)
    columns = [
        "domain_a",
        "domain_b",
        "frechet",
        "frechet_by_chance",
        "mmd",
        "separability",
        "separability_by_chance",
        "n",
    ]
    return pd.DataFrame(rows, columns=columns)


def _halves(rows: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Split rows into two halves by patient, of nearly equal size, in random order; rows of a single patient, by row."""
    codes = pd.factorize(groups[rows])[0]
    if codes.max() == 0:
        codes = np.arange(len(rows))
    rank = rng.permutation(codes.max() + 1)[codes]
    before = np.cumsum(np.bincount(rank))  # images up to and including each patient
    cut = np.abs(before[:-1] - len(rows) / 2).argmin()
    return [rng.permutation(rows[side]) for side in (rank <= cut, rank > cut)]
