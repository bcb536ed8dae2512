"""The crops of DINO and DINOv2: two large views of an image, and several small ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ssl_transfer.data.views import Views
from ssl_transfer.errors import RecipeError
from ssl_transfer.models.backbone import Backbone

LARGE_VIEWS = 2


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Number and size of the views of an image.

    Attributes:
        local_views: Number of small crops per image; 0: none.
        local_size: Height and width of a small crop in pixels.
        global_scale: Smallest and largest share of the image's area in a large crop.
        local_scale: Smallest and largest share of the image's area in a small crop.
    """

    local_views: int
    local_size: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]

    def presets(self, preset: Views) -> list[Views]:
        """Two large views, then the small ones, made from the recipe's preset."""
        large = replace(preset, crop_scale=self.global_scale)
        small = replace(preset, crop_scale=self.local_scale, size=self.local_size)
        return [large] * LARGE_VIEWS + [small] * self.local_views

    def check(self, backbone: Backbone) -> None:
        """Refuse small crops of a size that the backbone cannot read.

        Raises:
            RecipeError: If it cannot, or if they are larger than the large crops.
        """
        size = self.local_size
        if not self.local_views:
            return
        if size > backbone.card.image_size:
            raise RecipeError(
                f"method.local_size: {size} px, larger than the global views ({backbone.card.image_size} px). Set a smaller one, "
                "or method.local_views=0."
            )
        was_training = backbone.training
        try:
            with torch.no_grad():
                backbone.eval()(torch.zeros(1, backbone.card.in_channels, size, size))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"method.local_size: {backbone.card.architecture} cannot read images of {size} px ({error}). For a ViT set "
                "backbone.options.dynamic_img_size=true and a multiple of its patch size; or method.local_views=0."
            ) from None
        finally:
            backbone.train(was_training)
