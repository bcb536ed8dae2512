"""Stores that are altered while they are read: noise on the images, masks in a task's own classes. Nothing is copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ssl_transfer.data.store import ImageStore


class AlteredStore:
    """A store seen through a change; whatever is not changed is the store's own.

    Args:
        store: What is read.
    """

    def __init__(self, store: ImageStore | AlteredStore):
        self.store = store

    def __getattr__(self, name: str) -> Any:
        if name == "store":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.store, name)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.read([position % len(self)])[0]

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images at `positions`, shape (B, C, H, W)."""
        return self.store.read(positions)


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

    def __init__(self, store: ImageStore | AlteredStore, noise: Noise, low: float, high: float):
        super().__init__(store)
        self.noise, self.low, self.high = noise, low, high

    @property
    def id(self) -> str:
        """The store's, with the noise."""
        return f"{self.store.id}+{asdict(self.noise)} on [{self.low:g}, {self.high:g}]"

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Images at `positions`, shape (B, C, H, W)."""
        span = np.float32(self.high - self.low)
        unit = (self.store.read(positions).astype(np.float32) - np.float32(self.low)) / span
        noisy = [self.noise.add(image, int(position)) for image, position in zip(unit, positions, strict=True)]
        return np.stack(noisy).astype(np.float32) * span + np.float32(self.low)


class RecodedMasks(AlteredStore):
    """Masks in a task's classes.

    Args:
        store: With masks.
        codes: Class of each value that a mask may hold, int64; 0 is background.
    """

    def __init__(self, store: ImageStore, codes: np.ndarray):
        super().__init__(store)
        self.codes = codes

    def masks(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Masks at `positions`, class codes, int64, shape (B, H, W)."""
        return self.codes[self.store.masks(positions)]
