"""A picture of the views that a pretraining makes of its training images, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssl_transfer.data.display import text_font
from ssl_transfer.data.training_set import StoreShare
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.pretraining.stage import read_recipe
from ssl_transfer.recipe import PretrainRecipe

if TYPE_CHECKING:
    from PIL.Image import Image

TILE, GAP, MARGIN, HEADER = 160, 6, 16, 26  # pixels
PAPER, INK = (255, 255, 255), (28, 30, 34)


def preview(
    recipe: PretrainRecipe | str | Path, figure: str | Path, images: int = 6, **overrides: Any
) -> dict[str, Any]:
    """Draw training images, each beside the views that a recipe makes of it in its first epochs.

    Images are evenly spaced over the training images of each store. The first column shows the whole image as the backbone would
    see it (window, grey levels), the others its views, without the subtraction of the mean and the division by the standard
    deviation.

    Args:
        recipe: A recipe, or the path of its YAML file.
        figure: Path of the PNG file.
        images: Number of images of each store.
        overrides: Settings that replace those of the recipe, by dotted key.

    Returns:
        `figure` (path), `views` (side of each view in pixels), and `stores`: path -> number of its training images.

    Raises:
        RecipeError, StoreError, BackboneError: If the recipe and its stores do not fit each other.
    """
    where = "recipe" if isinstance(recipe, PretrainRecipe) else str(recipe)
    setup = PretrainSetup.build(resolve(read_recipe(recipe, overrides), where), where)
    parts = setup.training_set.parts
    sides = [preset.size for preset in parts[0].maker.presets]
    epochs = 2 if len(sides) <= 2 else 1  # with few views, those of a second epoch as well
    heads = ["image", *(f"epoch {epoch}, {side} px" for epoch in range(epochs) for side in sides)]
    offsets = setup.training_set.offsets[:-1].tolist()
    rows = [row for part, offset in zip(parts, offsets, strict=True) for row in _rows(part, offset, images, epochs)]
    path = Path(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    _page(heads, rows).save(path)
    return {
        "figure": str(path),
        "views": sides,
        "stores": {str(part.store.path): len(part.positions) for part in parts},
    }


def _rows(part: StoreShare, offset: int, images: int, epochs: int) -> list[list[np.ndarray]]:
    """Pictures (H, W, 3) of each image of a store and of its views; `offset`: row of its first image in the training set."""
    maker, count = part.maker, min(images, len(part.positions))
    spaced = ((np.arange(count) + 0.5) * len(part.positions) / count).astype(int)
    positions = np.asarray(part.positions)[spaced]
    values = torch.from_numpy(part.store.read(positions))
    whole = maker.scale.unit(maker.matched(values))
    columns = [whole]
    for epoch in range(epochs):
        made = maker(values, positions + offset, epoch, part.read_partners(positions, maker.seed, epoch))
        for preset, views in zip(maker.presets, made, strict=True):
            mean, std = (
                views.new_tensor(numbers).view(1, -1, 1, 1) for numbers in (preset.intensity.mean, preset.intensity.std)
            )
            columns.append(views * std + mean)
    return [[_picture(column[number]) for column in columns] for number in range(count)]


def _picture(image: torch.Tensor) -> np.ndarray:
    """Unit intensity (C, H, W) as uint8 (H, W, 3): of three channels as colours, else of the middle one as grey."""
    grey = image if len(image) == 3 else image[len(image) // 2].expand(3, -1, -1)
    return (grey.clamp(0, 1).nan_to_num() * 255).round().byte().permute(1, 2, 0).numpy()


def _page(heads: list[str], rows: list[list[np.ndarray]]) -> Image:
    """A page of tiles with a line of column heads."""
    from PIL import Image, ImageDraw

    size = (2 * MARGIN + len(heads) * (TILE + GAP) - GAP, 2 * MARGIN + HEADER + len(rows) * (TILE + GAP) - GAP)
    page, font = Image.new("RGB", size, PAPER), text_font(14)
    draw = ImageDraw.Draw(page)
    for column, head in enumerate(heads):
        draw.text((MARGIN + column * (TILE + GAP), MARGIN), head, font=font, fill=INK)
    for number, row in enumerate(rows):
        for column, picture in enumerate(row):
            scale = TILE / max(picture.shape[:2])
            width, height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
            tile = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
            left, top = MARGIN + column * (TILE + GAP), MARGIN + HEADER + number * (TILE + GAP)
            page.paste(tile, (left + (TILE - width) // 2, top + (TILE - height) // 2))
    return page
