"""The protocol that tasks, evaluations and features read images by, from a store or an altered view of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ssl_transfer.data.card import StoreCard
from ssl_transfer.domains import Domain

if TYPE_CHECKING:
    import pandas

Positions = Sequence[int] | np.ndarray


@runtime_checkable
class Images(Protocol):
    """A store, or a view of one (`NoisyStore`, `RecodedMasks`)."""

    @property
    def path(self) -> Path:
        """Folder of the store."""
        ...

    @property
    def card(self) -> StoreCard:
        """The card of the store."""
        ...

    @property
    def id(self) -> str:
        """Content name: equal images, rows and splits give equal ids."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        ...

    @property
    def units(self) -> str:
        """`hu`, `display` (windowed, 0–255), `rgb`, `stored`, or `scaled` (see `StoreCard.value_range`)."""
        ...

    @property
    def domain(self) -> Domain:
        """Where the images come from."""
        ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns that describe the images."""
        ...

    @property
    def rows(self) -> pandas.DataFrame:
        """All columns: patient, series, slice, split, label, pixel_digest, file, …"""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int | slice) -> np.ndarray: ...

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions` (all in [0, len)), shape (B, C, H, W), in physical units."""
        ...

    def masks(self, positions: Positions) -> np.ndarray:
        """Masks at `positions`, shape (B, H, W), class ids; 0 is background."""
        ...

    def column(self, name: str) -> np.ndarray:
        """One column of the rows, shape (N,); missing values are None or NaN."""
        ...

    def positions(self, split: str) -> np.ndarray:
        """Positions of the rows of one split, ascending; int64, shape (n,)."""
        ...


def images_at(images: Images, position: int | slice) -> np.ndarray:
    """`images[position]`: one image, (C, H, W), or those of a slice, (B, C, H, W).

    Raises:
        IndexError: If there is no such image.
    """
    if isinstance(position, slice):
        return images.read(np.arange(len(images))[position])
    if not -len(images) <= position < len(images):
        raise IndexError(f"{images.path}: position {position} of {len(images)} images")
    return images.read([position % len(images)])[0]
