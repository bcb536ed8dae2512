"""Logistic regression with an L2 penalty at many strengths at once, each to a proven gap from its optimum.

All strengths share the features, so one step of all of them is two matrix products. What keeps the steps few:

- L-BFGS (Liu & Nocedal 1989) with an inverse Hessian of its own per strength. It starts from the Kronecker product of the
  mean curvature between classes and the covariance of the features, plus the penalty; one eigendecomposition of the
  covariance inverts that for every strength.
- Optima move smoothly with the logarithm of the strength: a few are solved first, the others start from a polynomial
  through their neighbours.
- The objective is convex, so a line search needs slopes only, and these need no further product with the features.

A softmax for classes, a sigmoid per column for two classes and for multi-label targets. The columns of
the latter are independent problems, and each is solved to its own gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

HISTORY = 10  # steps in the memory of L-BFGS
FIRST_SPACING = 1.0  # decades of strength, at most, between those that are solved first
NEIGHBOURS = 4  # optima that a starting point is interpolated from
COVARIANCE_ROWS = 16  # per feature: so many rows say what the covariance is, near enough to precondition
SLOPE_LEFT = 0.5  # of a direction's slope, in absolute value, at most where a line search ends
LINE_TRIALS = 20
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-18}  # estimated gap, as a share of the objective
NOTHING = 1e-12  # an objective that goes to 0, as of a label that no row has, need not come nearer
ESTIMATED = 1e-6  # gap with which a strength counts as converged, though it may aim at less
PROVEN = 3e-5  # proven gap, as a share of the objective
ROUNDING = 0.1  # most errors of a sum's terms cancel
SINGLE_STEPS = 200  # in float32, after which what has not converged goes on in float64
PATIENCE = 300  # steps without a smaller gap, after which only rounding is left
LOT = 2**26  # logits per array; more strengths are solved one lot after the other


@dataclass(frozen=True)
class Heads:
    """Linear heads, one per strength.

    Attributes:
        weights: float64 (S, K, D); K is 1 for two classes.
        intercepts: float64 (S, K).
        steps: Of L-BFGS, the slowest column's; int (S,).
        converged: Whether every column reached its tolerance and its gap is proven; bool (S,).
    """

    weights: torch.Tensor
    intercepts: torch.Tensor
    steps: torch.Tensor
    converged: torch.Tensor


def fit_heads(
    features: torch.Tensor,
    targets: torch.Tensor,
    strengths: Sequence[float] | np.ndarray,
    sample_weights: torch.Tensor | None = None,
    n_classes: int = 2,
    tolerance: float | None = None,
    max_steps: int = 3000,
) -> Heads:
    """Minimise C · Σ weight · loss + ½ · ‖weights‖² (intercepts are free) for every C, as scikit-learn states it.

    Args:
        features: (N, D), finite. Computed in their precision, float32 or float64; a strength whose gap float32 cannot
            prove goes on in float64.
        targets: Codes in [0, n_classes), int64 (N,), for a softmax; 0 or 1, (N, K), for a sigmoid per column.
        strengths: C > 0, (S,), in any order.
        sample_weights: At least 0, (N,), or (N, K) where columns differ; None: all 1.
        n_classes: Number of classes of the softmax.
        tolerance: Largest estimated gap to the optimum as a share of the objective; None: `TOLERANCE` of the precision.
        max_steps: Most steps per strength.

    Returns:
        Heads in the order of `strengths`.
    """
    different, order = np.unique(np.asarray(strengths, np.float64), return_inverse=True)
    problem = _Problem(features, targets, sample_weights, n_classes)
    single = features.dtype == torch.float32
    tolerance = tolerance or TOLERANCE[features.dtype]
    solved: dict[int, _Solution] = {}
    for chosen in _lots(_levels(np.log10(different)), problem):
        starts = _starts(problem, solved, np.log(different), chosen)
        steps = min(max_steps, SINGLE_STEPS) if single else max_steps
        solved.update(zip(chosen, _minimise(problem, different[chosen], starts, tolerance, steps), strict=True))
    late = [i for i, solution in solved.items() if single and not solution.converged]
    if late:
        problem = _Problem(features.double(), targets, sample_weights, n_classes)
        for chosen in _lots([late], problem):
            starts = torch.stack([solved[i].points.double() for i in chosen])
            solved.update(zip(chosen, _minimise(problem, different[chosen], starts, tolerance, max_steps), strict=True))
    solutions = [solved[i] for i in order.tolist()]
    return Heads(
        torch.stack([solution.weights for solution in solutions]),
        torch.stack([solution.intercepts for solution in solutions]),
        torch.tensor([solution.steps for solution in solutions]),
        torch.tensor([solution.converged for solution in solutions]),
    )


@dataclass(frozen=True)
class _Solution:
    """Solution for one strength. Its columns (G) are independent, the classes (K) of a softmax are not; one of both is 1."""

    points: torch.Tensor  # (G, K, D + 1), for centred and scaled features; the last column is the intercept
    weights: torch.Tensor  # (G · K, D), for the features as they came
    intercepts: torch.Tensor  # (G · K,)
    steps: int
    converged: bool


class _Problem:
    """Centred and scaled features, their principal axes, targets, and the loss of logits.

    B below counts the problems that are solved at once: strengths × columns. `column` (B,) says which column each is of.
    """

    def __init__(self, features, targets, sample_weights, n_classes):
        weights = torch.ones(1, len(features), dtype=torch.float64, device=features.device)
        if sample_weights is not None:
            weights = sample_weights.double().reshape(len(features), -1).T
        self.softmax = targets.ndim == 1
        self.columns, self.classes = (1, n_classes) if self.softmax else (targets.shape[1], 1)
        self.targets = targets if self.softmax else (2 * targets.T - 1).to(features.dtype).contiguous()
        mass = weights.sum(1)
        mass = torch.where(mass > 0, mass, 1)  # a column without known labels gets a head of zeros
        self.mass = mass.expand(self.columns)
        self.share = (weights / mass[:, None]).to(features.dtype).expand(self.columns, -1)
        self.mean = features.mean(0, dtype=torch.float64).to(features.dtype)
        self.inputs = features - self.mean
        std = torch.linalg.vector_norm(self.inputs, dim=0, dtype=torch.float64) / len(features) ** 0.5
        scale = float(std.square().mean().sqrt())
        self.scale = scale if scale > 0 else 1.0
        self.inputs /= self.scale
        self.std = (std / self.scale).to(features.dtype)
        self.axes, self.variances = _principal_axes(self.inputs)

    def penalties(self, strengths):
        """λ (B, 1, 1) where the loss is a mean and features are scaled."""
        strengths = torch.as_tensor(strengths, device=self.mass.device)[:, None]
        return (1 / (strengths * self.mass * self.scale**2)).to(self.inputs.dtype).view(-1, 1, 1)

    def original(self, points):
        """Weights (…, D) and intercepts (…) for the features as they came."""
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
        """Mean losses (B,), and into `out` d mean loss / d logits. Nothing small is a difference of large numbers."""
        share = self.share[column]
        if self.softmax:
            index = self.targets.expand(len(logits), 1, -1)
            torch.softmax(logits, 1, out=out)
            likelihood = out.gather(1, index)
            out.scatter_(1, index, 0)
            others = out.sum(1, keepdim=True)
            out.scatter_(1, index, -others)
            surprise = likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log()
            losses = -torch.where(others < 0.5, torch.log1p(-others), surprise)[:, 0]
        else:
            signs = self.targets[column]
            margins = logits[:, 0] * signs
            losses = torch.nn.functional.softplus(-margins)
            torch.mul(torch.sigmoid(-margins), -signs, out=out[:, 0])
        out *= share[:, None]
        return (losses * share).sum(1)

    def curvature(self, logits, column, work):
        """Mean curvature between classes (B, K, K)."""
        share = self.share[column][:, None]
        if not self.softmax:
            torch.sigmoid(logits, out=work)
            return (work * (1 - work) * share).sum(2, keepdim=True)
        torch.softmax(logits, 1, out=work)
        between = -torch.bmm(work * share, work.transpose(1, 2))
        between.diagonal(dim1=1, dim2=2).zero_()
        return between - torch.diag_embed(between.sum(2))


def _principal_axes(inputs):
    """Axes (D, R) along which centred features vary, and their variances (R,); R is D, or at most N if N is less."""
    count, dim = inputs.shape
    if count < dim:
        wide = inputs.double()
        variances, left = torch.linalg.eigh(wide @ wide.T / count)
        kept = variances > 1e-13 * variances.max().clamp(min=1e-300)
        axes = wide.T @ (left[:, kept] / (variances[kept] * count).sqrt())
        return axes.to(inputs.dtype), variances[kept].to(inputs.dtype)
    some = inputs[:: max(1, count // (COVARIANCE_ROWS * dim))]
    variances, axes = torch.linalg.eigh(some.T @ some / len(some))
    return axes, variances.clamp(min=0)


def _levels(places):
    """Sorted strengths' positions in the order of solution: those `FIRST_SPACING` apart, those between, and so on."""
    last = len(places) - 1
    spacing, stride = (places[-1] - places[0]) / max(last, 1), 1
    while 2 * stride <= last and 2 * stride * spacing <= FIRST_SPACING:
        stride *= 2
    levels = [[i for i in range(last + 1) if i % stride == 0 or i == last]]
    while stride > 1:
        stride //= 2
        levels.append([i for i in range(last) if i % stride == 0 and i % (2 * stride)])
    return levels


