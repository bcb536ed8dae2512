"""Names of poolings: how the tokens of a ViT, or the images of a group, become one (`models.pooling`, `models.bag_pooling`)."""

from __future__ import annotations

from typing import Literal, get_args

Pooling = Literal["cls", "mean", "cls+mean", "last4"]
POOLINGS: tuple[str, ...] = get_args(Pooling)
GroupPooling = Literal["mean", "max", "topk", "attention"]
GROUP_POOLINGS: tuple[str, ...] = get_args(GroupPooling)
FixedGroupPooling = Literal["mean", "max"]  # of them, those that learn nothing
FIXED: tuple[str, ...] = get_args(FixedGroupPooling)
LEARNED = tuple(name for name in GROUP_POOLINGS if name not in FIXED)  # by a probe, together with its classifier
SUFFIX = ",pooling="


def stated_pooling(spec: str) -> tuple[str, str | None]:
    """A backbone's spec without `,pooling=NAME`, and the name; None without one.

    Example:
        >>> stated_pooling("timm:vit_small_patch14_dinov2,pooling=mean")
        ('timm:vit_small_patch14_dinov2', 'mean')
    """
    bare, separator, pooling = spec.rpartition(SUFFIX)
    return (bare, pooling) if separator else (spec, None)
