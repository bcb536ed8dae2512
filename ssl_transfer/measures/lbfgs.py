"""L-BFGS (Liu & Nocedal 1989) for many problems at once: points and gradients are (B, K, D), one problem per row."""

from __future__ import annotations

import torch


def direction_of_step(gradient, point_changes, gradient_changes, invert):
    """Minus the inverse Hessian times the gradient, by the two-loop recursion of L-BFGS.

    Args:
        gradient: At the present points.
        point_changes: Of the last steps, the oldest first.
        gradient_changes: Of the same steps.
        invert: Multiplies by the initial inverse Hessian.
    """
    products = [inner(*changes) for changes in zip(point_changes, gradient_changes, strict=True)]
    pairs = list(zip(point_changes, gradient_changes, products, strict=True))
    direction, factors = gradient.clone(), []
    for point_change, gradient_change, product in reversed(pairs):
        factors.append(torch.where(product > 0, inner(point_change, direction) / product, 0))
        direction -= factors[-1][:, None, None] * gradient_change
    direction = invert(direction)
    if pairs:
        _, gradient_change, product = pairs[-1]
        ratio = torch.where(product > 0, product / inner(gradient_change, invert(gradient_change)), 1)
        direction *= ratio[:, None, None]
    for (point_change, gradient_change, product), factor in zip(pairs, reversed(factors), strict=True):
        correction = torch.where(product > 0, inner(gradient_change, direction) / product, 0)
        direction += (factor - correction)[:, None, None] * point_change
    return direction.neg_()


def inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The inner product of each problem, (B,)."""
    return (first * second).sum((1, 2))
