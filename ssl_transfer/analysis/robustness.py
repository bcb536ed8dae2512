"""Robustness index: do the neighbours of an image share its label or its scanner?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ssl_transfer.data.subgroups import subgroup_names
from ssl_transfer.measures.resampling import draw_counts, percentile_interval

RESAMPLES = 1000
MOST_ROWS = 5000  # every two of which are compared
ROBUSTNESS = ("index", "low", "high", "by_chance", "same_label", "same_domain", "n")  # keys of the answer
COLUMNS = ["target", "nuisance", "values", *ROBUSTNESS]


def robustness_indices(
    features: np.ndarray, target: pd.Series, nuisances: pd.DataFrame, groups: np.ndarray, k: int, seed: int = 0
) -> pd.DataFrame:
    """The robustness index of a target against each nuisance column.

    The index is defined for groups, such as scanners. Numbers with more than eight different values are divided into thirds of
    the images, and ages into bands of five years, as subgroups are (`data.subgroups`): two images with a dose of 4.1 and 4.2 are
    alike, and no two may have the very same.

    Args:
        features: See `robustness_index`.
        target: Labels, N rows.
        nuisances: A column of numbers or text per nuisance, N rows.
        groups, k, seed: See `robustness_index`.

    Returns:
        A row per nuisance other than the target, columns `COLUMNS`: `values` is the number of its groups.
    """
    rows = []
    labels = subgroup_names(str(target.name), target.to_numpy(object))
    for name in [name for name in nuisances if name != target.name]:
        domains = subgroup_names(str(name), nuisances[name].to_numpy(object))
        found = robustness_index(features, labels, domains, groups, k, seed)
        rows.append({"target": target.name, "nuisance": name, "values": len(set(domains) - {None}), **found})
    return pd.DataFrame(rows, columns=COLUMNS)


def robustness_index(
    features: np.ndarray, labels: np.ndarray, domains: np.ndarray, groups: np.ndarray, k: int, seed: int = 0
) -> dict[str, float]:
    """Among the k nearest images of other patients, compare those that share the label with those that share the domain.

    The index is SO / (SO + OS): SO counts neighbours of the same label and another domain, OS neighbours of another label and
    the same domain; neighbours that share both or neither say nothing and are not counted. It is 1 if only the label brings
    images together, 0 if only the domain does, and ½ where both do alike. De Jong et al. compare these two kinds by their ratio,
    SO / OS = index / (1 − index), which is 1 there. Images of the same patient are no neighbours: they mostly share both. If
    labels and domains are associated, the index is shifted: `by_chance` is that of neighbours which are drawn at random.

    Args:
        features: Features, compared by cosine similarity, shape (N, D), in random order: the first 5,000 are used.
        labels: Label of each row, (N,), compared by equality; rows without one are left out.
        domains: Scanner, site or the like of each row, (N,), likewise.
        groups: Patient of each row, (N,).
        k: Number of neighbours.
        seed: Fixes the bootstrap samples.

    Returns:
        `index`, `low` and `high` (95 % bootstrap interval over patients), `by_chance`, `same_label` and `same_domain` (the shares
        of neighbours that are SO and OS), and `n`, the number of rows. NaN where nothing is counted.

    Source:
        de Jong et al. 2025, https://arxiv.org/abs/2501.18055 (the index); Kömen et al. 2025, https://arxiv.org/abs/2507.17845
        (as a share, without neighbours of the same patient).
    """
    is_known = ~(pd.isna(np.asarray(labels, object)) | pd.isna(np.asarray(domains, object)))
    known = np.flatnonzero(is_known)[:MOST_ROWS]
    if not len(known):
        return {**dict.fromkeys(ROBUSTNESS, float("nan")), "n": 0}
    label, domain, patient = (
        pd.factorize(np.asarray(values, object)[known].astype(str))[0] for values in (labels, domains, groups)
    )
    vectors = np.asarray(features[known], np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = vectors @ vectors.T
    is_other = patient[:, None] != patient
    similarity[~is_other] = -np.inf
    near = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    reached = np.take_along_axis(is_other, near, 1)  # with few other patients there are fewer than k
    alike = label[near] == label[:, None], domain[near] == domain[:, None]
    counted = [(reached & here & ~there).sum(1) for here, there in (alike, alike[::-1])]
    same = label[:, None] == label, domain[:, None] == domain
    expected = [(is_other & here & ~there).sum() for here, there in (same, same[::-1])]
    sums = [
        np.concatenate([(weights @ counts) for weights in draw_counts(patient, RESAMPLES, seed)]) for counts in counted
    ]
    low, high = percentile_interval(_share(*sums))
    totals = [counts.sum() for counts in counted]
    shares = [float(total / max(reached.sum(), 1)) for total in totals]
    return {
        "index": float(_share(*totals)),
        "low": low,
        "high": high,
        "by_chance": float(_share(*expected)),
        "same_label": shares[0],
        "same_domain": shares[1],
        "n": len(known),
    }


def _share(one, other):
    """one / (one + other); NaN where both are 0."""
    with np.errstate(invalid="ignore"):
        return np.divide(one, np.add(one, other))
