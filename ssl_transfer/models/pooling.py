"""Pooling: how the tokens of a ViT become one feature vector. A CNN averages its last feature map.

Every ViT has the same pooling unless it is stated: its class token after the final norm, as in DINO, DINOv2 and MAE, or the mean
of its patch tokens where it has no class token. timm's own default differs between architectures (DINOv2: class token, DINOv3:
mean). A ViT that was trained with attention pooling (SigLIP) keeps it, called `map`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.poolings import POOLINGS

LAST = 4  # blocks of `last4`
TIMM_NAMES = {"token": "cls", "avg": "mean"}
STORED = ("cls", "mean", "last4")  # `cls+mean` is two of them
_OTHERS = ("head_dist", "embeds")  # of ViTs whose forward pass gives something else than tokens and one head
_PARTS = ("blocks", "norm", "fc_norm", "num_prefix_tokens", "global_pool", "forward_features")


def has_tokens(model: nn.Module) -> bool:
    """Whether a timm model is a ViT whose tokens can be pooled in several ways (not Swin, distilled DeiT, or NaFlexViT)."""
    return all(hasattr(model, part) for part in _PARTS) and not any(hasattr(model, other) for other in _OTHERS)


def timm_pooling(model: nn.Module) -> str:
    """The pooling that timm's own forward pass of a model applies: `cls`, `mean`, `map`, or timm's word for another one."""
    if not has_tokens(model):
        return "mean"
    if getattr(model, "attn_pool", None) is not None:
        return "map"
    stated = str(getattr(model, "global_pool", "") or "")
    return TIMM_NAMES.get(stated, stated)


def own_pooling(model: nn.Module, options: Mapping[str, Any]) -> str:
    """The pooling of a backbone that states none.

    Args:
        model: The timm model.
        options: Options of its architecture; `global_pool` states a pooling.
    """
    usual = timm_pooling(model)
    if not has_tokens(model):
        stated = str(options.get("global_pool", "avg"))
        return TIMM_NAMES.get(stated, stated)
    if usual == "map" or "global_pool" in options:
        return usual
    return "cls" if _has_class_token(model) else "mean"


def available(model: nn.Module) -> tuple[str, ...]:
    """The poolings of `POOLINGS` that a model has."""
    if not has_tokens(model):
        return ("mean",)
    return POOLINGS if _has_class_token(model) else ("mean", "last4")


def check_pooling(model: nn.Module, pooling: str, name: str) -> None:
    """Refuse a pooling that a model does not have.

    Raises:
        BackboneError: If it does not.
    """
    if pooling in available(model) or pooling == timm_pooling(model):
        return
    if pooling not in POOLINGS:
        raise BackboneError(f"{name}: no pooling is called '{pooling}'.{nearest(pooling, POOLINGS)}")
    kind = "has no class token" if has_tokens(model) else "is no ViT: it averages its last feature map"
    raise BackboneError(f"{name}: pooling={pooling}: {kind}. Expected one of {', '.join(available(model))}.")


def features_of(model: nn.Module, images: torch.Tensor, pooling: str | None) -> torch.Tensor:
    """Features (B, D) of images (B, C, H, W); None: as timm pools."""
    if pooling is None or not has_tokens(model) or pooling == timm_pooling(model):
        return model(images)
    return pooled(model, images, (pooling,))[pooling]


def pooled(model: Any, images: torch.Tensor, poolings: Iterable[str]) -> dict[str, torch.Tensor]:
    """Features of images in several poolings, from one forward pass of a ViT.

    Args:
        model: A model that `has_tokens`.
        images: Shape (B, C, H, W).
        poolings: `cls`: the class token after the final norm; `mean`: the mean of the patch tokens after it; `cls+mean`: both,
            concatenated; `last4`: the class tokens of the last four blocks, or of all if there are fewer, each after the final
            norm, concatenated (as in the linear evaluation of DINO, 2104.14294), without a class token the means of the patch
            tokens; and that of timm's own forward pass by its name.

    Returns:
        Pooling -> features (B, D), (B, 2 D) for `cls+mean`, (B, 4 D) for `last4`, with the tokens' width D.
    """
    wanted = tuple(poolings)
    outputs: list[torch.Tensor] = []
    blocks = list(model.blocks)[-LAST:] if "last4" in wanted else []
    hooks = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in blocks]
    try:
        tokens = model.forward_features(images)
    finally:
        for hook in hooks:
            hook.remove()
    vectors = {}
    if "cls" in wanted or "cls+mean" in wanted:
        vectors["cls"] = model.fc_norm(tokens[:, 0])
    if "mean" in wanted or "cls+mean" in wanted:
        vectors["mean"] = model.fc_norm(_mean(model, tokens))
    if "cls+mean" in wanted:
        vectors["cls+mean"] = torch.cat([vectors["cls"], vectors["mean"]], 1)
    if "last4" in wanted:
        vectors["last4"] = torch.cat([_of_block(model, output) for output in outputs], 1)
    return {name: vectors[name] if name in vectors else model.forward_head(tokens) for name in wanted}


def timm_arguments(model: nn.Module, pooling: str | None) -> dict[str, Any]:
    """Arguments with which timm builds a model of these tensors that pools so; empty if it does anyway, or cannot."""
    stated = {name: word for word, name in TIMM_NAMES.items()}.get(pooling or "")
    if stated is None or not has_tokens(model) or pooling == timm_pooling(model):
        return {}
    normalised = not isinstance(model.fc_norm, nn.Identity)
    norm = {VisionTransformer: "fc_norm", Eva: "use_fc_norm"}
    arguments = {key: normalised for kind, key in norm.items() if isinstance(model, kind)}
    return {"global_pool": stated, **arguments} if arguments else {}


def _has_class_token(model: nn.Module) -> bool:
    return getattr(model, "cls_token", None) is not None


def _mean(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return tokens[:, model.num_prefix_tokens :].mean(1)


def _of_block(model: Any, output: torch.Tensor) -> torch.Tensor:
    """The class token of a block, or the mean of its patch tokens, after the final norm."""
    token = model.norm(output[:, 0]) if _has_class_token(model) else _mean(model, model.norm(output))
    return model.fc_norm(token)
