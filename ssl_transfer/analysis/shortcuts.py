"""Shortcut test: how much of a target's score is explained by a nuisance column, such as the scanner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from ssl_transfer.analysis.property_probes import FOLDS, RIDGES, Property, fold_auroc, folds_of
from ssl_transfer.data.splits import permuted_labels
from ssl_transfer.measures.erasure import leace, whitening
from ssl_transfer.measures.resampling import draw_counts, percentile_interval
from ssl_transfer.measures.standardize import Standardizer

COMPONENTS = 128  # principal components of the features, at most
PER_COMPONENT = 10, 2  # images and patients, at least, so that directions are not fitted to single ones
PERMUTATIONS = 40
RESAMPLES = 1000
LEVELS = (0.005, 0.995)  # quantiles of the intervals: several columns are tested for every backbone
FEWEST_PATIENTS = 10
COLUMNS = ["target", "nuisance", "n", "patients", "before", "after", "drop", "drop_low", "drop_high", "by_chance"]
COLUMNS += ["nuisance_alone", "nuisance_alone_low", "explained", "shortcut"]


def shortcut_tests(
    features: np.ndarray, target: pd.Series, nuisances: pd.DataFrame, groups: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Score a linear probe of the target before and after the linear erasure of each nuisance column from the features.

    What is erased is the part of the column that the target does not explain (its deviation from the mean of each class), by
    LEACE: a scanner that merely accompanies the target leaves no trace of its own in features that encode the target alone, and
    its plain erasure would remove the target as well. Eraser and probe are fitted on the training patients of each of five
    folds, scores are those of the others. Both see the leading principal components of the features, at most 128.

    A column is a `shortcut` if (1) it predicts the target: the interval of `nuisance_alone` is above .5; (2) its erasure lowers
    the score: the interval of `drop` is above 0; and (3) it does so by more than the erasure of a column that features cannot
    know: `drop` is larger than `by_chance`, the largest drop over 40 permutations of the column between patients. Intervals are
    99 % bootstrap intervals over patients. With few patients whose nuisance is not that of their class the eraser is
    imprecise and leaves a part of the nuisance: `drop` and `explained` are then too small.

    Args:
        features: Features (N, D), finite.
        target: Classes, N rows; None and NaN are unknown.
        nuisances: A column of numbers or text per nuisance, N rows.
        groups: Patient of each row, (N,).
        seed: Seed of folds, permutations and bootstrap samples.

    Returns:
        A row per nuisance, columns `COLUMNS`: macro AUROC `before` and `after` the erasure; `drop` with its interval;
        `by_chance`; `nuisance_alone`, the AUROC of a probe that sees the nuisance column in place of the features, and the lower
        end of its interval; `explained`, the share drop / (before − .5); `shortcut`. Columns are left
        out that cannot be probed (see `probe_properties`), or with fewer than ten patients.

    Source:
        Belrose et al. 2023, https://arxiv.org/abs/2306.03819 (LEACE).
    """
    classes = Property.of(str(target.name), target.to_numpy())
    rows: list[dict] = []
    components = _components(np.asarray(features, np.float64), len(np.unique(groups.astype(str))))
    if classes is None or not classes.classes:
        return pd.DataFrame(rows, columns=COLUMNS)
    for name in nuisances:
        nuisance = Property.of(str(name), nuisances[name].to_numpy())
        if nuisance is None or name == target.name:
            continue
        both, of_target, of_nuisance = np.intersect1d(classes.rows, nuisance.rows, return_indices=True)
        truth, column = classes.targets[of_target], nuisance.targets[of_nuisance]
        patients = len(np.unique(groups[both].astype(str)))
        if patients >= FEWEST_PATIENTS and (truth.std(0) > 0).any() and (column.std(0) > 0).any():
            tested = _Test(components[both], truth, column, groups[both], seed).row()
            rows.append({"target": target.name, "nuisance": name, "n": len(both), "patients": patients, **tested})
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True, eq=False)
class _Fold:
    """Training and test rows of one fold, which of all rows they are, and the penalty of each target."""

    train: np.ndarray
    test: np.ndarray
    inputs: np.ndarray
    queries: np.ndarray
    ridges: np.ndarray

    @cached_property
    def whitened(self) -> tuple[np.ndarray, np.ndarray]:
        return whitening(self.inputs)


