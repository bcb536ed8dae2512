"""Leaks between splits: near-duplicates in different splits. Neighbours are the candidates; pixels confirm them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as functional

from ssl_transfer.data.altered import SelectedRows
from ssl_transfer.data.display import SCALED_RANGE, SOFT_TISSUE_HU
from ssl_transfer.data.images import Images
from ssl_transfer.measures.neighborhood import Neighborhood

SIDE = 64  # pixels of the images that are compared
FINE_BLUR, COARSE_BLUR = (
    1.0,
    2.0,
)  # standard deviations of two blurs, in pixels: the frequency band in between is compared
CONTRAST_BLUR = 3.0  # standard deviation, in pixels, of the blur that measures local contrast
CONTRAST_FLOOR = 0.5  # share of the global contrast that is added to the local contrast before division
SHIFT = 4  # largest shift of a duplicate in each direction, in pixels
DUPLICATE = 0.92  # band-pass correlation from which a pair counts as near-duplicates
BATCH = 128  # images, or pairs of transforms, per batch; so many fit into CPU caches
SINGLE_FREQUENCIES = (
    16  # of 32 per direction, whose magnitudes are stored one by one; those above are stored as one sum
)
ROUNDING = 2e-3  # largest error of a bound that is computed from magnitudes in float16
PAIRS = 8192  # pairs whose transforms are in memory at a time
READING = Lock()  # a store is read by one thread at a time
Part = TypeVar("Part")


@dataclass(frozen=True)
class Leaks:
    """Pairs of near-duplicates.

    Attributes:
        pairs: Columns row_a, row_b, split_a, split_b, patient_a, patient_b, similarity (of features), band_pass_correlation and
            across (whether the splits differ); the largest correlation first.
        compared: Number of pairs of neighbours whose pixels were compared.
        sample: Which images of the store were searched, as a clause; empty: all.
    """

    pairs: pd.DataFrame
    compared: int
    sample: str = ""

    @property
    def across(self) -> pd.DataFrame:
        """Pairs with images in different splits: leaks."""
        return self.pairs[self.pairs["across"]]

    def sentence(self) -> str:
        """The result in a sentence."""
        across = self.across
        if not len(across):
            return f"No near-duplicates across splits among {self.compared:,} pairs of neighbours.{self._searched}"
        kinds = Counter(" and ".join(sorted(pair)) for pair in zip(across["split_a"], across["split_b"], strict=True))
        pairs = ", ".join(f"{count:,} between {pair}" for pair, count in sorted(kinds.items()))
        return (
            f"Leak: {len(across):,} near-duplicates across splits ({pairs}). Scores on these splits are too optimistic: remove "
            f"these images, or check whether one patient has several ids.{self._searched}"
        )

    @property
    def _searched(self) -> str:
        return f" Searched was {self.sample}; pairs with other images are not found." if self.sample else ""


def find_leaks(store: Images, neighborhood: Neighborhood, threshold: float = DUPLICATE) -> Leaks:
    """Compute the band-pass correlation of every pair of neighbours of different patients, or of different splits.

    Features select candidate pairs, and pixels decide. Images are resized to 64 × 64 (HU in the soft-tissue window) and filtered
    to the band between a blur of one pixel and one of two pixels; local contrast is normalised. The result is the largest
    correlation over shifts by up to four pixels and a horizontal flip. Images of different patients in the same position share
    coarse structure but not this band: no pair of chest X-rays of 2,647 children reaches 0.9 (checked by a test). The same image
    after JPEG compression, light noise, a change of brightness or contrast, a flip or a shift by two pixels exceeds it; after a
    crop by a tenth or a rotation by five degrees it does not. Neighbours of one patient within one split are not compared.

    Args:
        store: The store, or rows of one (`altered.sampled`), which the answer then states.
        neighborhood: Neighbour graph of all its rows, in order.
        threshold: Smallest band-pass correlation of near-duplicates.
    """
    splits, patients = store.column("split"), store.column("patient")
    first_rows = np.repeat(np.arange(len(splits)), neighborhood.k)
    second_rows = neighborhood.positions.ravel()
    first, second = np.minimum(first_rows, second_rows), np.maximum(first_rows, second_rows)
    _, kept = np.unique(first * len(splits) + second, return_index=True)  # a pair of mutual neighbours counts once
    first, second, similarity = first[kept], second[kept], neighborhood.similarities.ravel()[kept]
    has_patient = np.array([patient is not None and patient == patient for patient in patients])
    same_patient = has_patient[first] & has_patient[second] & (patients[first] == patients[second])
    across = splits[first] != splits[second]
    to_compare = across | ~same_patient
    first, second, similarity, across = (values[to_compare] for values in (first, second, similarity, across))
    correlation = _band_pass_correlations(store, first, second, threshold)
    kept = np.flatnonzero(correlation >= threshold)
    kept = kept[np.argsort(-correlation[kept], kind="stable")]
    a, b = first[kept], second[kept]
    pairs = pd.DataFrame(
        {
            "row_a": a,
            "row_b": b,
            "split_a": splits[a],
            "split_b": splits[b],
            "patient_a": patients[a],
            "patient_b": patients[b],
            "similarity": similarity[kept],
            "band_pass_correlation": correlation[kept],
            "across": across[kept],
        }
    )
    return Leaks(pairs, len(first), store.sentence if isinstance(store, SelectedRows) else "")


def _band_pass_correlations(store: Images, first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Largest correlation of each pair over shifts and a flip, (P,); −1 where a bound shows that it is below the threshold.

    Every image is read once to compute its magnitudes (1 kB), whose bounds exclude nearly all pairs. Images of the remaining
    pairs are read again.
    """
    correlations = np.full(len(first), -1, np.float32)
    candidates = _candidate_pairs(store, first, second, threshold)
    for start in range(0, len(candidates), PAIRS):
        part = candidates[start : start + PAIRS]
        rows, first_rows, second_rows = _rows_and_positions(first[part], second[part])
        spectra = torch.cat(_in_parallel(lambda batch: _spectra(store, batch), _batches(rows)))
        pairs = list(zip(first_rows.split(BATCH), second_rows.split(BATCH), strict=True))
        best = _in_parallel(lambda pair, spectra=spectra: _best(*(spectra[rows] for rows in pair)), pairs)
        correlations[part] = torch.cat(best).numpy()
    return correlations


