"""Overlap of two masks: Dice and HD95 of one class in one case, and the policy for empty masks.

A case is a volume and not a slice, since a mean over slices would depend on the slice thickness. `POLICY` is the treatment of
empty masks; results state it (`policy_note`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas

BACKGROUND = 0
IGNORED = -1  # of true masks: these pixels belong to no class, neither in truth nor in predictions
POLICY = (
    "per case and class: both masks empty: Dice 1, HD95 0; one of them empty: Dice 0, HD95 the diagonal of the case; "
    "no case is left out; background is not averaged"
)


def policy_note(millimetres: bool) -> str:
    """The note about overlaps in a result: `POLICY`, and the unit of HD95."""
    return f"overlap {POLICY}; hd95 in {'mm' if millimetres else 'pixels'}"


@dataclass(frozen=True, eq=False)
class MaskPair:
    """The masks of one class of one case, cropped to the smallest box that contains both.

    Attributes:
        truth: True mask, bool (S, H, W), or (H, W) for a single slice.
        predicted: Predicted mask, of the same shape.
        spacing: Spacing of each axis, in mm or pixels.
        diagonal: Distance between opposite corner voxels of the whole case, which is the largest possible distance.
    """

    truth: np.ndarray
    predicted: np.ndarray
    spacing: np.ndarray
    diagonal: float

    @cached_property
    def truth_voxels(self) -> int:
        """Size of the true mask."""
        return int(self.truth.sum())

    @cached_property
    def predicted_voxels(self) -> int:
        """Size of the predicted mask."""
        return int(self.predicted.sum())


def mask_pairs(
    truth: np.ndarray, predicted: np.ndarray, classes: Mapping[int, str], spacing_mm: Sequence[float] | None
) -> Iterator[tuple[str, MaskPair]]:
    """The masks of every class of a case, without the background; for arguments and errors see `metrics.case_overlap`.

    Where truth is `IGNORED`, the prediction is taken as background.
    """
    if truth.shape != predicted.shape or truth.ndim != 3:
        raise ValueError(
            f"truth of shape {truth.shape}, predictions of shape {predicted.shape}; expected one shape (S, H, W)"
        )
    predicted = np.where(truth == IGNORED, BACKGROUND, predicted)
    spacing = np.ones(3) if spacing_mm is None else np.asarray(spacing_mm, float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing {spacing_mm}: expected three lengths in mm, or None")
    if len(truth) == 1:
        truth, predicted, spacing = truth[0], predicted[0], spacing[1:]
    diagonal = float(np.linalg.norm((np.array(truth.shape) - 1) * spacing))
    for number, name in classes.items():
        if number != BACKGROUND:
            box = _box((truth == number) | (predicted == number))
            yield name, MaskPair(truth[box] == number, predicted[box] == number, spacing, diagonal)


def dice(pair: MaskPair) -> float:
    """2 |T ∩ P| / (|T| + |P|), in [0, 1]; 1 if both masks are empty.

    Source:
        Dice 1945; Reinke et al. 2024, https://arxiv.org/abs/2302.01790.
    """
    voxels = pair.truth_voxels + pair.predicted_voxels
    return 2 * int((pair.truth & pair.predicted).sum()) / voxels if voxels else 1.0


def hd95(pair: MaskPair) -> float:
    """The larger of the two 95th percentiles of the distances from each surface to the other, between centres of voxels.

    A voxel of the class belongs to the surface if a voxel that shares a face with it is not of the class, or if it is at the
    border of the case. HD95 is 0 if both masks are empty, and the diagonal of the case if one of them is.

    Source:
        Huttenlocher 1993, computed by MONAI; Reinke et al. 2024, https://arxiv.org/abs/2302.01790.
    """
    if pair.truth_voxels and pair.predicted_voxels:
        return _surface_distance(pair)
    return pair.diagonal if pair.truth_voxels or pair.predicted_voxels else 0.0


def overlap_counts(cases: pandas.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """How often the policy for empty masks applies: the number of cases in which truth, prediction or both are empty.

    Args:
        cases: Rows of `metrics.case_overlap`; columns `case`, `class`, `truth_voxels`, `found_voxels`.
        classes: Names, without the background.

    Returns:
        `n_cases`; for each class `n_empty_truth_CLASS` (false positives), `n_empty_found_CLASS` (missed) and
        `n_empty_both_CLASS`.
    """
    truth, predicted = cases["truth_voxels"] == 0, cases["found_voxels"] == 0
    counts = {"n_cases": int(cases["case"].nunique())}
    for name in classes:
        of_class = cases["class"] == name
        for which, empty in (("truth", truth & ~predicted), ("found", predicted & ~truth), ("both", truth & predicted)):
            counts[f"n_empty_{which}_{name}"] = int((of_class & empty).sum())
    return counts


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that contains a mask; an empty box for an empty mask."""
    from scipy import ndimage

    return next(iter(ndimage.find_objects(mask.view(np.uint8))), (slice(0),) * mask.ndim)


def _surface_distance(pair: MaskPair) -> float:
    """HD95 of two masks, neither empty."""
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # takes ten seconds

    masks = (torch.from_numpy(mask[None, None]) for mask in (pair.predicted, pair.truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        return compute_hausdorff_distance(
            *masks, include_background=True, percentile=95, spacing=pair.spacing.tolist()
        ).item()
