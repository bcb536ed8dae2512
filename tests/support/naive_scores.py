"""Slow, literal transcriptions of the published formulas: loops over images and classes, explicit matrices.

Nothing here is careful about rounding beyond float64; the shapes are small. `FORMULAS` holds them by name.
"""

import math

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf


def entropy(labels):
    """H(Y) of the empirical distribution, in nats."""
    shares = [sum(1 for y in labels if y == c) / len(labels) for c in set(labels)]
    return -sum(p * math.log(p) for p in shares)


def nce(source_labels, labels):
    """Sum over (z, y) of P(z, y) log P(y | z), by counting."""
    total, images = 0.0, list(zip(source_labels, labels, strict=True))
    for z in set(source_labels):
        of_z = [y for source, y in images if source == z]
        for c in set(of_z):
            conditional = of_z.count(c) / len(of_z)
            total += len(of_z) / len(images) * conditional * math.log(conditional)
    return total


def leep(probabilities, labels):
    """The joint P(y, z), the conditional P(y | z), and the mean log of the expected conditional."""
    count, classes, sources = len(labels), sorted(set(labels)), range(len(probabilities[0]))
    joint = {
        (c, z): sum(probabilities[i][z] for i in range(count) if labels[i] == c) / count
        for c in classes
        for z in sources
    }
    mass = {z: sum(joint[c, z] for c in classes) for z in sources}
    conditional = {(c, z): joint[c, z] / mass[z] for c in classes for z in sources if mass[z] > 0}
    return sum(
        math.log(sum(conditional[labels[i], z] * probabilities[i][z] for z in sources if mass[z] > 0))
        for i in range(count)
    ) / float(count)


def class_means(features, labels):
    """E[f | y] of every image: a row (D,) per image."""
    return np.array([np.mean([f for f, y in zip(features, labels, strict=True) if y == c], axis=0) for c in labels])


def pinv(matrix):
    """The pseudo-inverse of a covariance; directions below 1e-11 of the largest are rounding."""
    return np.linalg.pinv(matrix, rcond=1e-11, hermitian=True)


def h_score(features, labels):
    """tr(cov(f)⁺ cov(E[f|y])), both D x D."""
    within = np.atleast_2d(np.cov(features, rowvar=False))
    between = np.atleast_2d(np.cov(class_means(features, labels), rowvar=False))
    return float(np.trace(pinv(within) @ between))


def regularized_h_score(features, labels):
    """tr(Σ_α⁺ (1 − α) cov(E[f|y])), Σ_α and α of scikit-learn on centred features."""
    shrunk = LedoitWolf().fit(features - features.mean(0))
    between = np.atleast_2d(np.cov(class_means(features, labels), rowvar=False))
    return float(np.trace(np.linalg.pinv(shrunk.covariance_) @ ((1 - shrunk.shrinkage_) * between)))


def log_evidence(features, target, alpha, beta):
    """log N(y; 0, F Fᵀ / α + I / β), the N x N covariance written out; −∞ where float64 cannot invert it."""
    count = len(target)
    covariance = features @ features.T / alpha + np.eye(count) / beta
    strengths = np.linalg.eigvalsh(covariance)
    if not strengths[0] > 1e-11 * strengths[-1]:
        return -math.inf
    return -0.5 * (
        target @ np.linalg.solve(covariance, target) + np.sum(np.log(strengths)) + count * math.log(2 * math.pi)
    )


def best_evidence(features, target):
    """The largest of `log_evidence` over (log α, log β), per image: a coarse grid, then a search from its best points."""

    def loss(logs):
        return -log_evidence(features, target, *np.exp(logs)) / len(target)

    centre = -math.log(np.mean(target**2))
    power = math.log(np.mean(np.sum(features**2, axis=1)))
    grid = [(centre + power + a, centre + b) for a in np.arange(-20.0, 14.1, 2) for b in np.arange(-1.0, 15.1, 2)]
    starts = sorted(grid, key=loss)[:2]
    starts.append(min((point for point in grid if np.hypot(*np.subtract(point, starts[0])) > 4), key=loss))
    options = {"xatol": 1e-6, "fatol": 1e-14, "maxiter": 600, "maxfev": 600}
    return -min(minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts)


def logme(features, labels):
    """Mean over one-hot columns of the best log evidence per image."""
    return float(np.mean([best_evidence(features, (np.array(labels) == c).astype(float)) for c in sorted(set(labels))]))


def coding_rate(rows):
    """½ log det(I + ZᵀZ / (N ε)), D x D."""
    return 0.5 * np.linalg.slogdet(np.eye(rows.shape[1]) + rows.T @ rows / (len(rows) * 1e-4))[1]


