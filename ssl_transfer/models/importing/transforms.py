"""Transforms of tensors that are joined, split or added when a checkpoint gets the names of timm.

Each takes all tensors of a backbone and returns them. What it does not find complete, it leaves as it is: the name is then
unknown to timm, and the checkpoint is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch

Tensors = dict[str, torch.Tensor]


def joined(target: str, parts: tuple[str, ...], within: str) -> Callable[[Tensors], Tensors]:
    """A transform that concatenates tensors along their first dimension.

    Args:
        target: Name of the result below `within`, such as `attn.qkv.weight`.
        parts: Names of the parts below `within`, in order.
        within: Pattern of the module that holds them, such as `blocks.0.`.
    """

    def transform(tensors: Tensors) -> Tensors:
        result = dict(tensors)
        for name in tensors:
            module = re.match(within, name)
            if module is None or name[module.end() :] != parts[0]:
                continue
            sources = [f"{module[0]}{part}" for part in parts]
            if all(source in tensors for source in sources):
                result[f"{module[0]}{target}"] = torch.cat([result.pop(source) for source in sources])
        return result

    return transform


BLOCK = r"blocks\.\d+\."
QKV_WEIGHT = joined("attn.qkv.weight", ("attn.q.weight", "attn.k.weight", "attn.v.weight"), BLOCK)
QKV_BIAS = joined("attn.qkv.bias", ("attn.q.bias", "attn.k.bias", "attn.v.bias"), BLOCK)
GATED_WEIGHT = joined("mlp.fc1.weight", ("mlp.gate.weight", "mlp.up.weight"), BLOCK)
GATED_BIAS = joined("mlp.fc1.bias", ("mlp.gate.bias", "mlp.up.bias"), BLOCK)


def with_registers(tensors: Tensors) -> Tensors:
    """Move the position of the class token into it: with registers, timm gives positions to patches alone."""
    result = dict(tensors)
    if {"reg_token", "cls_token", "pos_embed"} <= set(tensors):
        result["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        result["pos_embed"] = tensors["pos_embed"][:, 1:]
    return result


def split_bias(tensors: Tensors) -> Tensors:
    """Split the bias of q, k and v of DINOv3 in those of q and v; that of k is masked, or 0.

    A bias of k that counts is left as it is, and refused.
    """
    result = {name: tensor for name, tensor in tensors.items() if not name.endswith(".attn.qkv.bias_mask")}
    for name, bias in tensors.items():
        if not name.endswith(".attn.qkv.bias"):
            continue
        module = name.removesuffix("qkv.bias")
        mask = tensors.get(f"{name}_mask", torch.ones_like(bias))
        query, key, value = (bias * mask.nan_to_num(0.0)).chunk(
            3
        )  # the mask is NaN in a model that was never initialised
        if bool(key.any()):
            continue
        del result[name]
        result[f"{module}q_bias"], result[f"{module}v_bias"] = query, value
    return result


def gated_names(tensors: Tensors) -> Tensors:
    """Name the layers of DINOv3's MLP: `up` is timm's `fc1_x` beside a gate, and `fc1` without."""
    gated = {name.partition("mlp.gate.")[0] for name in tensors if "mlp.gate." in name}
    result = {}
    for name, tensor in tensors.items():
        block = re.match(BLOCK, name)
        up = "mlp.fc1_x." if block and block[0] in gated else "mlp.fc1."
        result[name.replace("mlp.gate.", "mlp.fc1_g.").replace("mlp.up.", up)] = tensor
    return result


def flat_scales(tensors: Tensors) -> Tensors:
    """Layer scales of torchvision's ConvNeXt, shape (C, 1, 1), as vectors."""
    return {name: tensor.flatten() if name.endswith(".gamma") else tensor for name, tensor in tensors.items()}


def linear_layers_as_convolutions(tensors: Tensors) -> Tensors:
    """The first two linear layers of a VGG as convolutions of 7 x 7 and 1 x 1, as timm has them."""
    result = dict(tensors)
    for name, size in (("pre_logits.fc1.weight", 7), ("pre_logits.fc2.weight", 1)):
        weight = tensors.get(name)
        if weight is not None and weight.ndim == 2 and weight.shape[1] % size**2 == 0:
            result[name] = weight.reshape(len(weight), -1, size, size)
    return result