@dataclass(frozen=True, eq=False)
class _Test:
    """Features (n, D), targets (n, T), a nuisance (n, K) and the patient of each row."""

    features: np.ndarray
    truth: np.ndarray
    nuisance: np.ndarray
    groups: np.ndarray
    seed: int

    def row(self) -> dict[str, float | bool]:
        """The measurements; see `shortcut_tests`."""
        before, after, alone = self._scores(None), self._scores(self.nuisance), self._alone()
        names = pd.factorize(self.groups)[0]
        permuted = [
            self._scores(permuted_labels(self.nuisance, names, (self.seed, number))) for number in range(PERMUTATIONS)
        ]
        weights = np.hstack([np.ones((len(names), 1)), *(c.T for c in draw_counts(names, RESAMPLES, self.seed))])
        of_before, of_after, of_alone = (self._auroc(scores, weights) for scores in (before, after, alone))
        by_chance = max(float(of_before[0] - self._auroc(scores, weights[:, :1])[0]) for scores in permuted)
        drops = of_before - of_after
        low, high = percentile_interval(drops[1:], LEVELS)
        alone_low = percentile_interval(of_alone[1:], LEVELS)[0]
        above_chance = float(of_before[0]) - 0.5
        return {
            "before": float(of_before[0]),
            "after": float(of_after[0]),
            "drop": float(drops[0]),
            "drop_low": low,
            "drop_high": high,
            "by_chance": by_chance,
            "nuisance_alone": float(of_alone[0]),
            "nuisance_alone_low": alone_low,
            "explained": float(np.clip(drops[0] / above_chance, 0, 1)) if above_chance > 0 else float("nan"),
            "shortcut": bool(alone_low > 0.5 and low > 0 and drops[0] > by_chance),
        }

    @cached_property
    def _fold_of(self) -> np.ndarray:
        return folds_of(self.groups, self.seed)

    @cached_property
    def _folds(self) -> list[_Fold]:
        return [self._fold(number) for number in range(FOLDS)]

    def _fold(self, number: int) -> _Fold:
        test, validation = self._fold_of == number, self._fold_of == (number + 1) % FOLDS
        learnt = ~test & ~validation
        inputs, truth = self.features[learnt], self.truth[learnt]
        trials = np.stack([_ridge(inputs, truth, self.features[validation], ridge) for ridge in RIDGES])
        best = np.square(trials - self.truth[validation]).sum(1).argmin(0)
        return _Fold(~test, test, self.features[~test], self.features[test], np.array(RIDGES)[best])

    def _scores(self, erased: np.ndarray | None) -> np.ndarray:
        """Out-of-fold predictions (n, T) after the erasure of what the target does not explain of a column; None: of nothing."""
        scores = np.empty(self.truth.shape)
        for fold in self._folds:
            inputs, queries = fold.inputs, fold.queries
            if erased is not None:
                eraser = leace(inputs, _residual(erased[fold.train], self.truth[fold.train]), fold.whitened)
                inputs, queries = eraser(inputs), eraser(queries)
            truth = self.truth[fold.train]
            for ridge in np.unique(fold.ridges):
                of_ridge = fold.ridges == ridge
                scores[np.ix_(fold.test, of_ridge)] = _ridge(inputs, truth[:, of_ridge], queries, ridge)
        return scores

    def _alone(self) -> np.ndarray:
        """Out-of-fold predictions (n, T) from the nuisance alone, by least squares."""
        scores = np.empty(self.truth.shape)
        for fold in self._folds:
            scores[fold.test] = _ridge(
                self.nuisance[fold.train], self.truth[fold.train], self.nuisance[fold.test], 1e-9
            )
        return scores

    def _auroc(self, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return fold_auroc(scores, self.truth, self._fold_of, weights)


def _components(features: np.ndarray, patients: int) -> np.ndarray:
    """The leading principal components of standardised features (N, D) of some patients, shape (N, r)."""
    features = Standardizer.of(features)(features)
    most = max(1, min(COMPONENTS, len(features) // PER_COMPONENT[0], patients // PER_COMPONENT[1]))
    if features.shape[1] <= most:
        return features
    if features.shape[1] <= len(features):
        return features @ np.linalg.eigh(features.T @ features)[1][:, -most:]
    variances, sides = np.linalg.eigh(features @ features.T)
    return sides[:, -most:] * np.sqrt(np.maximum(variances[-most:], 0))


def _ridge(inputs: np.ndarray, targets: np.ndarray, queries: np.ndarray, ridge: float) -> np.ndarray:
    """Predictions (m, T) for queries by ridge regression with a penalty per row."""
    mean, centre = inputs.mean(0), targets.mean(0)
    centred = inputs - mean
    covariance = centred.T @ centred / len(inputs) + ridge * np.eye(inputs.shape[1])
    return (queries - mean) @ np.linalg.solve(covariance, centred.T @ (targets - centre) / len(inputs)) + centre


def _residual(column: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A column (n, K) without what classes explain of it: its deviation from the mean of each class of truth (n, T)."""
    indicators = np.hstack([np.ones((len(truth), 1)), truth])
    return column - indicators @ np.linalg.lstsq(indicators, column, rcond=None)[0]
