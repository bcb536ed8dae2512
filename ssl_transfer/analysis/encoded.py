"""What features encode: how well a linear probe, cross-validated over patients, reads a property off them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from ssl_transfer.logistic import fit_heads

FOLDS = 5
RIDGES = tuple(float(value) for value in np.logspace(-4, 4, 9))  # of standardised features, per image
STRENGTHS = tuple(float(value) for value in np.logspace(-4, 2, 7))
FEWEST = 30  # images that have a value, and of each class
MOST_CLASSES = 30  # a column of more words is an id, not a property
LEAST_NUMBERS = 10  # different values from which a column of numbers is regressed


def encoded(features: np.ndarray, properties: pd.DataFrame, groups: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Read properties off features by linear probes whose every prediction is of patients that they have not seen.

    Numbers (ten different ones or more) are regressed by ridge, anything else is told apart by logistic regression; the strength
    of regularisation is chosen inside the training patients. Groups are dealt into five folds by a seeded draw. Left out is
    what little is known of: fewer than 30 images or five groups, classes of fewer than 30 images, one class, more than 30
    classes, numbers that never vary.

    Args:
        features: (N, D), finite.
        properties: A column each, numbers or words; None and NaN are unknown; N rows.
        groups: Patient of each row, (N,).
        seed: Of folds and permutation.

    Returns:
        A row per property: `property`, `measure` (`R2`, at most 1, where 0 is the mean; or macro `AUROC`, where 0.5 is chance),
        `value`, `chance` (the same after values were exchanged between patients: what no relation looks like) and `n` images.
    """
    numeric: dict[bytes, tuple[np.ndarray, list[tuple[str, np.ndarray]]]] = {}
    rows = []
    for name in properties:
        prepared = _prepared(properties[name].to_numpy())
        if prepared is None:
            continue
        known, target, is_number = prepared
        if len(np.unique(groups[known].astype(str))) < FOLDS:
            continue
        if is_number:  # those known of the same images share decompositions of the features
            numeric.setdefault(known.tobytes(), (known, []))[1].append((name, target))
            continue
        sample = _Sample.of(features, groups, known, seed)
        values = [_classified(sample.inputs, own, sample.folds) for own in (target, sample.exchanged(target))]
        rows.append({"property": name, "measure": "AUROC", "value": values[0], "chance": values[1], "n": len(known)})
    for known, columns in numeric.values():
        sample = _Sample.of(features, groups, known, seed)
        targets = np.stack([target for _, target in columns], 1)
        values = _regressed(sample.inputs, np.hstack([targets, sample.exchanged(targets)]), sample.folds)
        for place, (name, _) in enumerate(columns):
            own = {"value": values[place], "chance": values[len(columns) + place], "n": len(known)}
            rows.append({"property": name, "measure": "R2", **own})
    order = {name: place for place, name in enumerate(properties)}
    rows.sort(key=lambda row: order[row["property"]])
    return pd.DataFrame(rows, columns=["property", "measure", "value", "chance", "n"])


@dataclass(frozen=True)
class _Sample:
    """Images of which something is known: features, fold, and group of each."""

    inputs: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    seed: int

    @classmethod
    def of(cls, features: np.ndarray, groups: np.ndarray, rows: np.ndarray, seed: int) -> _Sample:
        codes = np.unique(groups[rows].astype(str), return_inverse=True)[1]
        folds = (np.random.default_rng(seed).permutation(codes.max() + 1) % FOLDS)[codes]
        return cls(np.asarray(features[rows], np.float64), folds, codes, seed)

    def exchanged(self, target: np.ndarray) -> np.ndarray:
        """Every group's values taken from another group, in their order, and repeated or cut to its length."""
        order = np.argsort(self.groups, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(self.groups))[:-1])
        given = np.random.default_rng([self.seed, 1]).permutation(len(parts))
        shuffled = np.empty_like(target)
        for part, other in zip(parts, given, strict=True):
            shuffled[part] = target[parts[other][np.arange(len(part)) % len(parts[other])]]
        return shuffled


