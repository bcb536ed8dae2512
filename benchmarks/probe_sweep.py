"""Time of a linear probe at all values of C at once, against one value, and against separate fits of scikit-learn.

    python benchmarks/probe_sweep.py     # about 10 minutes on two cores; --dims 512 for the smaller dimension only

Features: 20,000 rows of 11 Gaussian classes whose standard deviation decreases like 1/√(direction), as in features of networks;
that of the centres is 0.3 of it; a random rotation, then every column standardised, float32. One label in twenty is drawn
at random, the other rows are separable: training accuracy is printed. 50 values of C: λ = logspace(−6, −1), C = 1 / (λ N).

The reference optimum is our float64 solution with a gradient norm of the mean objective below 1e-8, which bounds its gap by
‖gradient‖² / 2λ (printed). At each sampled λ, scikit-learn gets the largest power of ten as `tol` whose gap is at most
1e-4, in float32, where it is faster (in float64 if float32 does not reach that gap); 50 cold fits are extrapolated
from 4, evenly spaced. The warm-started path goes from large to small λ at the smallest of these `tol`; at D = 2048 it is
extrapolated from the 3 values in the middle. The last line is one JSON object: time of the sweep over that of one value (mean of
the same 4), of scikit-learn's 50 fits over the sweep, and our largest gap relative to the optimum.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from ssl_transfer.measures.logistic import Heads, fit_heads

ROWS, CLASSES, GAP = 20_000, 11, 1e-4
PENALTIES = np.logspace(-6, -1, 50)
STRENGTHS = 1 / (PENALTIES * ROWS)
SAMPLE = [0, 16, 33, 49]
MIDDLE = range(24, 27)


def main() -> None:
    """Measure, print a table per dimension, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 2048])
    torch.set_num_threads(2)
    threadpool_limits(2)
    ratios, gaps = {}, []
    for dim in parser.parse_args().dims:
        measured, gap = _measure(dim)
        ratios |= {f"{name}_{dim}": round(ratio, 2) for name, ratio in measured.items()}
        gaps.append(gap)
    print(json.dumps({**ratios, "worst_objective_gap": float(f"{max(gaps):.2g}")}))


def _measure(dim: int) -> tuple[dict[str, float], float]:
    """Ratios of times, and our largest gap, at one dimension."""
    features, labels = _features(dim)
    fit_heads(features[:2000], labels[:2000], STRENGTHS[:2], n_classes=CLASSES)  # libraries start their threads
    sweeps, heads = zip(*(_timed(fit_heads, features, labels, STRENGTHS, None, CLASSES) for _ in range(3)), strict=True)
    one = [_timed(fit_heads, features, labels, STRENGTHS[[i]], None, CLASSES)[0] for i in SAMPLE]
    optimum = _optimum(features, labels)
    ours = _objectives(features, labels, heads[0].weights, heads[0].intercepts)[0] / optimum - 1
    print(f"D = {dim}\n  our sweep of {len(STRENGTHS)}, median of 3 ({min(sweeps):.2f}–{max(sweeps):.2f} s)", end=" ")
    print(f"{statistics.median(sweeps):8.2f} s, worst gap {ours.max():.1e} at λ = {PENALTIES[ours.argmax()]:.1e}")
    print(f"  one setting of ours, mean of {len(SAMPLE)} {statistics.mean(one):8.2f} s", flush=True)
    cold, power = [], 4
    for i in reversed(SAMPLE):  # from large λ, where a large `tol` is enough, to small
        seconds, power = _scikit(features, labels, i, optimum[i], power)
        cold.append(seconds)
    fits = len(STRENGTHS) * statistics.mean(cold)
    print(f"  {len(STRENGTHS)} cold fits of scikit-learn, from {len(SAMPLE)} {fits:8.1f} s", flush=True)
    path, worst = _warm(features, labels, optimum, 10.0**-power, range(50) if dim <= 512 else MIDDLE)
    print(f"  its warm-started path, tol 1e-{power} {path:8.1f} s, worst gap {worst:.1e}", flush=True)
    sweep = statistics.median(sweeps)
    return {"sweep_of_one": sweep / statistics.mean(one), "sklearn_of_sweep": fits / sweep}, float(ours.max())


