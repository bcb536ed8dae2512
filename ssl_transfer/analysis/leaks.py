"""Leaks between splits: near-duplicates that stand on both sides, found among neighbours and confirmed in the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as functional

from ssl_transfer.analysis.neighborhood import Neighborhood
from ssl_transfer.data.store import ImageStore

SIDE = 64  # pixels at which details are compared
FINEST, COARSEST = 1.0, 2.0  # standard deviations of two blurs, pixels: details are what lies between
SHIFT = 4  # pixels, in each direction, by which a duplicate may be moved
DUPLICATE = 0.9  # correlation of details from which a pair counts as near-duplicates
BATCH = 512


@dataclass(frozen=True)
class Leaks:
    """Pairs of near-duplicates.

    Attributes:
        pairs: row_a, row_b, split_a, split_b, patient_a, patient_b, similarity (of features), details (correlation), across
            (whether the splits differ), most alike first.
        compared: Pairs of neighbours whose pixels were compared.
    """

    pairs: pd.DataFrame
    compared: int

    @property
    def across(self) -> pd.DataFrame:
        """Those whose images are in different splits: leaks."""
        return self.pairs[self.pairs["across"]]

    def sentence(self) -> str:
        """What was found, for a reader."""
        found = self.across
        if not len(found):
            return f"No near-duplicates across splits among {self.compared:,} pairs of neighbours."
        kinds = found.groupby(["split_a", "split_b"], sort=True).size()
        told = ", ".join(f"{count:,} between {a} and {b}" for (a, b), count in kinds.items())
        return (
            f"Leak: {len(found):,} near-duplicates across splits ({told}). Scores on these splits are too good: ingest with "
            "--resplit by patient, or leave these images out."
        )


def find_leaks(store: ImageStore, neighborhood: Neighborhood, threshold: float = DUPLICATE) -> Leaks:
    """Compare the details of every pair of neighbours of different patients, or of different splits.

    Features say which images are worth comparing, pixels decide: of images at 64 × 64 the details between a blur of one pixel
    and one of two are correlated, the best of shifts by up to four pixels and a horizontal flip. Another patient in the same
    position shares coarse structure but not details: no pair of chest X-rays of 2,647 children reaches 0.9 (a test says so). The
    same image after JPEG, light noise, a change of brightness or contrast, a flip or a shift by two pixels does; after a
    crop by a tenth or a rotation by five degrees it does not. Neighbours of one patient within one split are no finding and
    are not compared.

    Args:
        store: Whose rows the neighbourhood is of.
        neighborhood: Of all its rows, in its order.
        threshold: Correlation of details from which a pair counts.
    """
    splits, patients = store.column("split"), store.column("patient")
    one = np.repeat(np.arange(len(splits)), neighborhood.k)
    other = neighborhood.positions.ravel()
    first, second = np.minimum(one, other), np.maximum(one, other)
    _, kept = np.unique(first * len(splits) + second, return_index=True)  # a pair of mutual neighbours counts once
    first, second, similarity = first[kept], second[kept], neighborhood.similarities.ravel()[kept]
    known = np.array([who is not None and who == who for who in patients])
    same_patient = known[first] & known[second] & (patients[first] == patients[second])
    across = splits[first] != splits[second]
    wanted = across | ~same_patient
    first, second, similarity, across = (values[wanted] for values in (first, second, similarity, across))
    details = _detail_correlations(store, first, second)
    found = np.flatnonzero(details >= threshold)
    found = found[np.argsort(-details[found], kind="stable")]
    a, b = first[found], second[found]
    pairs = pd.DataFrame(
        {
            "row_a": a, "row_b": b, "split_a": splits[a], "split_b": splits[b], "patient_a": patients[a],
            "patient_b": patients[b], "similarity": similarity[found], "details": details[found], "across": across[found],
        }
    )  # fmt: skip
    return Leaks(pairs, len(first))


def _detail_correlations(store: ImageStore, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Best correlation of details over shifts and a flip, of each pair, (P,)."""
    rows, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    spectra = torch.cat([_spectra(store, part) for part in np.array_split(rows, max(1, -(-len(rows) // BATCH)))])
    one, other = torch.from_numpy(place[: len(first)]), torch.from_numpy(place[len(first) :])
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), BATCH):
        part = slice(start, start + BATCH)
        a, b = spectra[one[part]], spectra[other[part]]
        best = [_peak(a * turned.conj()) for turned in (b, _flipped(b))]
        found[part] = torch.maximum(*best).numpy()
    return found


def _spectra(store: ImageStore, rows: np.ndarray) -> torch.Tensor:
    """Fourier transforms of the details of images, brought to length 1, (n, SIDE, SIDE // 2 + 1)."""
    images = torch.from_numpy(np.asarray(store.__getitems__(rows), np.float32)).mean(1, keepdim=True)
    small = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    details = (_blurred(small, FINEST) - _blurred(small, COARSEST))[:, 0]
    details = details - details.mean((1, 2), keepdim=True)
    length = details.norm(dim=(1, 2), keepdim=True)
    return torch.fft.rfft2(torch.where(length > 1e-6, details / length.clamp(min=1e-6), 0.0))


def _blurred(images: torch.Tensor, deviation: float) -> torch.Tensor:
    reach = round(3 * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation).square())
    kernel = (weights / weights.sum())[None, None, None]
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel), kernel.transpose(2, 3))


def _flipped(spectra: torch.Tensor) -> torch.Tensor:
    """Transforms of the images mirrored left to right (up to a shift of one pixel, which the search allows)."""
    return torch.roll(torch.flip(spectra, [1]), 1, 1).conj()


def _peak(spectra: torch.Tensor) -> torch.Tensor:
    """Largest correlation within the allowed shifts, (n,)."""
    correlation = torch.fft.irfft2(spectra, (SIDE, SIDE))
    near = torch.cat([torch.arange(SHIFT + 1), torch.arange(SIDE - SHIFT, SIDE)])
    return correlation[:, near][:, :, near].flatten(1).amax(1)
