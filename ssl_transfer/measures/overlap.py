"""Overlap of two masks: Dice, HD95 and NSD of one class in one case, and the policy for empty masks.

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
    import torch

BACKGROUND = 0
IGNORED = -1  # of true masks: these pixels belong to no class, neither in truth nor in predictions
TOLERANCE = 2.0  # of NSD, unless the task card states another; mm, or pixels where spacings are unknown
POLICY = (
    "per case and class: both masks empty: Dice 1, HD95 0, NSD 1; one of them empty: Dice 0, HD95 the diagonal of the case, "
    "NSD 0; no case is left out; background is not averaged"
)


def policy_note(millimetres: bool, tolerance: float = TOLERANCE) -> str:
    """The note about overlaps in a result: `POLICY`, the unit of HD95, and the tolerance of NSD."""
    unit = "mm" if millimetres else "pixels"
    return f"overlap {POLICY}; hd95 in {unit}; nsd within {tolerance:g} {unit}"


@dataclass(frozen=True, eq=False)
class MaskPair:
    """The masks of one class of one case, cropped to the smallest box that contains both.

    Attributes:
        truth: True mask, bool (S, H, W), or (H, W) for a single slice.
        predicted: Predicted mask, of the same shape.
        spacing: Spacing of each axis, in mm or pixels.
        diagonal: Distance between opposite corner voxels of the whole case, which is the largest possible distance.
        tolerance: Distance of surfaces that NSD accepts, in the unit of the spacing.
    """

    truth: np.ndarray
    predicted: np.ndarray
    spacing: np.ndarray
    diagonal: float
    tolerance: float

    @cached_property
    def truth_voxels(self) -> int:
        """Size of the true mask."""
        return int(self.truth.sum())

    @cached_property
    def predicted_voxels(self) -> int:
        """Size of the predicted mask."""
        return int(self.predicted.sum())

    @cached_property
    def surface_distances(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance of each surface voxel of the prediction to the true surface, and the reverse; neither mask is empty."""
        import torch
        from monai.metrics.utils import get_edge_surface_distance  # takes ten seconds

        predicted, truth = (torch.from_numpy(mask) for mask in (self.predicted, self.truth))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
            _, distances, _ = get_edge_surface_distance(predicted, truth, spacing=self.spacing.tolist(), symmetric=True)
        return distances[0], distances[-1]


def mask_pairs(
    truth: np.ndarray,
    predicted: np.ndarray,
    classes: Mapping[int, str],
    spacing_mm: Sequence[float] | None,
    tolerance: float,
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
            yield name, MaskPair(truth[box] == number, predicted[box] == number, spacing, diagonal, tolerance)


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
        return max(float(distances.quantile(0.95)) for distances in pair.surface_distances)
    return pair.diagonal if pair.truth_voxels or pair.predicted_voxels else 0.0


def nsd(pair: MaskPair) -> float:
    """Normalised surface distance: the share of both surfaces that lies within the tolerance of the other, in [0, 1].

    Surfaces are those of `hd95`, and every surface voxel counts as much. NSD is 1 if both masks are empty, and 0 if one is.

    Source:
        Nikolov et al. 2021, https://arxiv.org/abs/1809.04430 (surface Dice), computed by MONAI.
    """
    if pair.truth_voxels and pair.predicted_voxels:
        close = [distances <= pair.tolerance for distances in pair.surface_distances]
        return sum(int(each.sum()) for each in close) / sum(map(len, close))
    return 0.0 if pair.truth_voxels or pair.predicted_voxels else 1.0


def overlap_counts(cases: pandas.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """How often the policy for empty masks applies: the number of cases in which truth, prediction or both are empty.

    Args:
        cases: Rows of `metrics.case_overlap`; columns `case`, `class`, `truth_voxels`, `found_voxels`.
        classes: Names, without the background.

    Returns:
        `n_cases`; for each class `n_empty_truth_CLASS` (false positives), `n_empty_found_CLASS` (missed) and
        `n_empty_both_CLASS`; see `counts_note` for words.
    """
    truth, predicted = cases["truth_voxels"] == 0, cases["found_voxels"] == 0
    counts = {"n_cases": int(cases["case"].nunique())}
    for name in classes:
        of_class = cases["class"] == name
        for which, empty in (("truth", truth & ~predicted), ("found", predicted & ~truth), ("both", truth & predicted)):
            counts[f"n_empty_{which}_{name}"] = int((of_class & empty).sum())
    return counts


def counts_note(counts: Mapping[str, int], classes: Sequence[str]) -> str:
    """`overlap_counts` in words, without what never happens.

    Example:
        >>> counts_note({"n_cases": 9, "n_empty_truth_liver": 0, "n_empty_found_liver": 2, "n_empty_both_liver": 3}, ["liver"])
        '9 test cases; liver: both masks empty in 3, only the prediction empty in 2'
    """
    words = {"both": "both masks empty", "truth": "only the truth", "found": "only the prediction"}
    texts = [f"{counts['n_cases']} test case{'' if counts['n_cases'] == 1 else 's'}"]
    for name in classes:
        numbers = {word: counts[f"n_empty_{which}_{name}"] for which, word in words.items()}
        if parts := [
            f"{word}{'' if word.startswith('both') else ' empty'} in {count}"
            for word, count in numbers.items()
            if count
        ]:
            texts.append(f"{name}: {', '.join(parts)}")
    return "; ".join(texts)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that contains a mask; an empty box for an empty mask."""
    from scipy import ndimage

    return next(iter(ndimage.find_objects(mask.view(np.uint8))), (slice(0),) * mask.ndim)
