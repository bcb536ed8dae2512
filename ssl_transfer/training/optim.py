"""Optimisers, their parameter groups, and learning-rate rules. Norms and biases are neither decayed nor scaled by LARS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from timm.optim.lars import Lars

from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.objective import Group

RateRule = Literal["none", "linear", "sqrt"]
LayerDecay = Annotated[float, Field(gt=0, le=1)]


def scaled_rate(lr: float, rule: RateRule, batch_size: int) -> float:
    """Learning rate for a global batch size. `none`: lr; `linear`: lr · batch / 256; `sqrt`: lr · √batch (SimCLR, appendix B.1).

    Example:
        >>> scaled_rate(0.3, "linear", 4096) == scaled_rate(0.075, "sqrt", 4096)
        True
    """
    return {"none": lr, "linear": lr * batch_size / 256, "sqrt": lr * math.sqrt(batch_size)}[rule]


def parameter_groups(groups: Sequence[Group], lr: float, weight_decay: float, layer_decay: float) -> list[dict]:
    """Divide each group into two optimiser groups: weights, and norms and biases, which have no weight decay.

    timm's LARS does not scale groups without weight decay, which is what the papers prescribe for norms and biases.

    Args:
        groups: Parameters, grouped by learning rate.
        lr: Peak learning rate of the heads.
        weight_decay: Weight decay of the weights.
        layer_decay: The rate of a group is `lr` · `layer_decay` ^ `depth`.
    """
    optimizer_groups = []
    for group in groups:
        weights = [parameter for parameter in group.parameters if parameter.ndim > 1]
        norms_and_biases = [parameter for parameter in group.parameters if parameter.ndim <= 1]
        rate = lr * layer_decay**group.depth
        decay = weight_decay if group.decays else 0.0
        optimizer_groups.append({"params": weights, "lr": rate, "weight_decay": decay})
        optimizer_groups.append({"params": norms_and_biases, "lr": rate, "weight_decay": 0.0})
    return optimizer_groups


def lars(
    groups: Sequence[Group],
    batch_size: int,
    *,
    lr: PositiveFloat,
    rate_rule: RateRule = "none",
    weight_decay: float = 1e-6,
    momentum: float = 0.9,
    trust_coefficient: float = 0.001,
    layer_decay: LayerDecay = 1.0,
) -> torch.optim.Optimizer:
    """LARS (You et al. 2017, https://arxiv.org/abs/1708.03888): SGD with a learning rate per layer. Needs a weight decay above 0.

    Args:
        groups: Parameters, grouped by learning rate.
        batch_size: Global batch size, which `rate_rule` reads.
        lr: Peak learning rate, dimensionless; with a rule it is multiplied as the rule says.
        rate_rule: How `lr` depends on the global batch: `none`; `linear`, × batch / 256 (Goyal et al. 2017, 1706.02677,
            section 2.1); `sqrt`, × √batch (SimCLR, 2002.05709, appendix B.1).
        weight_decay: L2 penalty on weights, not on norms and biases; above 0. SimCLR: 1e-6 (2002.05709, section 2.3).
        momentum: Momentum of the gradients, in [0, 1). Paper: 0.9.
        trust_coefficient: Rate of a layer as a share of ‖weights‖ / ‖gradient‖. Paper: 0.001.
        layer_decay: Rate of a layer of the backbone as a share of the next one's (stages of a CNN, blocks of a ViT), in (0, 1];
            heads have the full rate. For a pretraining that starts from another backbone; 1: all rates are equal. Fine-tuning
            has the strategy `llrd`. MAE: 0.75 in fine-tuning (2111.06377, Table 9).
    """
    if weight_decay <= 0:
        raise RecipeError("optimizer.weight_decay: LARS scales only decayed weights; set it above 0, for example 1e-6.")
    rate = scaled_rate(lr, rate_rule, batch_size)
    optimizer: Any = Lars  # its defaults are annotated as int
    return optimizer(
        parameter_groups(groups, rate, weight_decay, layer_decay),
        lr=rate,
        momentum=momentum,
        trust_coeff=trust_coefficient,
    )


def sgd(
    groups: Sequence[Group],
    batch_size: int,
    *,
    lr: PositiveFloat,
    rate_rule: RateRule = "none",
    weight_decay: float = 1e-4,
    momentum: float = 0.9,
    layer_decay: LayerDecay = 1.0,
) -> torch.optim.Optimizer:
    """SGD with momentum.

    Args:
        groups: Parameters, grouped by learning rate.
        batch_size: Global batch size, which `rate_rule` reads.
        lr: Peak learning rate, dimensionless; with a rule it is multiplied as the rule says.
        rate_rule: How `lr` depends on the global batch: `none`; `linear`, × batch / 256 (Goyal et al. 2017, 1706.02677,
            section 2.1); `sqrt`, × √batch (SimCLR, 2002.05709, appendix B.1).
        weight_decay: L2 penalty on weights, not on norms and biases. MoCo: 1e-4 (1911.05722, section 4).
        momentum: Momentum of the gradients, in [0, 1). MoCo: 0.9 (1911.05722, section 4).
        layer_decay: Rate of a layer of the backbone as a share of the next one's (stages of a CNN, blocks of a ViT), in (0, 1];
            heads have the full rate. For a pretraining that starts from another backbone; 1: all rates are equal. Fine-tuning
            has the strategy `llrd`. MAE: 0.75 in fine-tuning (2111.06377, Table 9).
    """
    rate = scaled_rate(lr, rate_rule, batch_size)
    return torch.optim.SGD(parameter_groups(groups, rate, weight_decay, layer_decay), lr=rate, momentum=momentum)


def adamw(
    groups: Sequence[Group],
    batch_size: int,
    *,
    lr: PositiveFloat,
    rate_rule: RateRule = "none",
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: LayerDecay = 1.0,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).

    Args:
        groups: Parameters, grouped by learning rate.
        batch_size: Global batch size, which `rate_rule` reads.
        lr: Peak learning rate, dimensionless; with a rule it is multiplied as the rule says.
        rate_rule: How `lr` depends on the global batch: `none`; `linear`, × batch / 256 (Goyal et al. 2017, 1706.02677,
            section 2.1); `sqrt`, × √batch (SimCLR, 2002.05709, appendix B.1).
        weight_decay: Decoupled decay of weights, not of norms and biases. MAE: 0.05 (2111.06377, Table 8).
        betas: Decay rates of the running mean and of the running square of the gradients (Kingma & Ba 2015, 1412.6980,
            Algorithm 1).
        layer_decay: Rate of a layer of the backbone as a share of the next one's (stages of a CNN, blocks of a ViT), in (0, 1];
            heads have the full rate. For a pretraining that starts from another backbone; 1: all rates are equal. Fine-tuning
            has the strategy `llrd`. MAE: 0.75 in fine-tuning (2111.06377, Table 9).
    """
    rate = scaled_rate(lr, rate_rule, batch_size)
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group.parameters)
    return torch.optim.AdamW(
        parameter_groups(groups, rate, weight_decay, layer_decay), lr=rate, betas=betas, fused=on_gpu or None
    )


OPTIMIZERS = {"lars": lars, "sgd": sgd, "adamw": adamw}
