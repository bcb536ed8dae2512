"""Geometry of features: properties of one set of feature vectors, and similarity or distance of two. All functions return floats.

Features are torch tensors; functions of two sets take NumPy arrays as well, except `alignment`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as functional

Cloud = torch.Tensor | np.ndarray


def normalised_std(features: torch.Tensor) -> float:
    """Mean standard deviation of L2-normalised features times √D: about 1 for isotropic features, 0 for collapsed ones.

    Args:
        features: Shape (N, D), N ≥ 2.

    Source:
        Chen & He 2021, https://arxiv.org/abs/2011.10566, section 4.1.
    """
    unit = functional.normalize(features.float(), dim=1)
    return float(unit.std(dim=0).mean() * features.shape[1] ** 0.5)


def rankme(features: torch.Tensor) -> float:
    """RankMe: exp of the entropy of the normalised singular values, in [1, min(N, D)].

    Args:
        features: Shape (N, D).

    Source:
        Garrido et al. 2023, https://arxiv.org/abs/2210.02885, equation 1.
    """
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def alignment(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean squared distance between normalised features of two views of the same images, in [0, 4]; 0 is perfect alignment.

    Args:
        first: Features of one view, shape (N, D).
        second: Features of the other view of the same images, in the same order, shape (N, D).

    Source:
        Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with exponent 2.
    """
    difference = functional.normalize(first.float(), dim=1) - functional.normalize(second.float(), dim=1)
    return float(difference.square().sum(1).mean())


def uniformity(features: torch.Tensor) -> float:
    """Log of the mean Gaussian potential exp(−2·distance²) of pairs of normalised features: 0 if collapsed, about −4 if uniform.

    Args:
        features: Shape (N, D), N ≥ 2.

    Source:
        Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with t = 2.
    """
    unit = functional.normalize(features.float(), dim=1)
    squared = (2 - 2 * (unit @ unit.T)).clamp(min=0)
    pairs = squared[~torch.eye(len(unit), dtype=torch.bool, device=unit.device)]
    return float(pairs.mul(-2).exp().mean().log())


def effective_rank(features: torch.Tensor) -> float:
    """Exp of the entropy of the normalised eigenvalues of the covariance, in [1, min(N − 1, D)]; 1 if features never vary.

    Unlike RankMe, it centres the features and weights directions by variance, not by singular value.

    Args:
        features: Shape (N, D), N ≥ 2.

    Source:
        Roy & Vetterli 2007, https://ieeexplore.ieee.org/document/7098875, of the covariance.
    """
    variances = torch.linalg.svdvals(_centred(features)).square()
    share = variances[variances > 0] / variances.sum().clamp(min=1e-300)
    return float(torch.exp(-(share * share.log()).sum()))


