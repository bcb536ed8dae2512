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

    Distances depend on the number of images, so every domain is split into halves with disjoint patients and equal numbers of
    images. `frechet` is the mean of two distances between halves of different domains; `frechet_by_chance` is the larger one of
    the two distances between halves of the same domain.

    Args:
        features: Features, shape (N, D).
        domains: Domain of each row, (N,); None where it is unknown. The eight largest are used that have 50 images or more.
        groups: Patient of each row, (N,).
        seed: Seed of the halves, of the sample of at most 500 images of each half, and of the folds.

    Returns:
        A row per pair: `domain_a`, `domain_b`, `frechet` (squared distance), `frechet_by_chance` (its value without a difference
        between domains; NaN if a domain has a single patient), `mmd` (squared, unbiased), `separability` (AUROC of a linear probe
        on held-out patients: .5 inseparable, 1 perfectly separable), `separability_by_chance`, and `n`, the number of images.
    """
    rng = np.random.default_rng(seed)
    names_of = pd.Series(domains, dtype=object)
    counts = names_of.value_counts()
    names = sorted(counts[counts >= FEWEST].index[:MOST_DOMAINS], key=str)
    halves_of = {name: _halves(np.flatnonzero(names_of == name), groups, rng) for name in names}
    smallest_half = min((len(half) for halves in halves_of.values() for half in halves), default=0)
    halves_of = {
        name: [half[: min(smallest_half, MOST_OF_HALF)] for half in halves] for name, halves in halves_of.items()
    }
    scale = np.sqrt(np.square(features).sum(1).mean()) if names else 1.0
    unit = np.asarray(features, np.float64) / (scale or 1.0)
    rows = []
    for first, second in itertools.combinations(names, 2):
        a, b = (np.concatenate(halves_of[name]) for name in (first, second))
        across = [frechet_distance(unit[x], unit[y]) for x, y in zip(halves_of[first], halves_of[second], strict=True)]
        single_patient = any(len(np.unique(groups[half].astype(str))) < 2 for half in (a, b))
        within = [frechet_distance(*(unit[half] for half in halves_of[name])) for name in (first, second)]
        row = {
            "domain_a": first,
            "domain_b": second,
            "frechet": np.mean(across),
            "frechet_by_chance": np.nan if single_patient else max(within),
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
    """Split rows by patient into two halves of nearly equal size, in random order. Rows of a single patient are split by row."""
    codes = pd.factorize(groups[rows])[0]
    if codes.max() == 0:
        codes = np.arange(len(rows))
    rank = rng.permutation(codes.max() + 1)[codes]
    before = np.cumsum(np.bincount(rank))  # images up to and including each patient
    cut = np.abs(before[:-1] - len(rows) / 2).argmin()
    return [rng.permutation(rows[side]) for side in (rank <= cut, rank > cut)]
