"""Images of any store as 8-bit pictures, and the constants of the soft-tissue window and of luminance. Does not need torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssl_transfer.channels import WINDOWS_HU

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SOFT_TISSUE_HU = WINDOWS_HU["soft_tissue"]
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue; ITU-R BT.601
STORED_PERCENTILES = (0.5, 99.5)
DISPLAY_RANGE = (0.0, 255.0)
SCALED_RANGE = (0.0, 10000.0)  # of `scaled` stores: what the low and the high end of each image's range become


def displayed(
    image: np.ndarray, units: str, value_range: tuple[float, float], window_hu: tuple[float, float] = SOFT_TISSUE_HU
) -> np.ndarray:
    """Convert an image to a picture.

    HU are shown in a window, `stored` and `scaled` values in the value range of their store, as a backbone sees
    them, others unchanged.

    Args:
        image: Values of a store, shape (C, H, W), 1 or 3 channels; NaN is shown as 0.
        units: Units of the store: `hu`, `display`, `rgb`, `stored` or `scaled`.
        value_range: Of the store's card.
        window_hu: The HU that become black and white.

    Returns:
        uint8 (H, W), or (H, W, 3) for three channels.
    """
    image = np.nan_to_num(image.astype(np.float32))
    if units in ("hu", "stored", "scaled"):
        low, high = window_hu if units == "hu" else value_range
        image = (image - low) / max(high - low, 1e-9) * 255
    shown = np.rint(np.clip(image, 0, 255)).astype(np.uint8)
    return shown[0] if len(shown) == 1 else np.ascontiguousarray(np.moveaxis(shown, 0, -1))


def text_font(size: float) -> FreeTypeFont:
    """A font for texts on a picture, `size` pixels high: DejaVu Sans of matplotlib. Pillow's own has ASCII alone."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
