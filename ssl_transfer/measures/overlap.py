"""Overlap of segmentations: Dice and HD95 per case and named class, their means, and intervals over patients.

A case is a volume, not a slice, whose mean would depend on how finely the volume was cut. What an empty mask counts is
`POLICY`, and a result states it by `policy_note`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from scipy import ndimage

from ssl_transfer.measures.classification import bootstrap_intervals

BACKGROUND = 0
POLICY = (
    "per case and class: both masks empty: Dice 1, HD95 0; one of them empty: Dice 0, HD95 the diagonal of the case; "
    "no case is left out; background is not averaged"
)


def policy_note(millimetres: bool) -> str:
    """What a result says of its overlaps: `POLICY`, and the unit of HD95."""
    return f"overlap {POLICY}; hd95 in {'mm' if millimetres else 'pixels'}"


def case_overlap(
    truth: np.ndarray, found: np.ndarray, classes: Mapping[int, str], spacing_mm: Sequence[float] | None
) -> list[dict[str, str | int | float]]:
    """Compare two segmentations of one case, class by class.

    Dice is 2|T ∩ F| / (|T| + |F|). HD95 is the larger of the two 95th percentiles of the distances from each surface to the
    other, between centres of voxels. A voxel belongs to the surface if one that shares a face with it is not of
    the class; beyond the border of the case nothing is. A case of one slice is measured in two dimensions. Empty masks go
    by `POLICY`; the diagonal is the distance between opposite corner voxels, the largest that can occur.

    Args:
        truth: Class ids, integers, shape (S, H, W); S is 1 for a single image.
        found: Likewise.
        classes: Id -> name of what is measured. The background, 0, never is; ids without a name are of no class.
        spacing_mm: Of slices, rows and columns; None: distances are in pixels.

    Returns:
        For each class: `class`, `dice`, `hd95`, `truth_voxels`, `found_voxels`.

    Raises:
        ValueError: If the shapes differ or are not (S, H, W), or the spacing is not three lengths above 0.

    Source:
        Dice: Dice 1945. HD95: Huttenlocher 1993, computed by MONAI; Reinke et al. 2024, https://arxiv.org/abs/2302.01790.
    """
    if truth.shape != found.shape or truth.ndim != 3:
        raise ValueError(f"truth of shape {truth.shape}, found of shape {found.shape}; expected one shape (S, H, W)")
    spacing = np.ones(3) if spacing_mm is None else np.asarray(spacing_mm, float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing {spacing_mm}: expected three lengths in mm, or None")
    if len(truth) == 1:
        truth, found, spacing = truth[0], found[0], spacing[1:]
    diagonal = float(np.linalg.norm((np.array(truth.shape) - 1) * spacing))
    rows = []
    for number, name in classes.items():
        if number != BACKGROUND:
            box = _box((truth == number) | (found == number))
            pair = truth[box] == number, found[box] == number
            voxels = [int(mask.sum()) for mask in pair]
            both = int((pair[0] & pair[1]).sum())
            rows.append(
                {
                    "class": name,
                    "dice": 2 * both / sum(voxels) if any(voxels) else 1.0,
                    "hd95": _surface_distance(*pair, spacing) if all(voxels) else diagonal if any(voxels) else 0.0,
                    "truth_voxels": voxels[0],
                    "found_voxels": voxels[1],
                }
            )
    return rows


def overlap_metrics(cases: pandas.DataFrame, classes: Sequence[str]) -> dict[str, float]:
    """Average over cases, then over classes, so that a rare class counts as much as a frequent one.

    `dice_present` is the mean of Dice over the cases that have the class in truth: where most cases have not, `dice` says
    mostly that nothing was found in them.

    Args:
        cases: Rows of `case_overlap`; columns `class`, `dice`, `hd95`, `truth_voxels`.
        classes: Names, without the background.

    Returns:
        `dice`, `hd95` and `dice_present`, then each with `_CLASS`; NaN for a class without such a row, which the mean leaves
        out.
    """
    values = _weighted(cases, classes, np.ones((len(cases), 1)))
    return {name: float(value[0]) for name, value in values.items()}


def overlap_intervals(cases: pandas.DataFrame, groups: np.ndarray, resamples: int, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals of `overlap_metrics`, patients resampled; see `bootstrap_intervals`.

    Args:
        cases: As there; its classes are those of its rows.
        groups: Patient of each row, shape (N,).
        resamples: Number of bootstrap samples; 0 gives no intervals.
        seed: Fixes the samples.
    """
    classes = list(dict.fromkeys(cases["class"]))
    return bootstrap_intervals(lambda weights: _weighted(cases, classes, weights), groups, resamples, seed)


def overlap_counts(cases: pandas.DataFrame, classes: Sequence[str]) -> dict[str, int]:
    """How often the policy for empty masks spoke: of `n_cases`, those where truth, found or both are empty.

    Args:
        cases: Rows of `case_overlap`; columns `case`, `class`, `truth_voxels`, `found_voxels`.
        classes: Names, without the background.

    Returns:
        `n_cases`; for each class `n_empty_truth_CLASS` (something was found all the same), `n_empty_found_CLASS` (all
        was missed) and `n_empty_both_CLASS`.
    """
    truth, found = cases["truth_voxels"] == 0, cases["found_voxels"] == 0
    counts = {"n_cases": int(cases["case"].nunique())}
    for name in classes:
        own = cases["class"] == name
        for which, empty in (("truth", truth & ~found), ("found", found & ~truth), ("both", truth & found)):
            counts[f"n_empty_{which}_{name}"] = int((own & empty).sum())
    return counts


def _weighted(cases: pandas.DataFrame, classes: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics under weights of the rows, shape (N, R); each has shape (R,)."""
    member = (cases["class"].to_numpy() == np.array(classes, object)[:, None]).astype(float)  # (C, N)
    present = member * (cases["truth_voxels"].to_numpy() > 0)
    counted = {
        "dice": (cases["dice"], member),
        "hd95": (cases["hd95"], member),
        "dice_present": (cases["dice"], present),
    }
    with np.errstate(invalid="ignore"):  # a class that no drawn patient has
        means = {
            name: (which * values.to_numpy(float)) @ weights / (which @ weights)
            for name, (values, which) in counted.items()
        }
        values = {name: np.nansum(mean, 0) / (~np.isnan(mean)).sum(0) for name, mean in means.items()}
    for name, mean in means.items():
        values |= {f"{name}_{label}": row for label, row in zip(classes, mean, strict=True)}
    return values


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box that holds a mask; nothing of an empty one."""
    return next(iter(ndimage.find_objects(mask.view(np.uint8))), (slice(0),) * mask.ndim)


def _surface_distance(truth: np.ndarray, found: np.ndarray, spacing: np.ndarray) -> float:
    """HD95 of two masks, neither empty."""
    import torch
    from monai.metrics import compute_hausdorff_distance  # takes ten seconds

    pair = (torch.from_numpy(mask[None, None]) for mask in (found, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it passes itself
        return compute_hausdorff_distance(
            *pair, include_background=True, percentile=95, spacing=spacing.tolist()
        ).item()
