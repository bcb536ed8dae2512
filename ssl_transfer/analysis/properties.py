"""Global image properties, computed from pixels, that features may encode instead of anatomy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import ndimage

from ssl_transfer.data.display import DISPLAY_RANGE
from ssl_transfer.data.images import Images

BODY_HU, BONE_HU, AIR_HU = -300.0, 300.0, -700.0  # body and bone are above, air is below
SOFT_HU = (-100.0, 150.0)
FOREGROUND = 0.1  # in images that are not HU, the object is above this share of the value range
BATCH = 512


def image_properties(store: Images, rows: np.ndarray | None = None) -> pd.DataFrame:
    """Compute properties of images of a store, a row per image.

    For all images: `mean` and `std` of the values, `body_area` (share of pixels that belong to the object: above −300 HU, or
    above a tenth of the value range of stores without HU), `center_x` and `center_y` of that object (−1 left or top, 1 right or
    bottom), `symmetry` (correlation of the image with its mirror image), `edge_density` (mean gradient magnitude, as a share of
    `std`) and `noise` (standard deviation, estimated by the median absolute deviation of a Laplacian, in units of the values).
    For HU also the shares of `air` (below −700), `soft_tissue` (−100 to 150) and `bone` (above 300). For volumes also
    `slice_position` (0 for the first slice of a series, 1 for the last). A property that is undefined, such as the centre of an
    empty object, is NaN.

    Args:
        store: The store; colour channels are averaged.
        rows: Positions of the images, (n,); None: all, in the store's order.

    Source:
        noise: Immerkær 1996, https://doi.org/10.1006/cviu.1996.0060, with a median in place of the mean.
    """
    hounsfield = store.card.units == "hu"
    parts = []
    low, high = (0.0, 1.0) if hounsfield else _range(store)
    rows = np.arange(len(store)) if rows is None else np.asarray(rows)
    for start in range(0, len(rows), BATCH):
        images = np.asarray(store.read(rows[start : start + BATCH]), np.float32).mean(1)
        body = images > (BODY_HU if hounsfield else low + FOREGROUND * (high - low))
        parts.append(_properties(images, body, hounsfield))
    table = pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    position = _slice_position(store)
    return table if position is None else table.assign(slice_position=position[rows])


def _properties(images: np.ndarray, body: np.ndarray, hounsfield: bool) -> dict[str, np.ndarray]:
    count, height, width = images.shape
    flat, inside = images.reshape(count, -1), body.reshape(count, -1)
    std = flat.std(1)
    area = inside.mean(1)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    with np.errstate(invalid="ignore", divide="ignore"):
        values_by_name = {
            "mean": flat.mean(1),
            "std": std,
            "body_area": area,
            "center_x": (body.mean(1) * across).sum(1) / body.mean(1).sum(1),
            "center_y": (body.mean(2) * down).sum(1) / body.mean(2).sum(1),
            "symmetry": _correlation(flat, images[:, :, ::-1].reshape(count, -1)),
        }
        gradient = np.hypot(ndimage.sobel(images, 1), ndimage.sobel(images, 2)) / 8
        values_by_name["edge_density"] = gradient.reshape(count, -1).mean(1) / std
    laplacian = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    rough = np.abs(ndimage.convolve(images, laplacian[None])[:, 1:-1, 1:-1]).reshape(count, -1)
    values_by_name["noise"] = np.median(rough, 1) / (0.6745 * 6)
    if hounsfield:
        values_by_name["air"] = (flat < AIR_HU).mean(1)
        values_by_name["soft_tissue"] = ((flat >= SOFT_HU[0]) & (flat <= SOFT_HU[1])).mean(1)
        values_by_name["bone"] = (flat > BONE_HU).mean(1)
    return {name: values.astype(np.float64) for name, values in values_by_name.items()}


def _correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    first, second = first - first.mean(1, keepdims=True), second - second.mean(1, keepdims=True)
    return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))


def _range(store: Images) -> tuple[float, float]:
    """Value range of a store that is not HU: 0 to 255 for pictures, otherwise that of its card."""
    return DISPLAY_RANGE if store.card.units in ("display", "rgb") else store.card.value_range


def _slice_position(store: Images) -> np.ndarray | None:
    """Rank of a slice within its series, 0 to 1; NaN for a series of one slice; None if no series has two."""
    if not {"series", "slice"} <= set(store.columns):
        return None
    rows = pd.DataFrame(
        {"series": store.column("series"), "slice": pd.to_numeric(store.column("slice"), errors="coerce")}
    )
    ranks = rows.groupby("series", dropna=True)["slice"].rank(method="dense") - 1
    last = ranks.groupby(rows["series"]).transform("max")
    position = (ranks / last.where(last > 0)).to_numpy(np.float64)
    return position if np.isfinite(position).any() else None