def _features(dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(0)
    sd = np.arange(1, dim + 1) ** -0.5
    labels = draw.integers(0, CLASSES, ROWS)
    centres = 0.3 * draw.standard_normal((CLASSES, dim))
    rotation, _ = np.linalg.qr(draw.standard_normal((dim, dim)))
    features = ((centres[labels] + draw.standard_normal((ROWS, dim))) * sd) @ rotation
    features = (features - features.mean(0)) / features.std(0)
    labels = np.where(draw.random(ROWS) < 0.05, draw.integers(0, CLASSES, ROWS), labels)
    return torch.from_numpy(features.astype(np.float32)), torch.from_numpy(labels)


def _optimum(features: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Objectives (50,) of a float64 solution to gradient norm 1e-8."""
    seconds, heads = _timed(fit_heads, features.double(), labels, STRENGTHS, None, CLASSES, 1e-16)
    optimum, gradients, accuracy = _objectives(features, labels, heads.weights, heads.intercepts)
    if gradients.max() > 1e-8:
        raise SystemExit(f"the reference's gradient has norm {gradients.max():.1e}; expected at most 1e-8")
    proven = (gradients**2 / (2 * PENALTIES) / optimum).max()
    print(
        f"reference at D = {features.shape[1]}: {seconds:.1f} s, gradient norm at most {gradients.max():.1e}", end=", "
    )
    print(f"proven to {proven:.1e} of the objective; objective {optimum[0]:.1e} to {optimum[-1]:.1e}", end=", ")
    print(f"training accuracy {accuracy[0]:.4f} to {accuracy[-1]:.4f}", flush=True)
    return optimum


def _objectives(
    features, labels, weights, intercepts, penalties=PENALTIES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean loss + λ/2 · ‖weights‖², the norm of its gradient, and training accuracy, in float64, of each head."""
    features, values = features.double(), []
    for weight, intercept, penalty in zip(weights, intercepts, penalties, strict=True):
        logits = features @ weight.T + intercept
        loss = torch.nn.functional.cross_entropy(logits, labels) + penalty / 2 * weight.square().sum()
        errors = (logits.softmax(1) - torch.nn.functional.one_hot(labels, CLASSES)) / len(labels)
        gradient = torch.cat([errors.T @ features + penalty * weight, errors.sum(0)[:, None]], 1)
        values.append((loss, gradient.norm(), (logits.argmax(1) == labels).double().mean()))
    return tuple(np.array(column, float) for column in zip(*values, strict=True))


def _scikit(features, labels, i: int, optimum: float, power: int) -> tuple[float, int]:
    """Seconds of a cold fit at λ number i, and the smallest p for which `tol` = 1e-p gives a gap of at most `GAP`.

    The search begins at p = `power`.
    """
    fits = {}

    def near(power: int, dtype: type) -> bool:
        if power not in fits:
            model = LogisticRegression(C=STRENGTHS[i], tol=10.0**-power, max_iter=100_000)
            seconds, _ = _timed(model.fit, features.numpy().astype(dtype), labels.numpy())
            fits[power] = seconds, int(model.n_iter_[0]), _gap(features, labels, model, i, optimum)
        return fits[power][2] <= GAP

    for dtype in (np.float32, np.float64):
        while not near(power, dtype) and (power - 1 not in fits or fits[power][1] > fits[power - 1][1]):
            power += 1
        while near(power, dtype) and near(power - 1, dtype):
            power -= 1
        if near(power, dtype):
            seconds, steps, gap = fits[power]
            print(f"    scikit-learn at λ = {PENALTIES[i]:.1e}: {dtype.__name__}, tol 1e-{power}", end=", ")
            print(f"{steps} steps, {seconds:.2f} s, gap {gap:.1e}", flush=True)
            return seconds, power
        fits.clear()  # float32 does not reach the gap
    raise SystemExit(f"scikit-learn did not come within {GAP} at λ = {PENALTIES[i]:.1e}")


def _warm(features, labels, optimum, tolerance: float, indices: range) -> tuple[float, float]:
    """Seconds of a warm-started path over all values (extrapolated if `indices` has fewer), and its largest gap."""
    model = LogisticRegression(tol=tolerance, max_iter=100_000, warm_start=True)
    seconds, gaps = [], []
    if len(indices) < len(STRENGTHS):
        model.set_params(C=STRENGTHS[indices[-1] + 1]).fit(features.numpy(), labels.numpy())
    for i in reversed(indices):
        model.C = STRENGTHS[i]
        seconds.append(_timed(model.fit, features.numpy(), labels.numpy())[0])
        gaps.append(_gap(features, labels, model, i, optimum[i]))
    return sum(seconds) * len(STRENGTHS) / len(indices), max(gaps)


def _gap(features, labels, model: LogisticRegression, i: int, optimum: float) -> float:
    weights, intercepts = torch.from_numpy(model.coef_).double(), torch.from_numpy(model.intercept_).double()
    return float(_objectives(features, labels, weights[None], intercepts[None], PENALTIES[[i]])[0][0] / optimum - 1)


def _timed(function, *arguments) -> tuple[float, Heads | LogisticRegression]:
    started = time.perf_counter()
    answer = function(*arguments)
    return time.perf_counter() - started, answer


if __name__ == "__main__":
    main()