def _lots(levels, problem):
    """The levels, in parts that memory holds."""
    size = max(1, LOT // (len(problem.inputs) * problem.columns * problem.classes))
    return [level[start : start + size] for level in levels for start in range(0, len(level), size)]


def _starts(problem, solved, places, chosen):
    """Starting points (S, G, K, D + 1) of strengths `chosen`, from the optima that are solved."""
    solved_positions = np.array(sorted(solved))
    starts = problem.inputs.new_zeros(len(chosen), problem.columns, problem.classes, problem.inputs.shape[1] + 1)
    if len(solved_positions) < 2:
        return starts
    for start, i in zip(starts, chosen, strict=True):
        near = solved_positions[np.argsort(np.abs(solved_positions - i), kind="stable")[:NEIGHBOURS]]
        for j in near:
            others = near[near != j]
            factor = np.prod((places[i] - places[others]) / (places[j] - places[others]))  # Lagrange's polynomial
            start += float(factor) * solved[int(j)].points
    return starts


def _minimise(problem, strengths, starts, tolerance, max_steps):
    """Solutions of some strengths, all columns at once."""
    descent = _Descent(problem, strengths, starts.flatten(0, 1))
    best, count = descent.points.clone(), len(descent.points)
    least, lowest = best.new_full((2, count), torch.inf)
    alive = torch.arange(count, device=best.device)
    steps, newest, converged = (
        torch.zeros_like(alive),
        torch.zeros_like(alive),
        torch.zeros_like(alive, dtype=torch.bool),
    )
    for step in range(max_steps + 1):
        estimated, proven = descent.gaps()
        gap = torch.maximum(estimated / tolerance, proven / PROVEN)
        better = gap < least[alive]
        lower = descent.objective < lowest[alive] * (1 - 1e-9)
        lowest[alive] = torch.where(lower, descent.objective, lowest[alive])
        newest[alive] = torch.where(better | lower, step, newest[alive])
        rows = alive[better]
        best[rows], least[rows], steps[rows] = descent.points[better], gap[better], step
        converged[rows] = ((estimated <= ESTIMATED) & (proven <= PROVEN))[better]
        goes_on = (gap > (1 if step else 0.1)) & (step - newest[alive] <= PATIENCE)  # NaN stops, too
        if step == max_steps or not bool(goes_on.any()):
            break
        if not bool(goes_on.all()):
            descent.keep(goes_on)
            alive = alive[goes_on]
        descent.advance()
    shape = (len(strengths), problem.columns)
    best, steps = best.view(*shape, *best.shape[1:]), steps.view(shape).amax(1)
    weights, intercepts = problem.original(best.flatten(1, 2))
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
        # Allocated once: fresh pages cost as much as the arithmetic on them.
        self.logits, self.along, self.work, self.residuals = points.new_empty(
            4, count, problem.classes, len(problem.inputs)
        ).unbind()
        problem.logits(points, self.logits)
        losses = problem.residuals(self.logits, self.column, self.residuals)
        objective = losses + 0.5 * (self.penalty * points[..., :-1].square()).sum((1, 2))
        useless = ~(objective < np.log(max(problem.classes, 2)))  # no better than zeros
        self.points = torch.where(useless[:, None, None], 0, points)
        self.logits[useless] = 0
        self.losses = problem.residuals(self.logits, self.column, self.residuals)
        self.gradient = problem.gradient(self.residuals, self.points, self.penalty)
        self.moves, self.turns = [], []

    def gaps(self):
        """Estimated and proven gaps (B,) to the optimum, as shares of the objective; chooses the next direction."""
        curvature = self.problem.curvature(self.logits, self.column, self.work)
        self.direction = _direction(
            self.gradient, self.moves, self.turns, _inverse_hessian(self.problem, curvature, self.penalty)
        )
        self.slope = _dot(self.gradient, self.direction)
        self.objective = self.losses + 0.5 * (self.penalty * self.points[..., :-1].square()).sum((1, 2))
        least = torch.finfo(self.objective.dtype).tiny
        return -0.5 * self.slope / (self.objective + NOTHING), self._proven_gap() / self.objective.clamp(min=least)

    def _proven_gap(self):
        """Upper bounds (B,) of the gap to the optimum, intercepts apart.

        The objective is λ-strongly convex in the weights, so the gap is at most ‖gradient‖² / 2λ. To this comes what the
        gradient and the loss may be wrong by because residuals and features are rounded.
        """
        unit = torch.finfo(self.points.dtype).eps / 2
        weights = self.points[..., :-1]
        residual = (2 * self.losses).sqrt()  # their mean square is at most twice the mean loss
        rounding = ROUNDING * unit * residual * weights.shape[-1] ** 0.5
        slack = unit * (weights * self.problem.std).square().sum((1, 2)).sqrt() * self.losses
        length = self.gradient[..., :-1].square().sum((1, 2)).sqrt()
        return (length + rounding).square() / (2 * self.penalty[:, 0, 0]) + slack

    def keep(self, which):
        """Keep some of the problems, given by a mask (B,), and drop the others."""
        rows = which.nonzero()[:, 0]
        torch.index_select(self.logits, 0, rows, out=self.along[: len(rows)])
        self.logits, self.along = self.along[: len(rows)], self.logits[: len(rows)]
        self.work, self.residuals = self.work[: len(rows)], self.residuals[: len(rows)]
        for name in ("points", "column", "penalty", "gradient", "direction", "slope", "losses"):
            setattr(self, name, getattr(self, name)[rows])
        self.moves, self.turns = [move[rows] for move in self.moves], [turn[rows] for turn in self.turns]

    def advance(self):
        """Take one step."""
        self.problem.logits(self.direction, self.along)
        rate = self._search()
        self.logits.addcmul_(self.along, rate)
        move, before = rate * self.direction, self.gradient
        self.points = self.points + move
        self.gradient = self.problem.gradient(self.residuals, self.points, self.penalty)
        self.moves = [*self.moves, move][-HISTORY:]
        self.turns = [*self.turns, self.gradient - before][-HISTORY:]

    def _search(self):
        """Step lengths (B, 1, 1) where little slope is left, by secants between brackets; losses and residuals there."""
        weights, direction = self.points[..., :-1], self.direction[..., :-1]
        linear = (self.penalty * weights * direction).sum((1, 2))
        square = (self.penalty * direction.square()).sum((1, 2))
        start, rate, before = self.slope, torch.ones_like(self.slope), self.losses
        noise = 16 * torch.finfo(before.dtype).eps * before
        low, low_slope = torch.zeros_like(rate), start
        high, high_slope = torch.full_like(rate, torch.inf), torch.full_like(rate, torch.inf)
        for _ in range(LINE_TRIALS):
            torch.addcmul(self.logits, self.along, rate[:, None, None], out=self.work)
            self.losses = self.problem.residuals(self.work, self.column, self.residuals)
            slope = torch.mul(self.residuals, self.along, out=self.work).sum((1, 2)) + linear + rate * square
            fell = self.losses - before + rate * (linear + 0.5 * rate * square) <= noise
            good = fell & ((slope.abs() <= SLOPE_LEFT * start.abs()) | ((slope < 0) & (rate < 1)))
            tried = rate
            if bool(good.all()):
                break
            falls = slope < 0
            low, low_slope = torch.where(falls, rate, low), torch.where(falls, slope, low_slope)
            high, high_slope = torch.where(falls, high, rate), torch.where(falls, high_slope, slope)
            margin = 0.05 * (high - low)
            inside = (low - (high - low) * low_slope / (high_slope - low_slope)).clamp(low + margin, high - margin)
            beyond = rate * (start / (start - slope)).clamp(1.5, 8)
            rate = torch.where(good, rate, torch.where(torch.isfinite(high), inside, beyond))
        return tried[:, None, None]


def _inverse_hessian(problem, curvature, penalty):
    """A function that multiplies (B, K, D + 1) by the inverse of curvature ⊗ covariance + penalty."""
    strength, classes = torch.linalg.eigh(curvature.nan_to_num())
    scale = strength.clamp(min=0)[..., None] * problem.variances + penalty
    free = strength.clamp(min=1e-30)
    if problem.softmax:
        free[:, 0] = torch.inf  # intercepts that are equal for all classes say nothing

    def invert(points):
        turned = classes.transpose(1, 2) @ points
        weights = (turned[..., :-1] @ problem.axes / scale) @ problem.axes.T
        return classes @ torch.cat([weights, (turned[..., -1] / free)[..., None]], 2)

    return invert


def _direction(gradient, moves, turns, invert):
    """Minus the inverse Hessian times the gradient, by the two-loop recursion."""
    products = [_dot(move, turn) for move, turn in zip(moves, turns, strict=True)]
    pairs = list(zip(moves, turns, products, strict=True))
    direction, factors = gradient.clone(), []
    for move, turn, product in reversed(pairs):
        factors.append(torch.where(product > 0, _dot(move, direction) / product, 0))
        direction -= factors[-1][:, None, None] * turn
    direction = invert(direction)
    if pairs:
        _, turn, product = pairs[-1]
        ratio = torch.where(product > 0, product / _dot(turn, invert(turn)), 1)
        direction *= ratio[:, None, None]
    for (move, turn, product), factor in zip(pairs, reversed(factors), strict=True):
        back = torch.where(product > 0, _dot(turn, direction) / product, 0)
        direction += (factor - back)[:, None, None] * move
    return direction.neg_()


def _dot(first, second):
    return (first * second).sum((1, 2))
