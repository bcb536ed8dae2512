"""Targets that no output dimension may dominate: a centre of tokens, and balanced assignments (Sinkhorn–Knopp)."""

from __future__ import annotations

import torch
from lightly.models.modules.center import Center
from torch import Tensor

from ssl_transfer.models.ranks import max_over_ranks, sum_over_ranks

SINKHORN_ITERATIONS = 3  # Oquab et al. 2023, https://arxiv.org/abs/2304.07193, section 4


class TokenCenter(Center):
    """lightly's running mean of target outputs (n, K), for numbers of tokens that differ between ranks, and may be 0.

    Args:
        output_dim: Number of output dimensions K.
        momentum: Share of itself that the centre keeps per step, in [0, 1].
    """

    def __init__(self, output_dim: int, momentum: float):
        super().__init__(size=(1, output_dim), momentum=momentum)

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Move the centre towards the mean of the tokens (n, K) of all ranks; without tokens it stays."""
        count = sum_over_ranks(x.new_full((1,), len(x)))
        mean = sum_over_ranks(x.sum(0, keepdim=True)) / count.clamp(min=1)
        moved = self.center * self.momentum + mean.to(self.center.dtype) * (1 - self.momentum)
        self.center = torch.where(count.to(self.center.dtype) > 0, moved, self.center)


@torch.no_grad()
def balanced_log_assignments(logits: Tensor, iterations: int = SINKHORN_ITERATIONS) -> Tensor:
    """Assign the rows of all ranks to K output dimensions such that the dimensions are used about equally.

    Columns (over all ranks) and rows of exp(logits) are scaled to equal sums in turn, in logarithms, so that nothing
    overflows.

    Args:
        logits: Outputs divided by their temperature, float32 (n, K); n may differ between ranks, and may be 0.
        iterations: Number of times that columns and rows are scaled.

    Returns:
        Logarithms of assignments (n, K); those of a row add up to 1.

    Source:
        Caron et al. 2020, https://arxiv.org/abs/2006.09882, section 3.1 (SwAV); Cuturi 2013,
        https://arxiv.org/abs/1306.0895.
    """
    for _ in range(iterations):
        logits = logits - _log_sum_over_rows(logits)
        logits = logits - logits.logsumexp(1, keepdim=True)
    return logits


def _log_sum_over_rows(logits: Tensor) -> Tensor:
    """Logarithm of the sum of exp(logits) over the rows of all ranks, shape (1, K)."""
    highest = logits.amax(0, keepdim=True) if len(logits) else logits.new_full((1, logits.shape[1]), -torch.inf)
    highest = max_over_ranks(highest)
    return highest + sum_over_ranks((logits - highest).exp().sum(0, keepdim=True)).log()
