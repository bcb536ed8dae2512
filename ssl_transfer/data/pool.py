"""The pool: the training images of one store, or of several with stated shares, in an order that is a function.

Rows of a pool count through its stores one after the other. Which row stands where in an epoch depends on (seed, epoch)
alone, so there is nothing to restore, and nothing that grows with the number of images but their labels,
where a method learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssl_transfer.data.counters import shuffled
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.views import ViewBatch, ViewMaker

PASSES = 2**32  # orders of a store's own images are named apart from orders of an epoch


@dataclass(frozen=True)
class Part:
    """One store of a pool.

    Attributes:
        store: Where the images are.
        positions: Those that may be used, int64 (n,), ascending.
        maker: Makes their views.
        share: Of the images of an epoch, in (0, 1].
    """

    store: ImageStore
    positions: np.ndarray
    maker: ViewMaker
    share: float = 1.0


class Pool:
    """Images to train on.

    An epoch has as many images as the stores have together, each store contributing its share; a store whose share is
    larger than its size is gone through several times before others are through once.

    Args:
        parts: The stores; shares add up to 1.
        seed: Of the run.
        labels: Class codes by row, where the method asks for them.
    """

    def __init__(self, parts: Sequence[Part], seed: int, labels: np.ndarray | None = None):
        self.parts, self.seed, self.labels = parts, seed, labels
        self.offsets = np.cumsum([0, *(len(part.store) for part in parts)])
        ends = np.cumsum([part.share for part in parts]) * sum(len(part.positions) for part in parts)
        self._ends = np.round(ends).astype(np.int64)

    def __len__(self) -> int:
        """Images per epoch."""
        return int(self._ends[-1])

    def rows(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Rows that stand at `places` (B,) of an epoch; int64."""
        slots = shuffled(places, len(self), self.seed, epoch)
        rows = np.empty_like(slots)
        start = 0
        for index, (part, end) in enumerate(zip(self.parts, self._ends, strict=True)):
            mine = (slots >= start) & (slots < end)
            passes, places_in_pass = np.divmod(slots[mine] - start + epoch * (end - start), len(part.positions))
            found = np.empty_like(passes)
            for number in np.unique(passes):
                within = passes == number
                order = PASSES * (index + 1) + int(number)
                found[within] = shuffled(places_in_pass[within], len(part.positions), self.seed, order)
            rows[mine] = part.positions[found] + self.offsets[index]
            start = end
        return rows

    def read(self, rows: np.ndarray) -> list[tuple[int, np.ndarray, torch.Tensor]]:
        """Pixels of some rows, store by store: which part, which of the rows, their images."""
        owners = np.searchsorted(self.offsets, rows, side="right") - 1
        found = []
        for index in np.unique(owners):
            chosen = np.flatnonzero(owners == index)
            images = self.parts[index].store.__getitems__(rows[chosen] - self.offsets[index])
            found.append((int(index), chosen, torch.from_numpy(images)))
        return found

    def views(self, read: list[tuple[int, np.ndarray, torch.Tensor]], rows: np.ndarray, epoch: int) -> ViewBatch:
        """Views of what `read` gave, in the order of `rows`."""
        made = [(chosen, self.parts[index].maker(images, rows[chosen], epoch)) for index, chosen, images in read]
        views = made[0][1]
        if len(made) > 1:
            back = torch.from_numpy(np.argsort(np.concatenate([chosen for chosen, _ in made])))
            views = [torch.cat(parts)[back.to(parts[0].device)] for parts in zip(*(v for _, v in made), strict=True)]
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows])
        return ViewBatch(views, torch.from_numpy(rows), labels)

    def key(self, row: int) -> str:
        """Where a row is, for a person: `stores/radnet: 17`."""
        index = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return f"{self.parts[index].store.path}: {row - self.offsets[index]}"
