"""Neighbouring slices of a volume: which they are, and a store whose images have them as channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ssl_transfer.channels import InputChannels
from ssl_transfer.data.altered import AlteredStore, SelectedRows
from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.display import LUMINANCE
from ssl_transfer.data.images import Images, Positions

VOLUME = ("patient", "study", "series", "volume")  # names of series may repeat from patient to patient


def grouped(store: Images, positions: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Images that agree in all of some columns.

    Args:
        store: The store.
        positions: Positions of the images, (n,).
        names: Columns; those that the store does not have are left out.

    Returns:
        The number of the group of each image, (n,), and the columns.
    """
    table = pd.DataFrame({name: store.column(name)[positions] for name in names if name in store.columns})
    codes = table.groupby(list(table), dropna=False, sort=False).ngroup() if len(table.columns) else np.zeros(0)
    return np.asarray(codes), table


def numbers(store: Images, positions: np.ndarray, name: str) -> np.ndarray:
    """A column of numbers, float64 (n,); NaN where one is unknown, or if the store does not have the column."""
    if name not in store.columns:
        return np.full(len(positions), np.nan)
    return pd.to_numeric(pd.Series(store.column(name)[positions]), errors="coerce").to_numpy(float)


def neighbouring_slices(store: Images, context: int) -> np.ndarray:
    """For every image its neighbours in the same volume and split, in the order of their slices, itself in the middle.

    Volumes are those of a series; where series are unknown, the images of a patient, if no number of a slice repeats. The first
    and the last slice stand for those that would follow beyond them, and an image of an unknown place for all of its neighbours.
    Slices that the store lacks are passed over.

    Args:
        store: The store.
        context: Number of slices, odd.

    Returns:
        Positions, int64 (N, context).
    """
    every = np.arange(len(store))
    neighbours = np.repeat(every[:, None], context, 1)
    unit, table = grouped(store, every, (*VOLUME, "split"))
    place = numbers(store, every, "slice")
    order = every[~np.isnan(place) & _is_volume(table, unit, place)]
    order = order[np.lexsort((place[order], unit[order]))]
    units = unit[order]
    first, behind = np.searchsorted(units, units, "left"), np.searchsorted(units, units, "right")
    ranks = np.arange(len(order))[:, None] + np.arange(context) - context // 2
    neighbours[order] = order[np.clip(ranks, first[:, None], behind[:, None] - 1)]
    return neighbours


def _is_volume(table: pd.DataFrame, unit: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Whether each image is one of a volume, bool (N,)."""
    unknown = np.zeros(len(place), bool)
    of_series = table["series"].notna().to_numpy() if "series" in table else unknown
    of_patient = table["patient"].notna().to_numpy() if "patient" in table else unknown
    if of_series.all() or not of_patient.any():
        return of_series
    repeats = pd.DataFrame({"unit": unit, "place": place}).duplicated().to_numpy() & ~np.isnan(place)
    return of_series | (of_patient & ~np.isin(unit, unit[repeats]))


class StackedSlices(AlteredStore):
    """Grey images, each with its neighbours as channels; colours become their luminance.

    Args:
        store: With one or three channels.
        context: Number of slices, see `neighbouring_slices`.

    Attributes:
        neighbours: Positions of the slices of every image, int64 (N, context).
    """

    def __init__(self, store: Images, context: int):
        super().__init__(store)
        self.context = context
        self.neighbours = neighbouring_slices(store, context)

    @property
    def id(self) -> str:
        """The store's, with the number of slices."""
        return f"{self.store.id}+{self.context} slices"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(context, H, W)."""
        return self.context, *self.store.shape[1:]

    @property
    def units(self) -> str:
        """The store's; `display` if it is in colour."""
        return "display" if self.store.units == "rgb" else self.store.units

    @property
    def card(self) -> StoreCard:
        """The store's, with these units."""
        return replace(self.store.card, units=self.units)

    def read(self, positions: Positions) -> np.ndarray:
        """Images at `positions` with their neighbours, shape (B, context, H, W)."""
        wanted = self.neighbours[positions]
        slices, places = np.unique(wanted, return_inverse=True)
        images = self.store.read(slices)
        if images.shape[1] > 1:
            images = np.tensordot(images, np.asarray(LUMINANCE, np.float32), axes=(1, 0))[:, None]
        return images[places.reshape(wanted.shape), 0]


def with_channels_of(store: Images, channels: InputChannels) -> Images:
    """A store as a backbone with these channels reads it: with neighbouring slices, and without colour.

    Windows are no part of it: they are applied where values become unit intensity, see `intensity.Scale`.
    """
    if not channels.are_stated or isinstance(store, StackedSlices):
        return store
    if channels.context == 1 and store.shape[0] == 1:
        return store
    if isinstance(store, SelectedRows):  # neighbours are those of the whole store
        return SelectedRows(with_channels_of(store.store, channels), store.selected)
    return StackedSlices(store, channels.context)


def slices_of(store: Images, positions: np.ndarray) -> np.ndarray:
    """Positions of the images that are read for some images: themselves, and those that are channels of them; ascending."""
    return np.unique(store.neighbours[positions]) if isinstance(store, StackedSlices) else positions


def lacking(store: Images, channels: InputChannels) -> list[str]:
    """What the images of a store, stacked or not, lack for these channels, in words; such channels repeat what there is."""
    lacks, images = [], store.store if isinstance(store, StackedSlices) else store
    if channels.are_stated and images.shape[0] > 1:
        lacks.append("its images are in colour")
    if channels.windows_hu and images.units != "hu":
        lacks.append(f"its images are not in HU ({images.units})")
    if channels.context > 1:
        stacked = store if isinstance(store, StackedSlices) else StackedSlices(store, channels.context)
        neighbours = stacked.neighbours
        if (neighbours == neighbours[:, :1]).all():
            lacks.append("none of its images has a neighbouring slice (columns series and slice)")
    return lacks


def repeated(store: Images, channels: InputChannels) -> list[str]:
    """Notes for the reader of a result: why channels repeat what there is."""
    return [f"channels: {lacks}: repeated" for lacks in lacking(store, channels)]