def _candidate_pairs(store: Images, first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Positions of the pairs whose correlation may reach the threshold, (p,).

    At any shift, the correlation is Σ A(f) B*(f) e^(…) over frequencies f, so it is at most Σ |A(f)| |B(f)|, or
    Σ |A(f)| |B(f mirrored)| for the mirrored image. For unrelated images with the same power spectrum this bound is about π/4,
    since their magnitudes follow a Rayleigh distribution.
    """
    if not len(first):
        return np.empty(0, np.int64)
    rows, first_rows, second_rows = _rows_and_positions(first, second)
    magnitudes = torch.cat(_in_parallel(lambda batch: _magnitudes(_spectra(store, batch)), _batches(rows)))

    def bound(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        a, b = (magnitudes[rows].float() for rows in pair)
        return torch.maximum(*((a * oriented).sum((1, 2)) for oriented in (b, b.flip(1))))

    bounds = torch.cat(
        _in_parallel(bound, list(zip(first_rows.split(8 * BATCH), second_rows.split(8 * BATCH), strict=True)))
    )
    return np.flatnonzero(bounds.numpy() >= threshold - ROUNDING)


def _magnitudes(spectra: torch.Tensor) -> torch.Tensor:
    """Magnitudes of transforms (n, SIDE, SIDE // 2 + 1), float16 (n, 2 S + 1, S + 2), S = SINGLE_FREQUENCIES; squares sum to 1.

    Rows are frequencies −S to S, columns 0 to S. The last column has, at frequency 0, the norm of all higher frequencies.
    """
    squares = spectra.abs().square() / SIDE**2
    squares[:, :, 1:-1] *= 2  # the transform of real images has half of the frequencies
    kept = squares[:, torch.arange(-SINGLE_FREQUENCIES, SINGLE_FREQUENCIES + 1), : SINGLE_FREQUENCIES + 1]
    beyond = squares.sum((1, 2)) - kept.sum((1, 2))
    magnitudes = functional.pad(kept, (0, 1))
    magnitudes[:, SINGLE_FREQUENCIES, -1] = beyond.clamp(min=0)
    return magnitudes.sqrt().half()


def _rows_and_positions(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """The rows that occur in pairs, (n,), and the positions of the first and second image of each pair among them."""
    rows, positions = np.unique(np.concatenate([first, second]), return_inverse=True)
    first_rows, second_rows = torch.from_numpy(positions).split(len(first))
    return rows, first_rows, second_rows


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def _in_parallel(function: Callable[[Part], torch.Tensor], parts: Sequence[Part]) -> list[torch.Tensor]:
    """Apply a function to each part in parallel, one thread per part, and return the results in order.

    Parts that fit into caches are too small to be divided among threads, which would mostly wait for each other.
    """
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(function, parts))
    finally:
        torch.set_num_threads(count)


def _spectra(store: Images, rows: np.ndarray) -> torch.Tensor:
    """Fourier transforms of the band-pass filtered images, normalised to length 1, (n, SIDE, SIDE // 2 + 1)."""
    with READING:
        images = store.read(rows)
    images = torch.from_numpy(np.asarray(images, np.float32)).mean(1, keepdim=True)
    if store.units == "hu":
        images = images.clamp(*SOFT_TISSUE_HU)  # otherwise the edges of bones and air dominate
    if store.units == "scaled":
        images = images.clamp(*SCALED_RANGE)  # as a backbone reads them
    small = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    band = (_blurred(small, FINE_BLUR) - _blurred(small, COARSE_BLUR))[:, 0]
    local_contrast = _blurred(band[:, None].square(), CONTRAST_BLUR)[:, 0].clamp(min=0).sqrt()
    global_contrast = band.square().mean((1, 2), keepdim=True).sqrt()
    rounding = 1e-5 * small[:, 0].abs().amax(
        (1, 2), keepdim=True
    )  # largest value that a constant image has after filtering
    band = torch.where(global_contrast > rounding, band / (local_contrast + CONTRAST_FLOOR * global_contrast), 0.0)
    band = band - band.mean((1, 2), keepdim=True)
    length = band.norm(dim=(1, 2), keepdim=True)
    return torch.fft.rfft2(torch.where(length > 1e-6, band / length.clamp(min=1e-6), 0.0))


def _blurred(images: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of images (…, SIDE, SIDE) with edge padding, as products with a matrix."""
    reach = round(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation).square())
    blur = torch.zeros(SIDE, SIDE)
    for step, weight in zip(range(-reach, reach + 1), weights / weights.sum(), strict=True):
        blur[torch.arange(SIDE), (torch.arange(SIDE) + step).clamp(0, SIDE - 1)] += weight
    return blur @ images @ blur.T


def _flipped(spectra: torch.Tensor) -> torch.Tensor:
    """Transforms of the images mirrored left to right (up to a shift of one pixel, which the search allows)."""
    return torch.roll(torch.flip(spectra, [1]), 1, 1).conj()


def _best(first_rows: torch.Tensor, second_rows: torch.Tensor) -> torch.Tensor:
    """Largest correlation of pairs of images over shifts and a flip, from their transforms, (n,)."""
    return torch.maximum(*(_peak(first_rows * oriented.conj()) for oriented in (second_rows, _flipped(second_rows))))


def _peak(spectra: torch.Tensor) -> torch.Tensor:
    """Largest correlation within the allowed shifts, (n,)."""
    correlation = torch.fft.irfft2(spectra, (SIDE, SIDE))
    near = torch.cat([torch.arange(SHIFT + 1), torch.arange(SIDE - SHIFT, SIDE)])
    return correlation[:, near][:, :, near].flatten(1).amax(1)
