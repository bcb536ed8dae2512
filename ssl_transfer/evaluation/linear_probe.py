"""Linear probe: a linear model of frozen features."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ssl_transfer.console import warn
from ssl_transfer.errors import BackboneError, RecipeError, TaskError, nearest
from ssl_transfer.evaluation.inner_split import inner_split
from ssl_transfer.evaluation.value_probes import cox_fits, ridge_fits
from ssl_transfer.measures.linear_model import LinearModel, logits, probabilities
from ssl_transfer.measures.logistic import fit_heads
from ssl_transfer.measures.ordinal import above_thresholds
from ssl_transfer.measures.standardize import Standardizer
from ssl_transfer.models.device import fastest_device

SOLVERS = ("lbfgs", "sgd")
VALUE_FITS = {"regression": ridge_fits, "survival": cox_fits}  # kinds of task without classes
STRENGTHS = tuple(float(c) for c in np.logspace(-4, 4, 9))
RATES = tuple(float(rate) for rate in np.logspace(-3, 1, 9))
WEIGHT_DECAYS = (0.0, 1e-6, 1e-4, 1e-2)
EPOCHS, BATCH_SIZE, MOMENTUM = 100, 256, 0.9


def linear_probe(
    train: np.ndarray,
    labels: np.ndarray,
    queries: dict[str, np.ndarray],
    n_classes: int,
    seed: int = 0,
    kind: str = "multiclass",
    *,
    strengths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = STRENGTHS,
    solver: Literal["lbfgs", "sgd"] = "lbfgs",
    rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = RATES,
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = WEIGHT_DECAYS,
    class_weight: Literal["none", "balanced"] = "none",
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray], LinearModel]]:
    """Fit a linear model of frozen, standardised features at every setting of a sweep, all at once.

    Features are standardised with the mean and standard deviation of the training rows. Classes: multinomial logistic regression.
    Labels: logistic regression of each. Grades: logistic regression of each threshold between grades. Numbers: ridge regression.
    Survival: Cox's proportional hazards with a ridge penalty, ties of event times as Efron treated them.

    Args:
        train: Features, shape (N, D).
        labels: Class or grade of each image, integers in [0, n_classes), shape (N,); multi-label: 0, 1, or −1 for unknown, shape
            (N, n_classes): unknown entries do not enter that label's loss; regression: numbers (N,); survival: time and event
            (N, 2).
        queries: Name -> features to score, shape (M, D).
        n_classes: Number of classes, of grades, or of labels.
        kind: Kind of the task; `multiclass` with labels of shape (N, n_classes) is `multilabel`.
        seed: Seed of the order of the batches of `sgd`; `lbfgs` draws nothing.
        strengths: Inverse regularisation strengths C, as in scikit-learn (of ridge regression, 1 / alpha), that the solver
            `lbfgs` fits; one is selected on validation. A logarithmic sweep as in Kornblith et al. 2019, 1805.08974.
        solver: `lbfgs`: fitted to its optimum at every C. `sgd`, for classes, grades and labels: the classic recipe (momentum
            0.9, 100 epochs, cosine decay to 0) with every pair of rate and weight decay.
        rates: Peak learning rates, for a batch of 256, that the solver `sgd` uses; one is selected on validation. DINOv2
            sweeps 13 rates (2304.07193).
        weight_decays: Weights of the penalty weight_decay / 2 · ‖weights‖² that the solver `sgd` adds to the mean loss; one is
            selected on validation.
        class_weight: `none`, or `balanced`, for classes, grades and labels: every class has the same share of the loss, as in
            scikit-learn; of grades, both sides of every threshold.

    Yields:
        The setting (`C`, ascending; or `rate` and `weight_decay`); for each query, probabilities (M, n_classes), or numbers or
        log hazards (M,); the fitted model.

    Raises:
        BackboneError: If a training feature is NaN or infinite.
        RecipeError: If an option is not for this kind of task.
        TaskError: If the training rows have a single class or value, or no event.
    """
    labels = np.asarray(labels)
    kind = "multilabel" if labels.ndim == 2 and kind == "multiclass" else kind
    _check_training(train, labels, kind)
    standardize = Standardizer.of(train, constant_below=1e-6, dtype=np.float64)
    inputs, *scored = (standardize(features).astype(np.float32) for features in (train, *queries.values()))
    if kind in VALUE_FITS:
        if solver != "lbfgs" or class_weight != "none":
            name, value = ("solver", solver) if solver != "lbfgs" else ("class_weight", class_weight)
            raise RecipeError(f"linear probe: {name}={value} is not for {kind} tasks. Leave it out.")
        heads = [_Head(setting, w, b, 0, ok) for setting, w, b, ok in VALUE_FITS[kind](inputs, labels, strengths)]
    else:
        targets = above_thresholds(labels, n_classes) if kind == "ordinal" else labels
        weights = _weights(targets, range(n_classes), class_weight)
        heads = _fit(inputs, targets, weights, n_classes, _settings(solver, strengths, rates, weight_decays), seed=seed)
    for head in heads:
        if not head.converged:
            warn(f"linear probe: {head.setting} did not reach its optimum")
        if np.isfinite(head.weights).all():
            model = LinearModel(head.weights, head.intercepts, standardize, kind)
            predicted = [model.predicted(features) for features in scored]
            yield head.setting, dict(zip(queries, predicted, strict=True)), model


class LinearProbe(ClassifierMixin, BaseEstimator):
    """Linear classifier of features, with its regularisation chosen on held-out rows.

    The objective is that of `sklearn.linear_model.LogisticRegression`: C · Σ weight · loss + ½ · ‖coef‖², without a penalty on
    the intercept. The loss has a sigmoid for two classes, a softmax for more classes, and a sigmoid per column if `y` is a 0/1
    matrix of labels. Features are not standardised here. `fit` raises ValueError for an invalid option.

    Args:
        C: Inverse strength of regularisation. None: selected on held-out rows, and then fitted on all rows.
        strengths: Candidates for C with the solver `lbfgs`.
        solver: `lbfgs` stops at a proven optimality gap of at most 3e-5 of the objective (for float64 features, far less);
            `sgd` is the classic recipe: momentum 0.9, cosine to 0.
        rates: Candidates for the learning rate of `sgd` at a batch size of 256; it is proportional to the batch size.
        weight_decays: Candidates for the penalty of `sgd`, weight_decay / 2 · ‖coef‖², added to the mean loss. A given C means
            the weight decay 1 / (C · Σ weight).
        epochs: Number of epochs of `sgd`.
        batch_size: Batch size of `sgd`.
        class_weight: As in scikit-learn; multi-label: weights of 0 and 1 in each column.
        validation_fraction: Share of each class's rows (or groups) that is held out, see `inner_split`.
        random_state: Fixes which rows are held out, and the order of batches.
        device: Device of the computation; None: a GPU if available.

    Attributes:
        coef_: Weights (K, D), float64; K is 1 for two classes.
        intercept_: Intercepts (K,).
        setting_: The given or selected setting: `C`, or `rate` and `weight_decay`.
        C_: The inverse strength of regularisation of this setting; infinite without a penalty.
        classes_: Distinct values of `y`; multi-label: positions of its columns.
        n_iter_: Steps of the last fit.

    Example:
        >>> features = [[-2.0], [-1.0], [1.0], [2.0]]
        >>> LinearProbe(C=1.0).fit(features, ["low", "low", "high", "high"]).predict([[3.0]]).tolist()
        ['high']
    """

    def __init__(
        self,
        C=None,
        *,
        strengths=STRENGTHS,
        solver="lbfgs",
        rates=RATES,
        weight_decays=WEIGHT_DECAYS,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        class_weight=None,
        validation_fraction=0.2,
        random_state=0,
        device=None,
    ):
        self.C, self.strengths, self.solver = C, strengths, solver
        self.rates, self.weight_decays, self.epochs, self.batch_size = rates, weight_decays, epochs, batch_size
        self.class_weight, self.validation_fraction = class_weight, validation_fraction
        self.random_state, self.device = random_state, device

    def fit(self, X, y, sample_weight=None, groups=None):
        """Select the regularisation, unless it is given, and fit.

        Args:
            X: Features, (N, D), finite.
            y: Classes (N,), or multi-label targets, 0 or 1 (N, K).
            sample_weight: Weights of at least 0, (N,). A row of weight 2 counts as two rows, one of weight 0 is ignored.
            groups: Group of each row, such as its patient, (N,); a group is held out as a whole.

        Raises:
            ValueError: If a feature is NaN or infinite, or there are fewer than two classes.
        """
        self._check_options()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if (weights < 0).any():
            raise ValueError(
                f"LinearProbe: sample_weight has {(weights < 0).sum()} negative values; expected 0 or above."
            )
        kept = np.flatnonzero(weights)
        X, codes, groups = X[kept], self._codes(y)[kept], None if groups is None else column_or_1d(groups)[kept]
        if len(np.unique(codes, axis=0)) < 2:
            raise ValueError(
                f"LinearProbe: y holds 1 class in the {len(kept)} rows whose weight is not 0; expected at least two. "
                "Add rows of another class."
            )
        weights = _weights(codes, self.classes_, self.class_weight, weights[kept])
        mass = weights.sum(0).mean()
        settings = _settings(self.solver, self.strengths, self.rates, self.weight_decays)
        if self.C is not None:
            settings = _settings(self.solver, [self.C], self.rates, [1 / (self.C * mass)])
        if len(settings) > 1:
            settings = [self._best(X, codes, weights, groups, settings)]
        head = self._heads(X, codes, weights, settings)[0]
        self.coef_, self.intercept_ = head.weights, head.intercepts
        self.n_iter_, self.setting_ = head.steps, head.setting
        penalty = head.setting.get("weight_decay", 1.0) * mass
        self.C_ = head.setting.get("C", 1 / penalty if penalty else np.inf)
        if not head.converged:
            warnings.warn(f"LinearProbe: {head.setting} did not reach its optimum", ConvergenceWarning, stacklevel=2)
        return self

    def decision_function(self, X):
        """Logits: of the second class (N,) if there are two, else (N, K)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict_proba(self, X):
        """Probabilities (N, K) of the classes, which sum to 1; multi-label: of each label by itself."""
        scores = self.decision_function(X)
        return probabilities(scores.reshape(len(scores), -1), self._multilabel)

    def predict(self, X):
        """The most probable class (N,); multi-label: 1 where the probability is above 0.5, else 0, (N, K)."""
        scores = self.decision_function(X)
        if self._multilabel:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _codes(self, y):
        """Class codes (N,), or multi-label targets (N, K); sets `classes_`."""
        y = y.toarray() if hasattr(y, "toarray") else y
        y = column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y
        check_classification_targets(y)
        self._multilabel = y.ndim == 2
        if self._multilabel:
            if not np.isin(y, (0, 1)).all():
                raise ValueError(
                    f"LinearProbe: y of shape {y.shape}; expected classes (N,), or labels (N, K) of 0 and 1 alone."
                )
            self.classes_ = np.arange(y.shape[1])
            return y.astype(int)
        self.classes_, codes = np.unique(y, return_inverse=True)
        return codes

    def _best(self, X, codes, weights, groups, settings):
        """The setting with the smallest loss on held-out rows; of several equal ones, that with the strongest penalty."""
        seed = check_random_state(self.random_state).randint(2**31)
        held_out = inner_split(X, codes, groups, self.validation_fraction, seed)
        heads = self._heads(X[~held_out], codes[~held_out], weights[~held_out], settings)
        inputs = X[held_out].astype(np.float64)
        losses = [_log_loss(head.scores(inputs), codes[held_out], weights[held_out]) for head in heads]
        if np.isnan(losses).all():
            raise ValueError(
                f"LinearProbe: sgd diverged at every rate of {self.rates}. Standardise the features, or lower rates."
            )
        return settings[int(np.nanargmin(losses))]

    def _heads(self, X, codes, weights, settings):
        seed = check_random_state(self.random_state).randint(2**31)
        return _fit(X, codes, weights, len(self.classes_), settings, self.epochs, self.batch_size, seed, self.device)

    def _check_options(self):
        """Refuse an invalid option before any computation."""
        for name, values, expected in (
            ("C", () if self.C is None else (self.C,), "a number above 0, or None to select it"),
            ("strengths", self.strengths, "numbers above 0"),
            ("rates", self.rates, "numbers above 0"),
            ("weight_decays", self.weight_decays, "numbers of at least 0"),
            ("epochs", (self.epochs,), "a number above 0"),
            ("batch_size", (self.batch_size,), "a number above 0"),
        ):
            fits = [
                isinstance(v, Real) and (0 < float(v) < np.inf or (v == 0 and name == "weight_decays")) for v in values
            ]
            if not all(fits) or (name != "C" and not fits):
                raise ValueError(f"LinearProbe: {name}={getattr(self, name)!r}; expected {expected}.")
        if self.solver not in SOLVERS:
            raise ValueError(f"LinearProbe: no solver {self.solver!r}.{nearest(str(self.solver), SOLVERS)}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"LinearProbe: validation_fraction={self.validation_fraction!r}; expected a share, such as 0.2."
            )


