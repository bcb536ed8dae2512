"""Positives from other images: a second view from a neighbouring slice, or from another slice of the same patient."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.images import Images
from ssl_transfer.data.neighbours import VOLUME, grouped, numbers
from ssl_transfer.errors import RecipeError

Positive = Literal["same", "slice", "patient"]
PARTNER = 2**20  # number of the view, of which there are fewer, whose random numbers choose the partner


class Partners:
    """For each training image the images of which one, drawn anew in every epoch, makes its further views.

    Partners are training images themselves. An image without any, or whose place is unknown, is its own partner.

    Args:
        store: The store.
        positions: Positions of its training images, int64 (n,), ascending.
        positive: `slice`: images of the same volume, or of the same series where volumes are not told apart; `patient`: all
            images of the same patient.
        distance_mm: Of slices, along the normal: largest distance of a partner in mm. None: the next slice on either side.

    Raises:
        RecipeError: If the store does not tell series or patients apart, or knows neither number nor position of its slices.
    """

    def __init__(self, store: Images, positions: np.ndarray, positive: Positive, distance_mm: float | None):
        unit = _units(store, positions, positive)
        place = np.zeros(len(positions)) if positive == "patient" else _places(store, positions, distance_mm)
        known = (unit >= 0) & ~np.isnan(place)
        self.positions = np.asarray(positions)
        self._order = np.flatnonzero(known)[np.lexsort((place[known], unit[known]))]  # rank -> image
        self._rank = np.full(len(positions), -1)
        self._rank[self._order] = np.arange(len(self._order))
        units, places = unit[self._order], place[self._order]
        starts, ends = np.searchsorted(units, units, "left"), np.searchsorted(units, units, "right")
        if positive == "slice" and distance_mm is None:
            ranks = np.arange(len(self._order))
            starts, ends = np.maximum(starts, ranks - 1), np.minimum(ends, ranks + 2)
        elif positive == "slice":
            starts, ends = _within(units, places, float(distance_mm or 0))
        self._starts, self._ends = starts, ends

    def of(self, positions: np.ndarray, seed: int, epoch: int | np.ndarray) -> np.ndarray:
        """The partners of images in an epoch, or in one epoch per image, (B,).

        Args:
            positions: Positions of training images in the store, (B,).
            seed: Seed of the run.
            epoch: Epoch, counted from 0.

        Returns:
            Positions in the store, int64 (B,).
        """
        places = np.searchsorted(self.positions, positions)
        partners, ranks = np.asarray(positions).copy(), self._rank[places]
        grouped = ranks >= 0
        ranks = ranks[grouped]
        starts, others = self._starts[ranks], self._ends[ranks] - self._starts[ranks] - 1
        drawn = uniforms(seed, epoch, np.asarray(positions), PARTNER, 1)[grouped, 0]
        chosen = starts + np.minimum((drawn * others).astype(np.int64), np.maximum(others - 1, 0))
        chosen = np.where(others == 0, ranks, chosen + (chosen >= ranks))  # all but the image itself
        partners[grouped] = self.positions[self._order[chosen]]
        return partners


def _units(store: Images, positions: np.ndarray, positive: Positive) -> np.ndarray:
    """Number of the volume or patient of each image, −1 where it is unknown, (n,)."""
    needed = "patient" if positive == "patient" else "series"
    codes, table = grouped(store, positions, VOLUME[: 1 if positive == "patient" else None])
    if needed not in table or table[needed].isna().all():
        raise RecipeError(
            f"data.views.positive: {positive} needs the {needed} of the images, and {store.path} does not know it. "
            "Take positive: same."
        )
    return np.where(table[needed].isna(), -1, codes)


def _places(store: Images, positions: np.ndarray, distance_mm: float | None) -> np.ndarray:
    """Place of each image along the normal, in mm if there is a distance, else the number of its slice; NaN: unknown; (n,)."""
    slices = numbers(store, positions, "slice")
    if distance_mm is None:
        if np.isnan(slices).all():
            raise RecipeError(
                f"data.views.positive: slice needs the order of the slices, and {store.path} does not know it. Take positive: "
                "patient, or same."
            )
        return slices
    places = numbers(store, positions, "z_mm")
    places = np.where(np.isnan(places), slices * numbers(store, positions, "spacing_slice_mm"), places)
    if np.isnan(places).all():
        raise RecipeError(
            f"data.views.positive_mm: the distance of slices in {store.path} is unknown. Leave it out for the next slices."
        )
    return places


def _within(units: np.ndarray, places: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """First and behind the last rank within a distance, of ranks that are sorted by unit and place."""
    starts, ends = np.empty((2, len(units)), np.int64)
    for unit in np.unique(units):
        first, behind = np.searchsorted(units, [unit, unit + 1])
        of_unit = places[first:behind]
        starts[first:behind] = first + np.searchsorted(of_unit, of_unit - distance, "left")
        ends[first:behind] = first + np.searchsorted(of_unit, of_unit + distance, "right")
    return starts, ends
