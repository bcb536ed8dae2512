"""Time of five transferability scores together, against a lower bound and against the published algorithms.

    python benchmarks/transferability.py     # about 4 minutes on two cores; --rounds 1 for a trial

N = 20,000 images, D = 2,048 features, C = 100 classes, 1,000 source classes. Features: a Gaussian of random covariance around
class means, with negative values set to 0 as by a ReLU, float32; source probabilities: a softmax of random logits per class.

`ours` is `transferability.scores` for NCE, LEEP, H, regularised H and LogME, with all checks, from float32 features. `floor` is
the part that no such computation can avoid: the Gram matrix of the float64 features and its eigendecomposition.
`reference` is a direct transcription of the published algorithms, with numpy's and scikit-learn's routines: `np.cov` and
`np.linalg.pinv` for H, `LedoitWolf` for its regularised form, and for LogME a singular value decomposition of the Gram matrix and
a fixed-point iteration per class, which is run to convergence (1e-9) so that values can be compared.

The three take turns; the last line is one JSON object of ratios of medians: ours over floor, reference over ours, and the
largest relative difference between our scores and the reference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
from sklearn.covariance import LedoitWolf
from threadpoolctl import threadpool_limits

from ssl_transfer.measures.transferability import scores

ROWS, DIM, CLASSES, SOURCE_CLASSES = 20_000, 2048, 100, 1000
NAMES = ("nce", "leep", "h_score", "regularized_h_score", "logme")


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    threadpool_limits(2)
    features, labels, probabilities = _images()
    wide = features.astype(np.float64)
    ways = {
        "floor": lambda: np.linalg.eigh(wide.T @ wide),
        "ours": lambda: scores(features, labels, probabilities, names=NAMES),
        "reference": lambda: _reference(features, labels, probabilities),
    }
    ways["ours"]()  # libraries start their threads
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    answers = {}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            answers[name] = way()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(f"{name:10} {medians[name]:7.2f} s  ({min(times):.2f}–{max(times):.2f})", flush=True)
    errors = {name: abs(answers["ours"][name] / answers["reference"][name] - 1) for name in NAMES}
    for name, error in errors.items():
        print(f"{name:20} {answers['ours'][name]:12.8f}  relative difference {error:.1e}")
    print(
        json.dumps(
            {
                "of_floor": round(medians["ours"] / medians["floor"], 3),
                "of_reference": round(medians["reference"] / medians["ours"], 2),
                "relative_error": float(f"{max(errors.values()):.1e}"),
            }
        )
    )


def _images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, CLASSES, ROWS)
    mixing = draw.standard_normal((DIM, DIM), np.float32) * np.arange(1, DIM + 1, dtype=np.float32)[:, None] ** -0.5
    features = draw.standard_normal((ROWS, DIM), np.float32) @ mixing
    features += 0.3 * draw.standard_normal((CLASSES, DIM), np.float32)[labels]
    logits = 2 * draw.standard_normal((CLASSES, SOURCE_CLASSES))[labels] + draw.standard_normal((ROWS, SOURCE_CLASSES))
    probabilities = np.exp(logits)
    return features.clip(min=0), labels, probabilities / probabilities.sum(1, keepdims=True)


def _reference(features: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    features = features.astype(np.float64)
    between = np.zeros_like(features)
    for c in range(CLASSES):
        between[labels == c] = features[labels == c].mean(0)
    between = np.cov(between, rowvar=False)
    shrunk = LedoitWolf().fit(features)
    return {
        "nce": _nce(probabilities.argmax(1), labels),
        "leep": _leep(probabilities, labels),
        "h_score": np.trace(np.linalg.pinv(np.cov(features, rowvar=False), rcond=1e-15) @ between),
        "regularized_h_score": (1 - shrunk.shrinkage_) * np.trace(np.linalg.pinv(shrunk.covariance_) @ between),
        "logme": _logme(features, labels),
    }


def _nce(source: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for z in np.unique(source):
        for y in np.unique(labels):
            joint = np.mean((source == z) & (labels == y))
            if joint > 0:
                total += joint * np.log(joint / np.mean(source == z))
    return total


def _leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    joint = np.zeros((CLASSES, probabilities.shape[1]))
    for row, label in zip(probabilities, labels, strict=True):
        joint[label] += row / len(labels)
    given = joint / joint.sum(0)
    return float(np.mean([np.log(given[label] @ row) for row, label in zip(probabilities, labels, strict=True)]))


def _logme(features: np.ndarray, labels: np.ndarray) -> float:
    rows = len(features)
    _, squares, axes = np.linalg.svd(features.T @ features)
    evidences = []
    for c in range(CLASSES):
        target = (labels == c).astype(float)
        along = axes @ (features.T @ target)
        alpha = beta = ratio = 1.0
        for _ in range(100):
            weights = axes.T @ (beta * along / (alpha + beta * squares))
            effective = (beta * squares / (alpha + beta * squares)).sum()
            misfit = np.square(features @ weights - target).sum()
            alpha, beta = effective / np.square(weights).sum(), (rows - effective) / misfit
            if abs(alpha / beta - ratio) < 1e-9 * ratio:
                break
            ratio = alpha / beta
        weights = axes.T @ (beta * along / (alpha + beta * squares))
        misfit = np.square(features @ weights - target).sum()
        evidences.append(
            0.5 * (features.shape[1] * np.log(alpha) + rows * np.log(beta / (2 * np.pi)))
            - 0.5 * (beta * misfit + alpha * np.square(weights).sum() + np.log(alpha + beta * squares).sum())
        )
    return float(np.mean(evidences) / rows)


if __name__ == "__main__":
    main()