def transrate(features, labels):
    """R(Z) − Σ_c N_c/N R(Z_c), Z centred and of root mean square 1."""
    rows = features - features.mean(0)
    rows = rows / math.sqrt(np.mean(rows**2))
    rate = coding_rate(rows)
    for c in set(labels):
        of_class = np.array([row for row, y in zip(rows, labels, strict=True) if y == c])
        rate -= len(of_class) / len(rows) * coding_rate(of_class)
    return float(rate)


def gbc(features, labels, axes=64):
    """−Σ_{i≠j} exp(−B_ij) of spheres, on the leading principal axes."""
    centred = features - features.mean(0)
    if axes is not None and axes < features.shape[1]:
        centred = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :axes]
    dim, total = centred.shape[1], 0.0
    sphere = {}
    for c in set(labels):
        of_class = np.array([row for row, y in zip(centred, labels, strict=True) if y == c])
        mean = of_class.mean(0)
        sphere[c] = mean, np.mean([np.sum((row - mean) ** 2) for row in of_class]) / dim
    for i, (mean_i, var_i) in sphere.items():
        for j, (mean_j, var_j) in sphere.items():
            if i != j:
                v = (var_i + var_j) / 2
                distance = np.sum((mean_i - mean_j) ** 2) / (8 * v) + dim / 2 * math.log(v / math.sqrt(var_i * var_j))
                total -= math.exp(-distance)
    return total


class Discriminant:
    """Fisher's: U of the generalised eigenproblem (S_B, S_W~) with Uᵀ S_W~ U = I, its C − 1 leading axes."""

    def __init__(self, features, labels, shrinkage=None):
        self.classes, count = sorted(set(labels)), len(labels)
        self.priors = [list(labels).count(c) / count for c in self.classes]
        of_class = [np.array([f for f, y in zip(features, labels, strict=True) if y == c]) for c in self.classes]
        self.means, centre = [rows.mean(0) for rows in of_class], features.mean(0)
        within = sum(np.outer(f - m, f - m) for rows, m in zip(of_class, self.means, strict=True) for f in rows) / count
        between = sum(p * np.outer(m - centre, m - centre) for p, m in zip(self.priors, self.means, strict=True))
        if shrinkage is None:
            shrinkage = max(math.exp(-5 * np.linalg.eigvalsh(within)[-1]), 1e-10)
        self.shrinkage = shrinkage
        shrunk = (1 - shrinkage) * within + shrinkage * np.eye(features.shape[1])
        self.axes = eigh(between, shrunk)[1][:, ::-1][:, : len(self.classes) - 1]

    def log_probabilities(self, features):
        """A row per image, a column per class: f'UU'μ − ½ μ'UU'μ + log prior, less the log of their summed exp."""
        rows = []
        for f in features:
            scores = []
            for mean, prior in zip(self.means, self.priors, strict=True):
                projected = mean @ self.axes
                scores.append(f @ self.axes @ projected - 0.5 * projected @ projected + math.log(prior))
            top = max(scores)
            log_sum = top + math.log(sum(math.exp(s - top) for s in scores))
            rows.append([s - log_sum for s in scores])
        return np.array(rows)


def sfda(features, labels):
    """The discriminant, hard images moved to the mean of other classes' images, the discriminant again."""
    features = features - features.mean(0)  # the scores are the same for features with an offset, to rounding
    first = Discriminant(features, labels)
    own = [first.classes.index(y) for y in labels]
    confidence = np.exp(first.log_probabilities(features))
    moved = []
    for i, y in enumerate(labels):
        others = np.mean([f for f, other in zip(features, labels, strict=True) if other != y], axis=0)
        moved.append(confidence[i, own[i]] * features[i] + (1 - confidence[i, own[i]]) * others)
    moved = np.array(moved)
    second = Discriminant(moved, labels, first.shrinkage)
    return float(np.mean([row[k] for row, k in zip(second.log_probabilities(moved), own, strict=True)]))


FORMULAS = {
    "h_score": h_score,
    "regularized_h_score": regularized_h_score,
    "logme": logme,
    "transrate": transrate,
    "gbc": gbc,
    "sfda": sfda,
}


def task(count=60, dim=5, classes=3, apart=1.0, offset=0.0, seed=0):
    """Features of Gaussian classes and their labels; every class has two images at least."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.r_[np.arange(2 * classes) % classes, draw.integers(classes, size=count - 2 * classes)])
    return apart * draw.normal(size=(classes, dim))[labels] + 0.7 * draw.normal(size=(count, dim)) + offset, labels


def source_posteriors(count=60, sources=4, seed=0):
    """Probabilities of source classes, rows sum to 1."""
    return np.random.default_rng(seed).dirichlet(np.full(sources, 0.5), size=count)
