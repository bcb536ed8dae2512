"""Stores that are altered while they are read: noise, cleared air, recoded masks, selected rows. Nothing is copied."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.images import Images, Positions, images_at
from ssl_transfer.domains import Domain
from ssl_transfer.errors import StoreError

AIR_HU, AIR_UP_TO_HU = -1000.0, -950.0  # what is at most the second becomes the first; above it begins lung
AIR_TOLERANCE = (
    0.05  # of the range from air to the brightest pixel: noise of air, and compression artefacts around the body
)

MOST_ANALYSED = 200_000  # images: `analyze`, `rank` and the search for leaks take a sample of larger stores

if TYPE_CHECKING:
    import pandas


class AlteredStore:
    """A store that is altered while it is read. A subclass overrides what it alters; the rest is the store's.

    Args:
        store: What is read.
    """

    def __init__(self, store: Images):
        self.store = store

    @property
    def path(self) -> Path:
        """Folder of the store."""
        return self.store.path

    @property
    def card(self) -> StoreCard:
        """Of the store."""
        return self.store.card

    @property
    def id(self) -> str:
        """Of the store."""
        return self.store.id

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.store.shape

    @property
    def units(self) -> str:
        """Of the store."""
        return self.store.units

    @property
    def domain(self) -> Domain:
        """Of the store."""
        return self.store.domain

    @property
    def columns(self) -> list[str]:
        """Names of the store's columns."""
        return self.store.columns

    @property
    def rows(self) -> pandas.DataFrame:
        """The store's rows."""
        return self.store.rows

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, position: int | slice) -> np.ndarray:
        return images_at(self, position)

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions`, shape (B, C, H, W)."""
        return self.store.read(positions)

    def masks(self, positions: Positions) -> np.ndarray:
        """Masks at `positions`, shape (B, H, W)."""
        return self.store.masks(positions)

    def column(self, name: str) -> np.ndarray:
        """A column of the store's rows, shape (N,)."""
        return self.store.column(name)

    def positions(self, split: str) -> np.ndarray:
        """Positions of the rows of a split, int64, shape (n,)."""
        return self.store.positions(split)


@dataclass(frozen=True)
class Noise:
    """Noise of a scanner.

    Attributes:
        kind: `gaussian`, as in CT; `rician`: the magnitude of a complex signal with Gaussian noise in both parts, as in MR.
        sigma: Share of the intensity range.
        seed: An image's noise depends on it and on the image's position, on nothing else.

    References:
        Gudbjartsson & Patz 1995, doi 10.1002/mrm.1910340618 (Rician).
    """

    kind: Literal["gaussian", "rician"]
    sigma: float
    seed: int = 0

    def add(self, unit: np.ndarray, position: int) -> np.ndarray:
        """Noisy version of one image in unit intensity, (C, H, W)."""
        draw = np.random.default_rng((self.seed, position))
        noisy = unit + self.sigma * draw.standard_normal(unit.shape, np.float32)
        if self.kind == "gaussian":
            return noisy
        noisy = noisy - np.minimum(unit, 0)  # a magnitude begins at 0
        return np.hypot(noisy, self.sigma * draw.standard_normal(unit.shape, np.float32))


class NoisyStore(AlteredStore):
    """Images with noise, float32.

    Args:
        store: Clean.
        noise: Kind and strength.
        low: Value that is 0 in unit intensity; `high` is 1 (see `Scale`).
    """

    def __init__(self, store: Images, noise: Noise, low: float, high: float):
        super().__init__(store)
        self.noise, self.low, self.high = noise, low, high

    @property
    def id(self) -> str:
        """The store's, with the noise."""
        return f"{self.store.id}+{asdict(self.noise)} on [{self.low:g}, {self.high:g}]"

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions`, shape (B, C, H, W)."""
        span = np.float32(self.high - self.low)
        unit = (self.store.read(positions).astype(np.float32) - np.float32(self.low)) / span
        noisy = [self.noise.add(image, int(position)) for image, position in zip(unit, positions, strict=True)]
        return np.stack(noisy).astype(np.float32) * span + np.float32(self.low)


class ClearedAir(AlteredStore):
    """Images without the grey level of air, which gives the body region away where each image was scaled on its own.

    Images in HU: whatever is at most −950 HU becomes −1000 HU. Others: air becomes 0 and the brightest pixel 255, linearly, and
    their units are `display`; see `clear_air`.

    Args:
        store: CT images.

    Raises:
        StoreError: If its images are in colour.
    """

    def __init__(self, store: Images):
        super().__init__(store)
        if store.units == "rgb":
            raise StoreError(f"{store.path}: air can be cleared of CT images; these are in colour. Leave out `air`.")

    @property
    def id(self) -> str:
        """The store's, with the alteration."""
        return f"{self.store.id}+air clear"

    @property
    def units(self) -> str:
        """`hu` or `display`."""
        return "hu" if self.store.units == "hu" else "display"

    @property
    def card(self) -> StoreCard:
        """The store's, with these units."""
        return replace(self.store.card, units=self.units)

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions`, shape (B, C, H, W); float32 unless in HU."""
        images = self.store.read(positions)
        if self.units == "hu":
            return np.where(images <= AIR_UP_TO_HU, images.dtype.type(AIR_HU), images)
        return clear_air(images)


def clear_air(images: np.ndarray) -> np.ndarray:
    """Scale each image so that its air is 0 and its brightest pixel 255.

    Air is the most frequent of 256 grey levels on the border of an image, in a histogram smoothed over nine levels. What is at
    most a twentieth of the range above it becomes 0 too.

    Args:
        images: Shape (B, C, H, W), brighter where denser.

    Returns:
        float32, shape (B, C, H, W). An image without contrast becomes 0.
    """
    values = images.astype(np.float32)
    low, high = (reduce(values, axis=(1, 2, 3), keepdims=True) for reduce in (np.min, np.max))
    border = [values[..., 0, :], values[..., -1, :], values[..., 1:-1, 0], values[..., 1:-1, -1]]
    span = np.maximum(high - low, 1e-6)
    levels = (
        np.rint((np.concatenate(border, 2) - low[..., 0]) / span[..., 0] * 255).astype(int).reshape(len(values), -1)
    )
    frequent = [np.bincount(of_image, minlength=256).argmax() for of_image in levels]
    air = low + span * np.reshape(frequent, low.shape).astype(np.float32) / 255
    zero = air + AIR_TOLERANCE * (high - air)
    return np.clip((values - zero) / np.maximum(high - zero, 1e-6), 0, 1) * np.float32(255)


class RecodedMasks(AlteredStore):
    """Masks in a task's classes.

    Args:
        store: With masks.
        codes: Class of each value that a mask may hold, int64; 0 is background, −1 ignored.
    """

    def __init__(self, store: Images, codes: np.ndarray):
        super().__init__(store)
        self.codes = codes

    def masks(self, positions: Positions) -> np.ndarray:
        """Masks at `positions`, class codes, int64, shape (B, H, W)."""
        return self.codes[self.store.masks(positions)]


class SelectedRows(AlteredStore):
    """Some rows of a store, as a store of their own.

    Args:
        store: With these and other rows.
        selected: Positions of the rows in `store`, int64, shape (n,).
    """

    def __init__(self, store: Images, selected: np.ndarray):
        super().__init__(store)
        self.selected = np.asarray(selected, np.int64)

    @property
    def id(self) -> str:
        """The store's, with a hash of the positions."""
        return f"{self.store.id}, rows {hashlib.blake2b(self.selected.tobytes(), digest_size=8).hexdigest()}"

    @property
    def rows(self) -> pandas.DataFrame:
        """The selected rows of the store's."""
        return self.store.rows.iloc[self.selected]

    def __len__(self) -> int:
        return len(self.selected)

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions` among the selected, shape (B, C, H, W)."""
        return self.store.read(self.selected[positions])

    def masks(self, positions: Positions) -> np.ndarray:
        """Masks at `positions` among the selected, shape (B, H, W)."""
        return self.store.masks(self.selected[positions])

    def column(self, name: str) -> np.ndarray:
        """A column of the selected rows, shape (n,)."""
        return np.asarray(self.store.column(name))[self.selected]

    def positions(self, split: str) -> np.ndarray:
        """Positions among the selected of the rows of a split, int64, shape (m,)."""
        return np.flatnonzero(np.isin(self.selected, self.store.positions(split)))

    @property
    def sentence(self) -> str:
        """How many of the images were selected."""
        return f"{self.path.name}: a sample of {len(self):,} of {len(self.store):,} images, all of each drawn patient"


def sampled(store: Images, seed: int, rows: np.ndarray | None = None, most: int | None = None) -> Images:
    """A store itself, or a sample of it if it has too many images for an analysis of all pairs.

    Args:
        store: The store.
        seed: Seed of the sample.
        rows: Positions of the images that it may have, ascending; None: all.
        most: Largest number of images; None: `MOST_ANALYSED`.

    Returns:
        The store if `rows` are not more than `most`. Else as many whole patients (single images where patients are unknown), in
        random order, as have at most `most` images.
    """
    rows, most = np.arange(len(store)) if rows is None else rows, most or MOST_ANALYSED
    if len(rows) <= most:
        return store
    patients = store.column("patient")[rows]
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    unknown = np.array([patient is None or patient != patient for patient in patients], bool)
    codes[unknown] = len(names) + np.arange(unknown.sum())
    _, codes = np.unique(codes, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(codes.max() + 1)[codes]
    last = int(np.searchsorted(np.cumsum(np.bincount(rank)), most, side="right"))
    return SelectedRows(store, rows[rank < max(1, last)])
