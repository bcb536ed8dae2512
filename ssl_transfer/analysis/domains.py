"""How far apart domains lie in a feature space: images of two stores, or of two scanners."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from ssl_transfer.analysis.encoded import encoded
from ssl_transfer.geometry import frechet_distance, mmd

MOST_IMAGES = 1000  # of a domain, drawn with the seed: distances are compared between pairs, so all have as many
MOST_DOMAINS = 8
FEWEST = 50  # images


def domain_distances(features: np.ndarray, domains: np.ndarray, groups: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Compare the clouds of every two domains, brought to length 1 on average so that backbones can be compared.

    Args:
        features: (N, D).
        domains: Domain of each row, (N,); None: of none. Only the eight largest count, of 50 images or more.
        groups: Patient of each row, (N,).
        seed: Of the draw of at most 1,000 images of each, and of folds.

    Returns:
        A row per pair: `domain_a`, `domain_b`, `frechet` (squared, of features), `frechet_by_chance` (of two halves of one
        domain, the larger of both: what no difference looks like at this N), `mmd` (squared, unbiased), `separability` (AUROC of
        a linear probe on patients that it has not seen: .5 cannot be told apart, 1 always), `separability_by_chance`, and `n`
        images of both.
    """
    rng = np.random.default_rng(seed)
    known = pd.Series(domains, dtype=object)
    counts = known.value_counts()
    names = sorted(counts[counts >= FEWEST].index[:MOST_DOMAINS], key=str)
    drawn = {name: rng.permutation(np.flatnonzero(known == name))[:MOST_IMAGES] for name in names}
    least = min((len(rows) for rows in drawn.values()), default=0)
    scale = np.sqrt(np.square(features).sum(1).mean()) if names else 1.0
    unit = np.asarray(features, np.float64) / (scale or 1.0)
    rows = []
    for one, other in itertools.combinations(names, 2):
        a, b = drawn[one][:least], drawn[other][:least]
        halves = [frechet_distance(unit[own[0::2]], unit[own[1::2]]) for own in (a, b)]
        row = {
            "domain_a": one, "domain_b": other, "frechet": frechet_distance(unit[a], unit[b]), "frechet_by_chance": max(halves),
            "mmd": mmd(unit[a], unit[b]), "n": 2 * least,
        }  # fmt: skip
        both = np.concatenate([a, b])
        told = encoded(features[both], pd.DataFrame({"domain": known[both].to_numpy()}), groups[both], seed)
        if len(told):
            row |= {"separability": told["value"][0], "separability_by_chance": told["chance"][0]}
        rows.append(row)
    columns = [
        "domain_a", "domain_b", "frechet", "frechet_by_chance", "mmd", "separability", "separability_by_chance", "n",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)
