"""Poolings of bags against a loop over the bags, and that neither order nor other bags matter."""

import pytest
import torch

from ssl_transfer.models.bag_pooling import BAG_POOLINGS

SIZES = (1, 2, 5, 9)


def bags(seed=0):
    torch.manual_seed(seed)
    codes = torch.repeat_interleave(torch.arange(len(SIZES)), torch.tensor(SIZES))
    return torch.randn(len(codes), 6), codes


def naive(pooling, features):
    """Logits of one bag (n, D)."""
    if pooling == "mean":
        return BY_NAME[pooling].classifier(features.mean(0))
    if pooling == "max":
        return BY_NAME[pooling].classifier(features.max(0).values)
    if pooling == "topk":
        logits = BY_NAME[pooling].classifier(features)
        return logits.sort(0, descending=True).values[:3].mean(0)
    module = BY_NAME[pooling]
    v, u = module.hidden.weight.chunk(2), module.hidden.bias.chunk(2)
    gated = torch.tanh(features @ v[0].T + u[0]) * torch.sigmoid(features @ v[1].T + u[1])
    return module.classifier(torch.softmax(module.weight(gated)[:, 0], 0) @ features)


torch.manual_seed(1)
BY_NAME = {name: pooling(6, 3) for name, pooling in BAG_POOLINGS.items()}


@pytest.mark.parametrize("pooling", BAG_POOLINGS)
def test_a_pooling_is_that_of_each_bag_by_itself(pooling):
    features, codes = bags()
    together = BY_NAME[pooling](features, codes, len(SIZES))
    apart = torch.stack([naive(pooling, features[codes == code]) for code in range(len(SIZES))])
    assert torch.allclose(together, apart, atol=1e-6)


@pytest.mark.parametrize("pooling", BAG_POOLINGS)
def test_the_order_of_rows_does_not_matter(pooling):
    features, codes = bags()
    order = torch.randperm(len(codes))
    expected = BY_NAME[pooling](features, codes, len(SIZES))
    assert torch.allclose(BY_NAME[pooling](features[order], codes[order], len(SIZES)), expected, atol=1e-6)


def test_attention_sums_to_one_in_every_bag():
    features, codes = bags()
    weights = BY_NAME["attention"].attention(100 * features, codes, len(SIZES))
    sums = torch.zeros(len(SIZES)).index_add(0, codes, weights)
    assert torch.allclose(sums, torch.ones(len(SIZES)))