def _prepared(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool] | None:
    """Rows that have a value, the target, and whether it is a number."""
    known = np.flatnonzero([value is not None and value == value for value in values])
    kept = np.asarray(values, object)[known]
    if len(known) < FEWEST:
        return None
    if all(isinstance(value, (int, float, np.number)) for value in kept):
        numbers = kept.astype(np.float64)
        if len(np.unique(numbers)) >= LEAST_NUMBERS:
            return known, numbers, True
    names, codes, counts = np.unique(kept.astype(str), return_inverse=True, return_counts=True)
    if len(names) > MOST_CLASSES:
        return None
    frequent = counts >= FEWEST
    if frequent.sum() < 2:
        return None
    rows = frequent[codes]
    return known[rows], np.unique(codes[rows], return_inverse=True)[1], False


def _regressed(inputs: np.ndarray, targets: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Out-of-fold R² of several targets (n, P), (P,)."""
    predicted, expected = np.empty(targets.shape), np.empty(targets.shape)
    columns = np.arange(targets.shape[1])
    for fold in range(FOLDS):
        judged, chooses = folds == fold, folds == (fold + 1) % FOLDS
        learns = ~judged & ~chooses
        trials = _ridge(inputs[learns], targets[learns], inputs[chooses])
        errors = np.square(trials - targets[chooses]).sum(1)  # (ridges, P)
        predicted[judged] = _ridge(inputs[~judged], targets[~judged], inputs[judged])[errors.argmin(0), :, columns].T
        expected[judged] = targets[~judged].mean(0)
    return 1 - np.square(targets - predicted).sum(0) / np.square(targets - expected).sum(0)


def _ridge(inputs: np.ndarray, targets: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Predictions (ridges, m, P) of ridge regressions on standardised features, at every penalty of the mean squared error."""
    mean, spread = inputs.mean(0), inputs.std(0)
    spread[spread == 0] = np.inf
    inputs, others, centre = (inputs - mean) / spread, (others - mean) / spread, targets.mean(0)
    variances, axes = np.linalg.eigh(inputs.T @ inputs / len(inputs))
    along = axes.T @ (inputs.T @ (targets - centre)) / len(inputs)
    places = others @ axes
    return np.stack([places @ (along / (variances.clip(min=0) + ridge)[:, None]) + centre for ridge in RIDGES])


def _classified(inputs: np.ndarray, target: np.ndarray, folds: np.ndarray) -> float:
    """Mean over folds of the macro AUROC on patients that were not seen, without folds of one class."""
    values, weights = [], []
    for fold in range(FOLDS):
        judged, chooses = folds == fold, folds == (fold + 1) % FOLDS
        learns = ~judged & ~chooses
        if len(np.unique(target[learns])) < 2:
            continue
        scores = _heads(inputs[learns], target[learns], [inputs[chooses], inputs[judged]], target.max() + 1)
        chosen = [_auroc(own, target[chooses]) for own in scores[0]]
        best = int(np.nanargmax(chosen)) if np.isfinite(chosen).any() else len(chosen) // 2
        value = _auroc(scores[1][best], target[judged])
        if np.isfinite(value):
            values.append(value)
            weights.append(judged.sum())
    return float(np.average(values, weights=weights)) if values else float("nan")


def _heads(inputs: np.ndarray, target: np.ndarray, others: list[np.ndarray], classes: int) -> list[np.ndarray]:
    """Logits (strengths, n, C) of each of `others`, by heads fitted on standardised features at all strengths at once."""
    mean, spread = inputs.mean(0), inputs.std(0)
    spread[spread == 0] = np.inf
    standard = torch.from_numpy(((inputs - mean) / spread).astype(np.float32))
    targets = torch.from_numpy(target) if classes > 2 else torch.from_numpy(target[:, None].astype(np.float32))
    heads = fit_heads(standard, targets, np.array(STRENGTHS), n_classes=classes)
    weights, intercepts = heads.weights.numpy(), heads.intercepts.numpy()
    return [np.einsum("nd,skd->snk", (own - mean) / spread, weights) + intercepts[:, None] for own in others]


def _auroc(scores: np.ndarray, target: np.ndarray) -> float:
    """Macro mean over classes that have both outcomes, of scores (n, C), or (n, 1) of two classes."""
    judged = {1: scores[:, 0]} if scores.shape[1] == 1 else dict(enumerate(scores.T))
    known = [c for c in judged if 0 < (target == c).sum() < len(target)]
    return float(np.mean([roc_auc_score(target == c, judged[c]) for c in known])) if known else float("nan")
