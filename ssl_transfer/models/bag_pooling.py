"""Pooling of bags: the feature vectors of the images of a group become one vector, or one vector of logits.

A bag is given by the number of the bag of each row, so bags may differ in size, and the order of rows does not matter.
"""

from __future__ import annotations

import torch
from torch import nn

HIDDEN = 64  # units of the gate; Ilse et al. have 128
TOP_K = 3


class BagPooling(nn.Module):
    """Logits of bags. A subclass says how: `forward(features (n, D), bags (n,), count) -> (count, C)`.

    Args:
        feature_dim: Length D of the feature vectors.
        classes: Number C of classes or labels.
    """

    def __init__(self, feature_dim: int, classes: int):
        super().__init__()
        self.classifier = nn.Linear(feature_dim, classes)


class MeanPooling(BagPooling):
    """A linear classifier of the mean of the vectors of a bag: the mean of their logits."""

    def forward(self, features: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        """Logits (count, C)."""
        return _sums(self.classifier(features), bags, count) / torch.bincount(bags, minlength=count)[:, None]


class MaxPooling(BagPooling):
    """A linear classifier of the largest value of each feature in a bag."""

    def forward(self, features: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        """Logits (count, C)."""
        lowest = features.new_full((count, features.shape[1]), -torch.inf)
        return self.classifier(
            lowest.scatter_reduce(0, bags[:, None].expand_as(features), features, "amax", include_self=False)
        )


class TopK(BagPooling):
    """The mean of the k largest logits of the vectors of a bag, for each class by itself; of all, in a smaller bag."""

    def __init__(self, feature_dim: int, classes: int, k: int = TOP_K):
        super().__init__(feature_dim, classes)
        self.k = k

    def forward(self, features: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        """Logits (count, C)."""
        logits, sizes = self.classifier(features), torch.bincount(bags, minlength=count)
        longest, starts, order = int(sizes.max()), sizes.cumsum(0) - sizes, torch.argsort(bags, stable=True)
        within = torch.empty_like(bags)  # number of each vector in its bag
        within[order] = torch.arange(len(bags), device=bags.device) - starts[bags[order]]
        padded = logits.new_full((count * longest, logits.shape[1]), -torch.inf)
        padded = padded.index_copy(0, bags * longest + within, logits).view(count, longest, -1)
        top = padded.topk(min(self.k, longest), 1).values
        return top.masked_fill(top.isinf(), 0).sum(1) / sizes.clamp(max=self.k)[:, None]


class GatedAttention(BagPooling):
    """A linear classifier of a weighted mean of the vectors of a bag, with the weights of a gated attention.

    The weight of a vector h is the softmax, over its bag, of w · (tanh(V h) ⊙ sigmoid(U h)); V and U have `hidden` rows.

    References:
        Ilse et al. 2018, https://arxiv.org/abs/1802.04712, equation 9.
    """

    def __init__(self, feature_dim: int, classes: int, hidden: int = HIDDEN):
        super().__init__(feature_dim, classes)
        self.hidden = nn.Linear(feature_dim, 2 * hidden)
        self.weight = nn.Linear(hidden, 1)

    def attention(self, features: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        """Weight of each vector, (n,); those of a bag sum to 1."""
        return self._weights(self._units(features)[0], bags, count)

    def forward(self, features: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        """Logits (count, C); those of the weighted mean are the weighted mean of the logits, which is cheaper."""
        gated, logits = self._units(features)
        return _sums((self._weights(gated, bags, count) * logits).T, bags, count)

    def _units(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gated units (hidden, n) and logits (C, n) of each vector, by one product; rows of units make what follows fast."""
        layers = self.hidden, self.classifier
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        hidden = self.weight.in_features
        signal, gate, logits = torch.addmm(bias[:, None], weight, features.T).tensor_split((hidden, 2 * hidden))
        return torch.tanh(signal) * torch.sigmoid(gate), logits

    def _weights(self, gated: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
        scores = torch.addmm(self.weight.bias[:, None], self.weight.weight, gated)[0].float()
        highest = scores.detach().new_full((count,), -torch.inf).scatter_reduce(0, bags, scores.detach(), "amax")
        weights = (scores - highest[bags]).exp()
        return weights / _sums(weights, bags, count)[bags]


BAG_POOLINGS: dict[str, type[BagPooling]] = {
    "mean": MeanPooling,
    "max": MaxPooling,
    "topk": TopK,
    "attention": GatedAttention,
}


def _sums(values: torch.Tensor, bags: torch.Tensor, count: int) -> torch.Tensor:
    """Sum of the rows of each bag, (count, …)."""
    return values.new_zeros((count, *values.shape[1:])).index_add(0, bags, values)
