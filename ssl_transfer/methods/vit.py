"""The ViT of methods that mask patches."""

from __future__ import annotations

from typing import Any

from timm.layers.patch_dropout import PatchDropout
from timm.models.vision_transformer import VisionTransformer

from ssl_transfer.errors import RecipeError
from ssl_transfer.models.backbone import Backbone

FEWEST_PATCHES = 4


def plain_vit(backbone: Backbone, method: str) -> Any:  # timm's attributes have no types
    """The timm model of a backbone that is a plain ViT, for a method that masks patches.

    Args:
        backbone: The backbone.
        method: Name of the method in messages.

    Raises:
        RecipeError: If it is another architecture, has fewer than four patches, or drops patches itself.
    """
    vit: Any = backbone.model
    name = backbone.card.architecture
    if not isinstance(vit, VisionTransformer) or hasattr(vit, "dist_token") or vit.pos_embed is None:
        raise RecipeError(
            f"method: {method} needs a plain ViT, and {name} is not one. Set backbone.name=vit_small_patch16_224 (or another "
            "ViT), or choose another method."
        )
    if vit.patch_embed.num_patches < FEWEST_PATCHES:
        raise RecipeError(
            f"method: {method} finds {vit.patch_embed.num_patches} patch(es) in {backbone.card.image_size} px with {name}. Set a "
            "larger data.size or a smaller backbone.options.patch_size."
        )
    if isinstance(vit.patch_drop, PatchDropout):
        raise RecipeError(
            f"backbone.options.patch_drop_rate: {method} masks patches itself, and the position of a dropped one is lost. Leave "
            "the option out."
        )
    return vit
