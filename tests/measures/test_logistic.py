"""Both solvers, for few rows and for many, against a dense float64 Newton method, on easy and on hard inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from ssl_transfer.measures import logistic
from ssl_transfer.measures.logistic import fit_heads

STRENGTHS = np.array([1e-3, 1e-1, 1e1, 1e2, 1e4])


each_solver = pytest.mark.parametrize("solver", ["few", "many"], indirect=True)


@pytest.fixture
def solver(request, monkeypatch):
    """The solver for few rows, or that for many on few."""
    if request.param == "many":
        monkeypatch.setattr(logistic, "FEW_FEATURES", 0)


@pytest.fixture
def many(monkeypatch):
    """The solver for many rows."""
    monkeypatch.setattr(logistic, "FEW_FEATURES", 0)


def rows(count=90, dim=6, classes=3, apart=1.0, seed=0):
    """Features and class codes; every class occurs."""
    draw = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), draw.integers(0, classes, count - classes)]
    return draw.normal(size=(classes, dim))[labels] * apart + draw.normal(size=(count, dim)), labels


def heavy_tailed(count, dim, classes):
    draw = np.random.default_rng(0)
    return draw.standard_t(1.2, (count, dim)), np.arange(count) % classes


def beside(problem, columns):
    """The problem with more columns of features."""
    return np.hstack([problem[0], columns(problem[0])]), problem[1]


def scaled(problem, factor=1.0, offset=0.0):
    return problem[0] * factor + offset, problem[1]


HARD = {
    "separable": rows(apart=8.0),
    "separable, two classes": rows(classes=2, apart=8.0),
    "duplicated columns": beside(rows(), lambda x: np.hstack([x, 2 * x[:, :2]])),
    "nearly collinear columns": beside(rows(), lambda x: x[:, :2] + 1e-4 * x[:, 2:4]),
    "a constant column": beside(rows(), lambda x: np.full((len(x), 1), 7.0)),
    "only constant columns": scaled(rows(), 0.0, 3.0),
    "one feature": rows(dim=1),
    "more features than rows": rows(12, 20),
    "scales from 1e-3 to 1e3": scaled(rows(), np.logspace(-3, 3, 6)),
    "scales from 1e-5 to 1e5": scaled(rows(), np.logspace(-5, 5, 6)),
    "an offset of 1e6": scaled(rows(), 1.0, 1e6),
    "tiny": scaled(rows(), 1e-8),
    "huge": scaled(rows(), 1e4),
    "heavy tails": heavy_tailed(80, 6, 3),
    "a class of one row": (rows()[0], (np.arange(90) == 5) + 2 * (np.arange(90) % 2 == 0) * (np.arange(90) != 5)),
}


def objective(features, targets, weights, strength, head, intercept):
    """C · Σ weight · loss + ½ · ‖head‖², with gradient and Hessian; targets (N, K), K = 1 for a sigmoid."""
    count, columns = targets.shape
    inputs = np.hstack([features, np.ones((count, 1))])
    logits = inputs @ np.hstack([head, intercept[:, None]]).T
    if columns == 1:
        loss, chance = np.logaddexp(0, logits - 2 * logits * targets)[:, 0], 0.5 * (1 + np.tanh(logits / 2))
    else:
        total = np.logaddexp.reduce(logits, axis=1, keepdims=True)
        loss, chance = (total[:, 0] - (logits * targets).sum(1)), np.exp(logits - total)
    penalised = np.hstack([head, np.zeros((columns, 1))])
    gradient = strength * ((chance - targets) * weights[:, None]).T @ inputs + penalised
    hessian = np.zeros((columns, inputs.shape[1], columns, inputs.shape[1]))
    for j in range(columns):
        for k in range(columns):
            curvature = strength * weights * chance[:, j] * ((j == k) - chance[:, k])
            hessian[j, :, k] = (inputs * curvature[:, None]).T @ inputs
        hessian[j, :-1, j, :-1] += np.eye(features.shape[1])
    return strength * weights @ loss + 0.5 * (head**2).sum(), gradient, hessian.reshape(gradient.size, -1)


def optima(features, targets, weights, strengths):
    """By damped Newton steps; each is proven: the objective is 1-strongly convex in the weights."""
    columns, values = targets.shape[1], []
    head = np.zeros((columns, features.shape[1] + 1))
    null = (
        np.kron(np.ones(columns), np.eye(head.shape[1])[-1]) if columns > 1 else np.zeros(head.size)
    )  # equal intercepts
    for strength in strengths:
        for _ in range(100):
            value, gradient, hessian = objective(features, targets, weights, strength, head[:, :-1], head[:, -1])
            unit = 1 / np.sqrt(np.diag(hessian))
            scaled_hessian = hessian * unit * unit[:, None] + np.outer(null, null)
            step = -unit * np.linalg.solve(scaled_hessian, unit * gradient.ravel())
            slope, step = gradient.ravel() @ step, step.reshape(head.shape)
            if -slope < 1e-14 * value:
                break
            for rate in 0.5 ** np.arange(40):
                moved = head + rate * step
                there = objective(features, targets, weights, strength, moved[:, :-1], moved[:, -1])[0]
                if there <= value + 1e-4 * rate * slope:
                    break
            head = moved
        assert np.square(gradient).sum() / 2 < 1e-6 * value
        values.append(value)
    return values


def worst_gap(features, labels, classes=None, weights=None, strengths=STRENGTHS, dtypes=(np.float32, np.float64)):
    """Largest of (objective − optimum) / optimum over the strengths."""
    features = features.astype(np.float32).astype(np.float64)
    classes, weights = classes or labels.max() + 1, np.ones(len(labels)) if weights is None else weights
    targets = np.eye(classes)[labels] if classes > 2 else labels[:, None].astype(float)
    given = torch.from_numpy(labels) if classes > 2 else torch.from_numpy(targets)
    centre, gaps = features.mean(0), []
    best = optima(features - centre, targets, weights, strengths)
    for dtype in dtypes:
        found = fit_heads(
            torch.from_numpy(features.astype(dtype)), given, strengths, torch.from_numpy(weights), classes
        )
        assert bool(found.converged.all())
        for i, (head, intercept) in enumerate(zip(found.weights.numpy(), found.intercepts.numpy(), strict=True)):
            value = objective(features - centre, targets, weights, strengths[i], head, intercept + head @ centre)[0]
            gaps.append((value - best[i]) / best[i])
    return max(gaps)


@each_solver
@pytest.mark.parametrize("case", HARD)
def test_objectives_lie_within_1e_4_of_the_optimum_on_hard_inputs(case, solver):
    assert worst_gap(*HARD[case]) < 1e-4


@each_solver
@pytest.mark.parametrize("classes", [2, 3, 6])
def test_objectives_lie_within_1e_4_of_the_optimum_with_sample_weights(classes, solver):
    weights = np.random.default_rng(1).exponential(size=90) * (np.arange(90) % 7 > 0)
    assert worst_gap(*rows(classes=classes), weights=weights) < 1e-4


@each_solver
def test_float64_converges_far_beyond_the_tolerance_of_float32(solver):
    assert worst_gap(*rows(), dtypes=(np.float64,)) < 1e-10


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(5, 40), st.integers(1, 8), st.integers(2, 4), st.floats(0, 6), st.integers(0, 999))
def test_objectives_lie_within_1e_4_of_the_optimum_whatever_the_shape(count, dim, classes, apart, seed):
    features, labels = rows(max(count, classes), dim, classes, apart, seed)
    assert worst_gap(features, labels, classes, strengths=np.array([1e-2, 1.0, 1e3])) < 1e-4


@each_solver
def test_columns_of_labels_are_solved_as_if_each_were_alone(solver):
    features, labels = rows()
    features, labels = torch.from_numpy(features), torch.eye(3, dtype=torch.float64)[labels]
    labels[:3] = 1  # several at once
    together = fit_heads(features, labels, STRENGTHS)
    for column in range(3):
        alone = fit_heads(features, labels[:, [column]], STRENGTHS)
        assert torch.allclose(together.weights[:, [column]], alone.weights, atol=1e-7)


@each_solver
def test_an_entry_of_weight_zero_is_ignored_in_its_column_only(solver):
    features, labels = rows()
    features, labels = torch.from_numpy(features), torch.eye(3, dtype=torch.float64)[labels]
    weights = torch.ones(90, 3)
    weights[:20, 1] = 0
    found = fit_heads(features, labels, STRENGTHS, weights)
    assert torch.allclose(
        found.weights[:, [1]], fit_heads(features[20:], labels[20:, [1]], STRENGTHS).weights, atol=1e-7
    )
    assert torch.allclose(found.weights[:, [2]], fit_heads(features, labels[:, [2]], STRENGTHS).weights, atol=1e-7)


@each_solver
def test_a_label_that_no_row_has_gets_a_vanishing_probability(solver):
    features, _ = rows()
    found = fit_heads(torch.from_numpy(features), torch.zeros(90, 1), STRENGTHS)
    assert bool(found.converged.all())
    assert float(found.intercepts.max()) < -20
    assert float(found.weights.abs().max()) < 1e-6


@each_solver
def test_a_column_without_known_labels_gets_a_head_of_zeros(solver):
    features, labels = rows()
    features, labels = torch.from_numpy(features), torch.eye(3, dtype=torch.float64)[labels]
    found = fit_heads(features, labels, STRENGTHS, torch.tensor([[1.0, 0.0, 1.0]]).expand(90, 3))
    assert bool(found.converged.all())
    assert float(found.weights[:, 1].abs().max()) == float(found.intercepts[:, 1].abs().max()) == 0
    assert float(found.weights[:, 0].abs().max()) > 0


@each_solver
def test_a_sweep_is_its_single_fits_in_any_order_of_strengths(solver):
    features, labels = map(torch.from_numpy, rows())
    grid = np.logspace(-2, 2, 40)
    sweep = fit_heads(features, labels, grid, n_classes=3)
    turned = fit_heads(features, labels, np.r_[grid[::-1], grid[:1]], n_classes=3)
    assert torch.equal(sweep.weights.flip(0), turned.weights[:-1])
    assert torch.equal(sweep.weights[0], turned.weights[-1])
    for i in (0, 17, 39):
        single = fit_heads(features, labels, grid[[i]], n_classes=3)
        assert torch.allclose(sweep.weights[i], single.weights[0], atol=1e-7)


def test_strengths_between_others_need_fewer_steps(many):
    features, labels = map(torch.from_numpy, rows(400, 20, 5))
    steps = fit_heads(features.float(), labels, np.logspace(-2, 2, 33), n_classes=5).steps
    assert steps[::4].float().mean() > 3 * steps[[i for i in range(33) if i % 4]].float().mean()


@each_solver
def test_a_strength_that_stops_early_is_reported_as_not_converged(solver):
    features, labels = map(torch.from_numpy, rows())
    assert not bool(fit_heads(features, labels, [1e4], n_classes=3, max_steps=2).converged)


@pytest.mark.gpu
def test_a_gpu_finds_the_same_heads():
    features, labels = map(torch.from_numpy, rows())
    there = fit_heads(features.cuda(), labels.cuda(), STRENGTHS, n_classes=3)
    assert torch.allclose(there.weights.cpu(), fit_heads(features, labels, STRENGTHS, n_classes=3).weights, atol=1e-7)


@pytest.mark.parametrize("shape", [(60, 256, 6), (200, 40, 2), (240, 256, 5)])
def test_few_rows_are_solved_in_few_steps_and_equal_scikit_learn(shape):
    """Probabilities of nine strengths, against fits in float64 to a small gradient."""
    count, dim, classes = shape
    features, labels = rows(count, dim, classes, apart=0.3)
    features = (features - features.mean(0)) / features.std(0)
    targets = torch.from_numpy(labels if classes > 2 else labels[:, None].astype(float))
    strengths = np.logspace(-4, 4, 9)
    found = fit_heads(torch.from_numpy(features).float(), targets, strengths, n_classes=classes)
    assert bool(found.converged.all()) and int(found.steps.sum()) < 300
    for strength, head, intercept in zip(strengths, found.weights.numpy(), found.intercepts.numpy(), strict=True):
        peer = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(features, labels)
        logits = features @ head.T + intercept
        mine = softmax(logits, axis=1) if classes > 2 else expit(logits[:, 0])
        theirs = peer.predict_proba(features)
        assert np.allclose(mine, theirs if classes > 2 else theirs[:, 1], atol=2e-3)


def test_the_same_heads_are_found_by_both_solvers(monkeypatch):
    features, labels = map(torch.from_numpy, rows(120, 150, 4))
    few = fit_heads(features, labels, STRENGTHS, n_classes=4)
    monkeypatch.setattr(logistic, "FEW_FEATURES", 0)
    many = fit_heads(features, labels, STRENGTHS, n_classes=4)
    assert torch.allclose(few.weights, many.weights, atol=1e-5)