@dataclass(frozen=True)
class _Head:
    setting: dict[str, float]
    weights: np.ndarray  # (K, D)
    intercepts: np.ndarray  # (K,)
    steps: int
    converged: bool

    def scores(self, features):
        """Logits (N, K), float64; the matrix product is computed in the features' precision."""
        return logits(features, self.weights, self.intercepts)


def _settings(solver, strengths, rates, weight_decays):
    if solver == "lbfgs":
        return [{"C": float(strength)} for strength in sorted(strengths)]
    return [
        {"rate": float(rate), "weight_decay": float(decay)}
        for decay in sorted(weight_decays, reverse=True)
        for rate in sorted(rates)
    ]


def _fit(
    features, labels, weights, n_classes, settings, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=0, device=None
) -> list[_Head]:
    """Fit the heads of all settings together; labels and weights as in `_weights`."""
    device = torch.device(device) if device else fastest_device()
    features, weights = torch.as_tensor(features, device=device), torch.as_tensor(weights, device=device)
    if labels.ndim == 2 or n_classes == 2:
        targets = torch.as_tensor((labels == 1).reshape(len(labels), -1), dtype=features.dtype, device=device)
    else:
        targets = torch.as_tensor(labels, dtype=torch.int64, device=device)
    if "C" in settings[0]:
        fitted = fit_heads(features, targets, [setting["C"] for setting in settings], weights, n_classes)
        steps, converged = fitted.steps.tolist(), fitted.converged.tolist()
        coefficients, intercepts = fitted.weights.cpu().numpy(), fitted.intercepts.cpu().numpy()
    else:
        coefficients, intercepts = _sgd(features, targets, weights, n_classes, settings, epochs, batch_size, seed)
        converged = np.isfinite(coefficients).all((1, 2)).tolist()
        steps = [epochs * -(-len(features) // batch_size)] * len(settings)
    return [_Head(*each) for each in zip(settings, coefficients, intercepts, steps, converged, strict=True)]


def _sgd(features, targets, weights, n_classes, settings, epochs, batch_size, seed):
    """Weights (S, K, D) and intercepts (S, K) of all settings. They share batches, so that a batch needs one product."""
    count, mean = len(features), features.mean(0, dtype=torch.float64)
    features = (features - mean).to(features.dtype)
    columns = n_classes if targets.ndim == 1 else targets.shape[1]
    heads = features.new_zeros(2, len(settings) * columns, features.shape[1] + 1)
    heads, velocity = heads.unbind()
    per_head = {
        name: features.new_tensor([setting[name] for setting in settings]).repeat_interleave(columns)[:, None]
        for name in ("rate", "weight_decay")
    }
    weights = (weights / weights.mean(0).clamp(min=1e-300)).to(features.dtype).reshape(count, 1, -1)
    shuffle = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, count)
    step, steps = 0, epochs * -(-count // batch_size)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=shuffle).to(features.device).split(batch_size):
            inputs = features[rows]
            logits = torch.addmm(heads[:, -1], inputs, heads[:, :-1].T).view(len(rows), len(settings), columns)
            if targets.ndim == 1:
                errors = logits.softmax(2)
                errors -= torch.nn.functional.one_hot(targets[rows], columns)[:, None]
            else:
                errors = logits.sigmoid() - targets[rows][:, None]
            errors = (errors * weights[rows] / len(rows)).flatten(1)
            velocity *= MOMENTUM
            velocity[:, :-1] += errors.T @ inputs + per_head["weight_decay"] * heads[:, :-1]
            velocity[:, -1] += errors.sum(0)
            rate = per_head["rate"] * (batch_size / 256 * 0.5 * (1 + np.cos(np.pi * step / steps)))
            heads -= rate * velocity
            step += 1
    heads = heads.view(len(settings), columns, -1).double()
    return heads[..., :-1].cpu().numpy(), (heads[..., -1] - heads[..., :-1] @ mean).cpu().numpy()


def _weights(labels, classes, class_weight, rows=None):
    """Sample weights: (N,) multiclass; (N, K) multi-label, separate for each label, 0 where it is unknown (−1)."""
    rows = np.ones(len(labels)) if rows is None else rows
    if labels.ndim == 2:
        return np.stack([_weights(column, (0, 1), class_weight, rows * (column >= 0)) for column in labels.T], 1)
    if class_weight in (None, "none"):
        return rows
    if class_weight == "balanced":
        mass = np.bincount(labels.clip(min=0), rows, minlength=len(classes))
        share = np.divide(mass.sum(), mass * (mass > 0).sum(), out=np.zeros_like(mass), where=mass > 0)
    else:
        share = compute_class_weight(class_weight, classes=np.asarray(classes), y=np.asarray(classes))
    return rows * share[labels.clip(min=0)]


def _log_loss(scores, labels, weights):
    """Log loss, a weighted mean over known labels; NaN for a head that diverged."""
    if not np.isfinite(scores).all():
        return np.nan
    if labels.ndim == 1 and scores.shape[1] > 1:
        losses = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]
    else:
        losses = np.logaddexp(0, np.where(labels.reshape(scores.shape) == 1, -scores, scores)).reshape(labels.shape)
    return (weights * losses).sum() / weights.sum()


def _check_training(train, labels, kind):
    """Refuse features that are NaN or infinite, and training rows of a single class."""
    broken = np.flatnonzero(~np.isfinite(train).all(1))
    if len(broken):
        raise BackboneError(
            f"linear probe: features of {len(broken)} of {len(train)} training images are NaN or infinite (first: image "
            f"{broken[0]}). Extract them again with precision=fp32, or look at the backbone's training."
        )
    if kind in ("multiclass", "ordinal") and len(np.unique(labels)) < 2:
        raise TaskError(
            f"linear probe: the {len(labels)} training images have {len(np.unique(labels))} class; expected at least two. "
            "Take a larger fraction, or another seed."
        )
