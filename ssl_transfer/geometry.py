"""Numbers that describe a cloud of feature vectors; torch tensors in, floats out."""

from __future__ import annotations

import torch
import torch.nn.functional as functional


def normalised_std(features: torch.Tensor) -> float:
    """Mean standard deviation of L2-normalised features times √D: about 1 when they spread out, 0 when they collapse.

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


def alignment(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean squared distance of normalised features of two views of the same images, in [0, 4]; small is aligned.

    Args:
        one: Shape (N, D).
        other: Shape (N, D), row by row the other view.

    Source:
        Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with exponent 2.
    """
    difference = functional.normalize(one.float(), dim=1) - functional.normalize(other.float(), dim=1)
    return float(difference.square().sum(1).mean())


def uniformity(features: torch.Tensor) -> float:
    """Log of the mean Gaussian potential exp(−2·distance²) over pairs of normalised features; 0 is collapsed, −4 spread out.

    Args:
        features: Shape (N, D), N ≥ 2.

    Source:
        Wang & Isola 2020, https://arxiv.org/abs/2005.10242, section 4.1, with t = 2.
    """
    unit = functional.normalize(features.float(), dim=1)
    squared = (2 - 2 * (unit @ unit.T)).clamp(min=0)
    pairs = squared[~torch.eye(len(unit), dtype=torch.bool, device=unit.device)]
    return float(pairs.mul(-2).exp().mean().log())
