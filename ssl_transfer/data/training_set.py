"""Training sets: the training images of one store, or of several stores with stated shares, in a random order.

Rows are numbered consecutively over the stores. The order of an epoch is a function of (seed, epoch): there is no state to
restore, and memory does not grow with the number of images, except for labels if a method needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ssl_transfer.data.counters import shuffled
from ssl_transfer.data.images import Images
from ssl_transfer.data.positives import Partners
from ssl_transfer.data.transfer import to_device
from ssl_transfer.data.views import ViewBatch, ViewMaker

PASSES = 2**32  # passes over a store are numbered from here, so that their orders differ from those of epochs


@dataclass(frozen=True)
class StoreShare:
    """A store's part of a training set.

    Attributes:
        store: The store.
        positions: Positions of its training images, int64 (n,), ascending.
        maker: Makes the views of its images.
        share: Share of the images of an epoch, in (0, 1].
        partners: The images that further views are made of; None: the same.
    """

    store: Images
    positions: np.ndarray
    maker: ViewMaker
    share: float = 1.0
    partners: Partners | None = None

    def read_partners(self, positions: np.ndarray, seed: int, epoch: int | np.ndarray) -> torch.Tensor | None:
        """Pixels of the partners of images at `positions` (B,), see `Partners.of`; None: these are the images themselves."""
        if self.partners is None:
            return None
        return torch.from_numpy(self.store.read(self.partners.of(positions, seed, epoch)))


class RawBatch(NamedTuple):
    """Images of one store: index of the store, positions of the images among the requested rows, pixels, masks, and partners."""

    part: int
    chosen: np.ndarray
    images: torch.Tensor
    masks: torch.Tensor | None
    partners: torch.Tensor | None = None


class TrainingSet:
    """Images to train on.

    An epoch has as many images as the stores have together, and each store contributes its share; a store whose share is
    larger than its size is passed through several times per epoch.

    Args:
        parts: The stores and their shares, which sum to 1.
        seed: Seed of the run.
        labels: Class codes of all rows, or several 0/1 labels per row; None if the method needs none.
        masked: Whether labels are the masks of the images, cropped, rotated and flipped like the views.
    """

    def __init__(self, parts: Sequence[StoreShare], seed: int, labels: np.ndarray | None = None, masked: bool = False):
        self.parts, self.seed, self.labels, self.masked = parts, seed, labels, masked
        self.offsets = np.cumsum([0, *(len(part.store) for part in parts)])
        ends = np.cumsum([part.share for part in parts]) * sum(len(part.positions) for part in parts)
        self._ends = np.round(ends).astype(np.int64)

    def __len__(self) -> int:
        """Images per epoch."""
        return int(self._ends[-1])

    def rows(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Rows at `positions` (B,) in the order of an epoch; int64."""
        slots = shuffled(positions, len(self), self.seed, epoch)
        rows = np.empty_like(slots)
        start = 0
        for index, (part, end) in enumerate(zip(self.parts, self._ends, strict=True)):
            of_store = (slots >= start) & (slots < end)
            passes, in_pass = np.divmod(slots[of_store] - start + epoch * (end - start), len(part.positions))
            chosen = np.empty_like(passes)
            for number in np.unique(passes):
                same_pass = passes == number
                order = PASSES * (index + 1) + int(number)
                chosen[same_pass] = shuffled(in_pass[same_pass], len(part.positions), self.seed, order)
            rows[of_store] = part.positions[chosen] + self.offsets[index]
            start = end
        return rows

    def read(self, rows: np.ndarray, epoch: int | np.ndarray = 0) -> list[RawBatch]:
        """Read pixels (and masks) of rows, store by store, and of their partners in one epoch, or in one per row, (B,)."""
        epochs = np.broadcast_to(epoch, len(rows))
        owners = np.searchsorted(self.offsets, rows, side="right") - 1
        batches = []
        for index in np.unique(owners):
            chosen = np.flatnonzero(owners == index)
            part, positions = self.parts[index], rows[chosen] - self.offsets[index]
            masks = torch.from_numpy(part.store.masks(positions).astype(np.int64)) if self.masked else None
            partners = part.read_partners(positions, self.seed, epochs[chosen])
            batches.append(RawBatch(int(index), chosen, torch.from_numpy(part.store.read(positions)), masks, partners))
        return batches

    def views(self, read: list[RawBatch], rows: np.ndarray, epoch: int | np.ndarray) -> ViewBatch:
        """Make views of the batches that `read` returned, in the order of `rows`, for one epoch or one per row, (B,)."""
        made, epochs = [], np.broadcast_to(epoch, len(rows))
        for index, chosen, images, masks, partners in read:
            maker = self.parts[index].maker
            if masks is None:
                made.append((chosen, maker(images, rows[chosen], epochs[chosen], partners)))
            else:
                made.append((chosen, maker.pair(images, masks, rows[chosen], epochs[chosen])))
        views = made[0][1]
        if len(made) > 1:
            back = torch.from_numpy(np.argsort(np.concatenate([chosen for chosen, _ in made])))
            back = to_device(back, views[0].device)
            views = [torch.cat(parts)[back] for parts in zip(*(v for _, v in made), strict=True)]
        if self.masked:
            *views, labels = views
        else:
            labels = None if self.labels is None else to_device(torch.from_numpy(self.labels[rows]), views[0].device)
        return ViewBatch(views, torch.from_numpy(rows), labels)

    def key(self, row: int) -> str:
        """Store and position of a row, for messages: `stores/radnet: 17`."""
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"{self.parts[index].store.path}: {row - self.offsets[index]}"
