"""L2-regularised logistic regression at many strengths at once, each solved to a proven gap from its optimum.

Few rows are solved one strength after the other (see `logistic_path`). Otherwise all strengths share the features, so one
step of all of them is two matrix products. Three things keep the number of steps small:

- L-BFGS (Liu & Nocedal 1989) with an initial inverse Hessian per strength: the inverse of the Kronecker product of the mean
  curvature between classes and the covariance of the features, plus the penalty. One eigendecomposition of the covariance
  serves all strengths.
- The optimum is a smooth function of the logarithm of the strength: a few strengths are solved first, and the others start
  from a polynomial through the solutions at neighbouring strengths.
- The objective is convex, so a line search needs slopes only, and slopes need no further product with the features.

The loss is a softmax cross-entropy over classes, or a sigmoid cross-entropy per column for two classes and for multi-label
targets. Columns are independent problems, and each is solved to its own gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from ssl_transfer.measures.lbfgs import direction_of_step, inner
from ssl_transfer.measures.logistic_path import OBJECTIVE_FLOOR, PROVEN_GAP, Axes, fit_path, one_thread
from ssl_transfer.numerics import numerics

HISTORY = 10  # past steps that L-BFGS remembers
FIRST_SPACING = 1.0  # largest distance, in decades, between the strengths that are solved first
INTERPOLATION_POINTS = 4  # solved strengths that a starting point is interpolated from
COVARIANCE_ROWS = 16  # rows per feature that the covariance is estimated from, enough for a preconditioner
REMAINING_SLOPE = 0.5  # a line search ends where the slope is at most this share of its initial size
LINE_SEARCH_TRIALS = 20
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-18}  # estimated gap, as a share of the objective
ESTIMATED_GAP = 1e-6  # a strength has converged at this estimated gap, even if `tolerance` is smaller
ROUNDING_SHARE = 0.1  # of the worst-case rounding error of a sum, since most errors of its terms cancel
FLOAT32_STEPS = 200  # after which strengths that have not converged continue in float64
PATIENCE = 300  # steps without progress, after which only rounding errors are left
LOGITS_AT_ONCE = 2**26  # per array; more strengths are solved in several batches
FEW_FEATURES = 2**21  # numbers in all rows of a problem that is solved one strength after the other,
FEW_ROWS = 1024  # and its rows or its features, whichever is less


@dataclass(frozen=True)
class Heads:
    """Linear heads, one per strength.

    Attributes:
        weights: float64 (S, K, D); K is 1 for two classes.
        intercepts: float64 (S, K).
        steps: Number of L-BFGS steps until the slowest column converged; int (S,).
        converged: Whether the estimated and the proven gap of every column are small enough; bool (S,).
    """

    weights: torch.Tensor
    intercepts: torch.Tensor
    steps: torch.Tensor
    converged: torch.Tensor


@numerics()
def fit_heads(
    features: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float] | np.ndarray,
    sample_weights: torch.Tensor | None = None,
    n_classes: int = 2,
    tolerance: float | None = None,
    max_steps: int = 3000,
) -> Heads:
    """Minimise C · Σ sample_weight · loss + ½ · ‖weights‖² for every C. Intercepts are not penalised, as in scikit-learn.

    Args:
        features: Finite values, (N, D). The fit is computed in their precision, float32 or float64; strengths that do not
            converge in float32 continue in float64.
        targets: Class codes in [0, n_classes), int64 (N,), for a softmax; 0 or 1, (N, K), for a sigmoid per column.
        strengths: C > 0, (S,), in any order.
        sample_weights: Weights ≥ 0 of the rows, (N,), or (N, K) if they differ between columns; None: all 1.
        n_classes: Number of classes of the softmax.
        tolerance: Largest estimated gap to the optimum as a share of the objective; None: `TOLERANCE` of the precision.
        max_steps: Most steps per strength.

    Returns:
        Heads in the order of `strengths`.
    """
    distinct, inverse = np.unique(np.asarray(strengths, np.float64), return_inverse=True)
    tolerance = tolerance or TOLERANCE[features.dtype]
    few = features.device.type == "cpu" and features.numel() <= FEW_FEATURES and min(features.shape) <= FEW_ROWS
    solve = _one_by_one if few else _together
    with one_thread() if few else nullcontext():
        solved = solve(features, targets, distinct, sample_weights, n_classes, tolerance, max_steps)
    again = few or features.dtype == torch.float32
    unconverged = [i for i, solution in solved.items() if again and not solution.converged]
    if unconverged:
        problem = _Problem(features.double(), targets, sample_weights, n_classes)
        for batch in _batches([unconverged], problem):
            starts = torch.stack([solved[i].points.double() for i in batch])
            solved.update(zip(batch, _minimise(problem, distinct[batch], starts, tolerance, max_steps), strict=True))
    solutions = [solved[i] for i in inverse.tolist()]
    return Heads(
        torch.stack([solution.weights for solution in solutions]),
        torch.stack([solution.intercepts for solution in solutions]),
        torch.tensor([solution.steps for solution in solutions]),
        torch.tensor([solution.converged for solution in solutions]),
    )


def _together(features, targets, strengths, sample_weights, n_classes, tolerance, max_steps):
    """Solutions of all strengths, many at once."""
    problem, solved = _Problem(features, targets, sample_weights, n_classes), {}
    steps = min(max_steps, FLOAT32_STEPS) if features.dtype == torch.float32 else max_steps
    for batch in _batches(_levels(np.log10(strengths)), problem):
        starts = _starting_points(problem, solved, np.log(strengths), batch)
        solved.update(zip(batch, _minimise(problem, strengths[batch], starts, tolerance, steps), strict=True))
    return solved


def _one_by_one(features, targets, strengths, sample_weights, n_classes, tolerance, max_steps):
    """Solutions of all strengths for few rows, column by column."""
    axes, labels = Axes(features.double().numpy()), targets.numpy().reshape(len(targets), -1).T
    weights = np.ones(labels.shape)
    if sample_weights is not None:
        weights = np.broadcast_to(sample_weights.double().numpy().reshape(len(targets), -1).T, labels.shape)
    classes, paths = n_classes if targets.ndim == 1 else 1, []
    for column, of_rows in zip(labels.astype(np.int64), weights, strict=True):
        mass = float(of_rows.sum()) or 1.0
        penalties = 1 / (strengths * mass * axes.scale**2)
        paths.append(fit_path(axes, column, classes, np.asarray(of_rows / mass), penalties, tolerance, max_steps))
    solved = {}
    for i, heads in enumerate(zip(*paths, strict=True)):
        weights, intercepts = (
            torch.from_numpy(np.concatenate([getattr(head, name) for head in heads]))
            for name in ("weights", "intercepts")
        )
        shift = intercepts + weights @ torch.from_numpy(axes.mean)
        points = torch.cat([weights * axes.scale, shift[:, None]], 1).view(len(heads), classes, -1)
        proven = all(head.gap <= PROVEN_GAP for head in heads)
        solved[i] = _Solution(points, weights, intercepts, max(head.steps for head in heads), proven)
    return solved


@dataclass(frozen=True)
class _Solution:
    """Solution at one strength: G independent columns of K jointly solved classes; G or K is 1."""

    points: torch.Tensor  # (G, K, D + 1), for centred and scaled features; the intercept is last
    weights: torch.Tensor  # (G · K, D), for the original features
    intercepts: torch.Tensor  # (G · K,)
    steps: int
    converged: bool


class _Problem:
    """Centred and scaled features, their principal axes, targets, and the loss.

    B is the number of problems that are solved at once: strengths × columns. `column` (B,) is the column of each problem.
    """

    def __init__(self, features, targets, sample_weights, n_classes):
        weights = torch.ones(1, len(features), dtype=torch.float64, device=features.device)
        if sample_weights is not None:
            weights = sample_weights.double().reshape(len(features), -1).T
        self.softmax = targets.ndim == 1
        self.columns, self.classes = (1, n_classes) if self.softmax else (targets.shape[1], 1)
        self.targets = targets if self.softmax else (2 * targets.T - 1).to(features.dtype).contiguous()
        total_weight = weights.sum(1)
        # A column without known labels gets a head of zeros.
        total_weight = torch.where(total_weight > 0, total_weight, 1)
        self.total_weight = total_weight.expand(self.columns)
        self.row_weights = (weights / total_weight[:, None]).to(features.dtype).expand(self.columns, -1)
        self.mean = features.mean(0, dtype=torch.float64).to(features.dtype)
        self.inputs = features - self.mean
        std = torch.linalg.vector_norm(self.inputs, dim=0, dtype=torch.float64) / len(features) ** 0.5
        scale = float(std.square().mean().sqrt())
        self.scale = scale if scale > 0 else 1.0
        self.inputs /= self.scale
        self.scaled_std = (std / self.scale).to(features.dtype)
        self.axes, self.axis_variances = _principal_axes(self.inputs)

    def penalties(self, strengths):
        """λ (B, 1, 1): the penalty 1 / C, restated for a mean loss and scaled features."""
        strengths = torch.as_tensor(strengths, device=self.total_weight.device)[:, None]
        return (1 / (strengths * self.total_weight * self.scale**2)).to(self.inputs.dtype).view(-1, 1, 1)

    def unscaled(self, points):
        """Weights (…, D) and intercepts (…) for the original features."""
        weights = points[..., :-1].double() / self.scale
        return weights, points[..., -1].double() - weights @ self.mean.double()

    def logits(self, points, out):
        """Logits (B, K, N) at points (B, K, D + 1)."""
        flat = points.flatten(0, 1)
        torch.addmm(flat[:, -1:], flat[:, :-1], self.inputs.T, out=out.flatten(0, 1))

    def gradient(self, residuals, points, penalty):
        """Gradient of the objective, (B, K, D + 1)."""
        flat = residuals.flatten(0, 1)
        gradient = torch.cat([flat @ self.inputs, flat.sum(1, keepdim=True)], 1).view(points.shape)
        gradient[..., :-1] += penalty * points[..., :-1]
        return gradient

    def residuals(self, logits, column, out):
        """Return the mean losses (B,), and write d mean loss / d logits into `out`.

        Small values are not computed as differences of large ones, so they keep their relative precision.
        """
        row_weights = self.row_weights[column]
        if self.softmax:
            index = self.targets.expand(len(logits), 1, -1)
            torch.softmax(logits, 1, out=out)
            likelihood = out.gather(1, index)
            out.scatter_(1, index, 0)
            other_classes = out.sum(1, keepdim=True)
            out.scatter_(1, index, -other_classes)
            log_likelihood = likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log()
            losses = -torch.where(other_classes < 0.5, torch.log1p(-other_classes), log_likelihood)[:, 0]
        else:
            signs = self.targets[column]
            margins = logits[:, 0] * signs
            losses = torch.nn.functional.softplus(-margins)
            torch.mul(torch.sigmoid(-margins), -signs, out=out[:, 0])
        out *= row_weights[:, None]
        return (losses * row_weights).sum(1)

    def curvature(self, logits, column, work):
        """Mean curvature between classes (B, K, K)."""
        row_weights = self.row_weights[column][:, None]
        if not self.softmax:
            torch.sigmoid(logits, out=work)
            return (work * (1 - work) * row_weights).sum(2, keepdim=True)
        torch.softmax(logits, 1, out=work)
        curvature_between = -torch.bmm(work * row_weights, work.transpose(1, 2))
        curvature_between.diagonal(dim1=1, dim2=2).zero_()
        return curvature_between - torch.diag_embed(curvature_between.sum(2))


def _principal_axes(inputs):
    """Principal axes (D, R) of centred features, and variances along them (R,); R is D, or at most N if N < D."""
    count, dim = inputs.shape
    if count < dim:
        wide = inputs.double()
        variances, left = torch.linalg.eigh(wide @ wide.T / count)
        kept = variances > 1e-13 * variances.max().clamp(min=1e-300)
        axes = wide.T @ (left[:, kept] / (variances[kept] * count).sqrt())
        return axes.to(inputs.dtype), variances[kept].to(inputs.dtype)
    sampled = inputs[:: max(1, count // (COVARIANCE_ROWS * dim))]
    variances, axes = torch.linalg.eigh(sampled.T @ sampled / len(sampled))
    return axes, variances.clamp(min=0)


def _levels(log_strengths):
    """Positions of the sorted strengths in the order of solution: a coarse grid first, then the midpoints of each grid."""
    last = len(log_strengths) - 1
    spacing, stride = (log_strengths[-1] - log_strengths[0]) / max(last, 1), 1
    while 2 * stride <= last and 2 * stride * spacing <= FIRST_SPACING:
        stride *= 2
    levels = [[i for i in range(last + 1) if i % stride == 0 or i == last]]
    while stride > 1:
        stride //= 2
        levels.append([i for i in range(last) if i % stride == 0 and i % (2 * stride)])
    return levels


def _batches(levels, problem):
    """The levels, cut into batches of at most `LOGITS_AT_ONCE` logits."""
    size = max(1, LOGITS_AT_ONCE // (len(problem.inputs) * problem.columns * problem.classes))
    return [level[start : start + size] for level in levels for start in range(0, len(level), size)]


def _starting_points(problem, solved, log_strengths, batch):
    """Starting points (S, G, K, D + 1) of the strengths of a batch, interpolated from solved ones; zeros without two of them."""
    solved_positions = np.array(sorted(solved))
    starts = problem.inputs.new_zeros(len(batch), problem.columns, problem.classes, problem.inputs.shape[1] + 1)
    if len(solved_positions) < 2:
        return starts
    for start, i in zip(starts, batch, strict=True):
        nearest = solved_positions[np.argsort(np.abs(solved_positions - i), kind="stable")[:INTERPOLATION_POINTS]]
        for j in nearest:
            other_points = nearest[nearest != j]
            distances = log_strengths[[i, j]][:, None] - log_strengths[other_points]
            factor = np.prod(distances[0] / distances[1])  # Lagrange polynomial
            start += float(factor) * solved[int(j)].points
    return starts


def _minimise(problem, strengths, starts, tolerance, max_steps):
    """Solutions of the given strengths, all columns at once."""
    descent = _Descent(problem, strengths, starts.flatten(0, 1))
    best, count = descent.points.clone(), len(descent.points)
    smallest_gap, lowest_objective = best.new_full((2, count), torch.inf)
    indices = torch.arange(count, device=best.device)
    steps, last_progress, converged = (
        torch.zeros_like(indices),
        torch.zeros_like(indices),
        torch.zeros_like(indices, dtype=torch.bool),
    )
    for step in range(max_steps + 1):
        estimated, proven = descent.gaps()
        gap = torch.maximum(estimated / tolerance, proven / PROVEN_GAP)
        better = gap < smallest_gap[indices]
        lower = descent.objective < lowest_objective[indices] * (1 - 1e-9)
        lowest_objective[indices] = torch.where(lower, descent.objective, lowest_objective[indices])
        last_progress[indices] = torch.where(better | lower, step, last_progress[indices])
        improved = indices[better]
        best[improved], smallest_gap[improved], steps[improved] = descent.points[better], gap[better], step
        converged[improved] = ((estimated <= ESTIMATED_GAP) & (proven <= PROVEN_GAP))[better]
        unfinished = (gap > (1 if step else 0.1)) & (step - last_progress[indices] <= PATIENCE)  # NaN ends it, too
        if step == max_steps or not bool(unfinished.any()):
            break
        if not bool(unfinished.all()):
            descent.keep(unfinished)
            indices = indices[unfinished]
        descent.advance()
    shape = (len(strengths), problem.columns)
    best, steps = best.view(*shape, *best.shape[1:]), steps.view(shape).amax(1)
    weights, intercepts = problem.unscaled(best.flatten(1, 2))
    return [
        _Solution(*each)
        for each in zip(best, weights, intercepts, steps.tolist(), converged.view(shape).all(1).tolist(), strict=True)
    ]


class _Descent:
    """L-BFGS of B independent problems."""

    def __init__(self, problem, strengths, points):
        self.problem, count = problem, len(points)
        self.column = torch.arange(problem.columns, device=points.device).repeat(len(strengths))
        self.penalty = problem.penalties(strengths)
        # Allocated once: touching new memory costs as much as the arithmetic on it.
        self.logits, self.direction_logits, self.work, self.residuals = points.new_empty(
            4, count, problem.classes, len(problem.inputs)
        ).unbind()
        problem.logits(points, self.logits)
        losses = problem.residuals(self.logits, self.column, self.residuals)
        objective = losses + 0.5 * (self.penalty * points[..., :-1].square()).sum((1, 2))
        poor = ~(objective < np.log(max(problem.classes, 2)))  # no better than zeros
        self.points = torch.where(poor[:, None, None], 0, points)
        self.logits[poor] = 0
        self.losses = problem.residuals(self.logits, self.column, self.residuals)
        self.gradient = problem.gradient(self.residuals, self.points, self.penalty)
        self.point_changes, self.gradient_changes = [], []

    def gaps(self):
        """Compute the next direction; return estimated and proven gaps (B,) to the optimum, as shares of the objective."""
        curvature = self.problem.curvature(self.logits, self.column, self.work)
        self.direction = direction_of_step(
            self.gradient,
            self.point_changes,
            self.gradient_changes,
            _inverse_hessian(self.problem, curvature, self.penalty),
        )
        self.slope = inner(self.gradient, self.direction)
        self.objective = self.losses + 0.5 * (self.penalty * self.points[..., :-1].square()).sum((1, 2))
        estimated = -0.5 * self.slope / (self.objective + OBJECTIVE_FLOOR)
        return estimated, self._proven_gap() / self.objective.clamp(min=torch.finfo(self.objective.dtype).tiny)

    def _proven_gap(self):
        """Upper bounds (B,) of the gap to the optimum at the present intercepts.

        The objective is λ-strongly convex in the weights, so the gap is at most ‖gradient‖² / 2λ. Bounds of the rounding
        errors of the gradient and of the loss are added.
        """
        unit_roundoff = torch.finfo(self.points.dtype).eps / 2
        weights = self.points[..., :-1]
        residual = (2 * self.losses).sqrt()  # their mean square is at most twice the mean loss
        rounding = ROUNDING_SHARE * unit_roundoff * residual * weights.shape[-1] ** 0.5
        slack = unit_roundoff * (weights * self.problem.scaled_std).square().sum((1, 2)).sqrt() * self.losses
        length = self.gradient[..., :-1].square().sum((1, 2)).sqrt()
        return (length + rounding).square() / (2 * self.penalty[:, 0, 0]) + slack

    def keep(self, mask):
        """Keep the problems of a mask (B,) and drop the others."""
        rows = mask.nonzero()[:, 0]
        torch.index_select(self.logits, 0, rows, out=self.direction_logits[: len(rows)])
        self.logits, self.direction_logits = self.direction_logits[: len(rows)], self.logits[: len(rows)]
        self.work, self.residuals = self.work[: len(rows)], self.residuals[: len(rows)]
        for name in ("points", "column", "penalty", "gradient", "direction", "slope", "losses"):
            setattr(self, name, getattr(self, name)[rows])
        self.point_changes = [change[rows] for change in self.point_changes]
        self.gradient_changes = [change[rows] for change in self.gradient_changes]

    def advance(self):
        """Take one step."""
        self.problem.logits(self.direction, self.direction_logits)
        rate = self._search()
        self.logits.addcmul_(self.direction_logits, rate)
        point_change, old_gradient = rate * self.direction, self.gradient
        self.points = self.points + point_change
        self.gradient = self.problem.gradient(self.residuals, self.points, self.penalty)
        self.point_changes = [*self.point_changes, point_change][-HISTORY:]
        self.gradient_changes = [*self.gradient_changes, self.gradient - old_gradient][-HISTORY:]

    def _search(self):
        """Find step lengths (B, 1, 1) at which the slope is small, by bracketed secants; set losses and residuals there."""
        weights, direction = self.points[..., :-1], self.direction[..., :-1]
        linear = (self.penalty * weights * direction).sum((1, 2))
        square = (self.penalty * direction.square()).sum((1, 2))
        initial_slope, rate, initial_losses = self.slope, torch.ones_like(self.slope), self.losses
        noise = 16 * torch.finfo(initial_losses.dtype).eps * initial_losses
        low, low_slope = torch.zeros_like(rate), initial_slope
        high, high_slope = torch.full_like(rate, torch.inf), torch.full_like(rate, torch.inf)
        for _ in range(LINE_SEARCH_TRIALS):
            torch.addcmul(self.logits, self.direction_logits, rate[:, None, None], out=self.work)
            self.losses = self.problem.residuals(self.work, self.column, self.residuals)
            slope = torch.mul(self.residuals, self.direction_logits, out=self.work).sum((1, 2)) + linear + rate * square
            decreased = self.losses - initial_losses + rate * (linear + 0.5 * rate * square) <= noise
            accepted = decreased & ((slope.abs() <= REMAINING_SLOPE * initial_slope.abs()) | ((slope < 0) & (rate < 1)))
            result = rate
            if bool(accepted.all()):
                break
            falls = slope < 0
            low, low_slope = torch.where(falls, rate, low), torch.where(falls, slope, low_slope)
            high, high_slope = torch.where(falls, high, rate), torch.where(falls, high_slope, slope)
            margin = 0.05 * (high - low)
            interpolated = (low - (high - low) * low_slope / (high_slope - low_slope)).clamp(
                low + margin, high - margin
            )
            extrapolated = rate * (initial_slope / (initial_slope - slope)).clamp(1.5, 8)
            rate = torch.where(accepted, rate, torch.where(torch.isfinite(high), interpolated, extrapolated))
        return result[:, None, None]


def _inverse_hessian(problem, curvature, penalty):
    """A function that multiplies (B, K, D + 1) by the inverse of curvature ⊗ covariance + penalty."""
    curvatures, classes = torch.linalg.eigh(curvature.nan_to_num())
    scale = curvatures.clamp(min=0)[..., None] * problem.axis_variances + penalty
    intercept_curvatures = curvatures.clamp(min=1e-30)
    if problem.softmax:
        intercept_curvatures[:, 0] = torch.inf  # adding a constant to all intercepts changes nothing

    def invert(points):
        rotated = classes.transpose(1, 2) @ points
        weights = (rotated[..., :-1] @ problem.axes / scale) @ problem.axes.T
        return classes @ torch.cat([weights, (rotated[..., -1] / intercept_curvatures)[..., None]], 2)

    return invert