def intrinsic_dimension(first: np.ndarray, second: np.ndarray) -> float:
    """Dimension of the manifold that features lie on, from the ratio of distances to the two nearest neighbours (TwoNN).

    The maximum-likelihood estimate (N − 1) / Σ log(second / first). Rows with a duplicate (first = 0) are left out.

    Args:
        first: Euclidean distance of each row to its nearest other row, (N,).
        second: Distance to the second nearest, (N,).

    Returns:
        The dimension; NaN if fewer than two rows are left, infinity if the two distances are equal for all rows.

    Source:
        Facco et al. 2017, https://arxiv.org/abs/1803.06992.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    distinct = first > 0
    if distinct.sum() < 2:
        return float("nan")
    total = np.log(second[distinct] / first[distinct]).sum()
    return float((distinct.sum() - 1) / total) if total > 0 else float("inf")


def cka(
    first: Cloud,
    second: Cloud,
    kernel: Literal["linear", "rbf"] = "linear",
    unbiased: bool = False,
    bandwidth: float = 0.5,
    batch: int | None = None,
) -> float:
    """Centred kernel alignment of two representations of the same images: 1 if they are equal up to rotation and scale, 0 if
    unrelated.

    The biased estimate is too large unless N is much larger than D. The unbiased one may be slightly negative.

    Args:
        first: Features of the images, shape (N, D), N ≥ 2 (unbiased: 4).
        second: Other features of the same images, in the same order, shape (N, E).
        kernel: `linear`, or `rbf`: exp(−distance² / (2 (bandwidth · median distance)²)), with the median of each representation.
        unbiased: Use the unbiased estimate of HSIC.
        bandwidth: Bandwidth of `rbf`, as a share of the median distance.
        batch: Number of rows of consecutive batches over which unbiased HSIC is averaged, for N so large that an N × N matrix
            does not fit into memory. A last batch of fewer than 4 rows is left out. Rows should be in random order. Implies
            `unbiased`.

    Returns:
        The alignment; NaN if one representation is constant.

    Raises:
        ValueError: If the numbers of rows differ, or if there are too few of them or in a batch.

    Source:
        Kornblith et al. 2019, https://arxiv.org/abs/1905.00414; unbiased: Song et al. 2012; batches: Nguyen et al. 2021,
        https://arxiv.org/abs/2010.15327, equation 3.
    """
    unbiased = unbiased or batch is not None
    least = 4 if unbiased else 2
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    _check_pairs("cka", first, second, least)
    if batch is not None and batch < least:
        raise ValueError(f"cka: found batch={batch}, expected at least {least} rows.")
    first, second = _centred(first), _centred(second)
    if kernel == "linear" and not unbiased:  # D × D matrices suffice
        cross, norms = (first.T @ second).square().sum(), [(side.T @ side).square().sum() for side in (first, second)]
        return _ratio(cross, *norms)
    parts = torch.arange(len(first)).split(batch or len(first))
    sums = torch.zeros(3, dtype=torch.float64, device=first.device)
    for rows in parts:
        if len(rows) >= least:
            kernels = [kernel_matrix(side[rows], kernel, bandwidth) for side in (first, second)]
            hsic = _unbiased_hsic if unbiased else _hsic
            sums += torch.stack([hsic(*kernels), hsic(kernels[0], kernels[0]), hsic(kernels[1], kernels[1])])
    return _ratio(*sums)


def procrustes(first: Cloud, second: Cloud) -> float:
    """Squared distance between two representations of the same images after the best rotation, in [0, 2]; 0 if they are equal.

    Both are centred and scaled to Frobenius norm 1: 2 − 2 ‖AᵀB‖_*.

    Args:
        first: Features of the images, shape (N, D).
        second: Other features of the same images, in the same order, shape (N, E).

    Returns:
        The distance; NaN if one representation is constant.

    Raises:
        ValueError: If the numbers of rows differ.

    Source:
        Ding et al. 2021, https://arxiv.org/abs/2108.01661.
    """
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    _check_pairs("procrustes", first, second, 2)
    first, second = _centred(first), _centred(second)
    scale = first.norm() * second.norm()
    if scale == 0:
        return float("nan")
    return float((2 - 2 * torch.linalg.svdvals(first.T @ second).sum() / scale).clamp(0, 2))


def frechet_distance(first: Cloud, second: Cloud) -> float:
    """Squared 2-Wasserstein distance of Gaussians fitted to two sets of features: ‖μ − ν‖² + tr(Σ + Τ − 2 (ΣΤ)^½).

    It grows with the scale of the features, and with D unless N is much larger: compare distances only within one backbone and
    for equal N.

    Args:
        first: Features of one set of images, shape (N, D), N ≥ 2.
        second: Features of the other set, shape (M, D), M ≥ 2.

    Source:
        Dowson & Landau 1982; Heusel et al. 2017, https://arxiv.org/abs/1706.08500.
    """
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    means = [side.double().mean(0) for side in (first, second)]
    roots = [_root(_centred(side)) / (len(side) - 1) ** 0.5 for side in (first, second)]
    cross = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()  # tr (ΣΤ)^½ without a matrix root
    total_variance = sum(root.square().sum() for root in roots)
    return float(((means[0] - means[1]).square().sum() + total_variance - 2 * cross).clamp(min=0))


def mmd(first: Cloud, second: Cloud, bandwidth: float = 1.0) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of features under a Gaussian kernel.

    It is about 0, and may be slightly negative, for samples of one distribution. Between distant sets it does not grow with their
    distance, since the median distance grows, too.

    Args:
        first: Features of one set of images, shape (N, D), N ≥ 2.
        second: Features of the other set, shape (M, D), M ≥ 2.
        bandwidth: Bandwidth of the kernel, as a share of the median distance of all rows.

    Source:
        Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html, lemma 6.
    """
    both = torch.cat([torch.as_tensor(first), torch.as_tensor(second)]).double()
    kernel = kernel_matrix(both, "rbf", bandwidth)
    n, m = len(first), len(second)
    within = [
        kernel[part, part].sum() / (count * (count - 1)) for part, count in ((slice(0, n), n), (slice(n, None), m))
    ]
    return float(sum(within) - 2 * kernel[:n, n:].mean())


def _check_pairs(name: str, first: torch.Tensor, second: torch.Tensor, least: int) -> None:
    if len(first) != len(second) or len(first) < least:
        raise ValueError(
            f"{name}: found {len(first)} and {len(second)} rows, expected equal numbers, at least {least}."
        )


def _centred(features: torch.Tensor) -> torch.Tensor:
    """Features minus their mean; features that never vary become exactly 0."""
    features = features.double()
    features = features - features[0]
    return features - features.mean(0)


def _root(centred: torch.Tensor) -> torch.Tensor:
    """A matrix R of min(N, D) rows with RᵀR = XᵀX."""
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


def _ratio(cross: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    return float(cross / (first * second).sqrt()) if first > 0 and second > 0 else float("nan")


def kernel_matrix(features: torch.Tensor, kernel: Literal["linear", "rbf"], bandwidth: float = 0.5) -> torch.Tensor:
    """Kernel matrix (N, N) of features (N, D), as defined in `cka`. `rbf` has 1 subtracted, which cancels in all measures."""
    if kernel == "linear":
        return features @ features.T
    squared = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").square()
    count = len(features)
    apart = squared[torch.triu_indices(count, count, 1).unbind()]
    median = apart.median() if apart.numel() else squared.sum()
    width = bandwidth**2 * (median if median > 0 else apart.mean())
    return torch.expm1(-squared / (2 * width)) if width > 0 else torch.zeros_like(squared)


def _hsic(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """HSIC of two kernel matrices, up to a factor that cancels in CKA."""
    first = first - first.mean(0) - first.mean(1, keepdim=True) + first.mean()
    return (first * second).sum()


def _unbiased_hsic(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    n = len(first)
    first, second = first.clone().fill_diagonal_(0), second.clone().fill_diagonal_(0)
    sums = first.sum() * second.sum() / ((n - 1) * (n - 2)) - 2 * first.sum(0) @ second.sum(0) / (n - 2)
    return ((first * second).sum() + sums) / (n * (n - 3))
