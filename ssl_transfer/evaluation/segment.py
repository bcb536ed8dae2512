"""Segment: train a decoder on a frozen or trainable backbone; Dice, HD95 and NSD per case and class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import pandas
import torch
import torch.nn.functional as functional
from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import Field, PositiveInt

from ssl_transfer.data.intensity import match_channels
from ssl_transfer.data.tasks import Task
from ssl_transfer.data.transfer import to_device, to_host
from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.context import EvalContext, ProtocolResult, tried
from ssl_transfer.evaluation.task_model import TaskModel, build_task_model, build_training_set, learn, suited_views
from ssl_transfer.measures.metrics import case_overlap, overlap_intervals, overlap_metrics
from ssl_transfer.measures.overlap import IGNORED, counts_note, overlap_counts, policy_note
from ssl_transfer.models.embedding import evaluating, prepare
from ssl_transfer.models.heads import SegmentationHead
from ssl_transfer.recipe import Component, FinetuneSection

SLICES_AT_ONCE = 32
WINDOWS_AT_ONCE = 32
CERTAIN = 40.0  # a logit: the softmax of ±40 is 0 or 1 in fp32
ROUNDING_MM = 2e-3  # of positions in headers
UNEVEN = 0.05  # largest deviation of a distance of slices from their median, as a share; rounding in headers is less
STRATEGY, OPTIMIZER, TRAIN = (
    Component(name="full"),
    Component(name="adamw", lr=1e-3, weight_decay=0.01),
    FinetuneSection(),
)


def segment(
    context: EvalContext,
    *,
    strategy: Component = STRATEGY,
    optimizer: Component = OPTIMIZER,
    views: Component | None = None,
    train: FinetuneSection = TRAIN,
    decoder_width: PositiveInt = 16,
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5,
) -> ProtocolResult:
    """Train a U-Net decoder on a backbone's feature maps; evaluate on test with the weights that were best on validation.

    Images up to the backbone's image size are enlarged to it; larger ones are predicted at full resolution in sliding windows.

    Args:
        strategy: Which layers of the backbone are trained, and how, `{name, options}`; `head_only` freezes all of them.
        optimizer: `{name, options}`, with its peak learning rate; see the page of each optimiser.
        views: Augmentation preset of images and masks together; null: a mild one for the task's domain.
        train: Length of the training, batches, and checks on validation.
        decoder_width: Channels of the U-Net decoder at the image's resolution, doubled per level down (Ronneberger et
            al. 2015, 1505.04597, has 64). This project's choice: 16.
        overlap: Overlap of neighbouring windows as a share of their side, in [0, 1). nnU-Net: 0.5 (1904.08128).

    Raises:
        RecipeError: If `train.balance` is `weights`.
    """
    task, rows = context.task, context.rows
    if train.balance == "weights":
        raise RecipeError(
            "train.balance: the Dice loss needs no weights; take none, or sampling (of images with each class)."
        )
    views = views or suited_views(context, _crop_share(context))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.draw)
        head = SegmentationHead(context.backbone, len(task.classes) + 1, context.size, decoder_width)
    _freeze_unused(context, head)
    model = build_task_model(context, head, overlap_loss(_ignored(task) is not None), strategy, train)
    training_set = build_training_set(context, views, masked=True)

    def validate(accelerator: Accelerator, lower: torch.dtype | None) -> dict[str, float]:
        return overlap_metrics(_overlaps(context, model, "val", overlap, accelerator, lower), task.classes)

    strata = [rows["train"]]
    if train.balance == "sampling":
        present = task.strata[rows["train"]]
        strata = [rows["train"][present == stratum] for stratum in np.unique(present)]
    trained = learn(context, model, training_set, strata, optimizer, train, validate)
    settings = {
        "strategy": strategy,
        "optimizer": optimizer,
        "views": views,
        "train": train,
        "decoder_width": decoder_width,
        "overlap": overlap,
        **trained.settings,
    }
    if context.is_trial:
        return tried({"step": trained.best.step}, settings, trained.best.validation)

    def cases(tested: EvalContext) -> pandas.DataFrame:
        return _overlaps(tested, model, "test", overlap, trained.accelerator, trained.lower)

    result = _scored(context, cases(context), {"step": trained.best.step}, settings, trained.best.validation)
    model.strategy.finish(context.backbone)
    return replace(result, predict=cases)


def overlap_loss(ignores: bool) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Dice loss of the classes plus cross-entropy, of logits (B, K + 1, H, W) and masks (B, H, W).

    Args:
        ignores: Whether masks may have pixels of −1, which contribute to neither.
    """
    from monai.losses.dice import DiceCELoss, DiceLoss

    if not ignores:
        loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
        return lambda logits, masks: loss(logits, masks[:, None])
    dice = DiceLoss(include_background=False, to_onehot_y=True, softmax=True)

    def without_ignored(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        ignored = masks == IGNORED
        background = torch.full_like(logits[:1, :, :1, :1], -CERTAIN)
        background[:, 0] = CERTAIN
        certain = torch.where(ignored[:, None], background, logits)  # a pixel of neither truth nor prediction
        entropy = functional.cross_entropy(logits, masks, ignore_index=IGNORED, reduction="sum")
        return dice(certain, masks.clamp_min(0)[:, None]) + entropy / (~ignored).sum().clamp_min(1)

    return without_ignored


def _ignored(task: Task) -> int | None:
    """The value of ignored pixels in the store of a task; None if there are none."""
    masks = task.store.card.masks
    return None if masks is None else masks.ignore


def _scored(
    context: EvalContext, cases: pandas.DataFrame, selected: dict, settings: dict, validation: dict
) -> ProtocolResult:
    """Metrics, intervals and notes of the test cases."""
    task, recipe = context.task, context.recipe
    groups = cases["case"] if task.patients is None else cases["patient"]
    intervals = overlap_intervals(cases, groups.to_numpy(), recipe.resamples, context.draw)
    counts = counts_note(overlap_counts(cases, task.classes), task.classes)
    notes = [policy_note(bool((cases["unit"] == "mm").all()), task.card.tolerance), counts]
    uneven = cases.loc[cases["hd95"].isna(), "case"].unique()
    if len(uneven):
        notes.append(
            f"hd95 and nsd leave out {len(uneven)} case(s) with uneven distances of slices: {', '.join(uneven[:5])}"
        )
    if _ignored(task) is not None:
        notes.append("pixels that the masks ignore are left out of loss and metrics")
    return ProtocolResult(selected, settings, validation, overlap_metrics(cases, task.classes), intervals, cases, notes)


def cases_of(task: Task, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray, tuple[float, float, float] | None]]:
    """Group rows into cases: the slices of a volume, in order; an image without a slice number is a case by itself.

    A volume is one of a series of a patient: time points, echoes or channels of a series are cases apart.

    Yields:
        The case's name, its rows, and its spacing in mm (slice, row, column; None if unknown). The spacing of slices is NaN if
        they are unevenly spaced.
    """
    columns = task.store.columns
    frame = pandas.DataFrame({"row": rows}, index=rows)
    for name in (
        "patient",
        "series",
        "volume",
        "slice",
        "z_mm",
        "spacing_row_mm",
        "spacing_col_mm",
        "spacing_slice_mm",
        "geometry",
    ):
        frame[name] = task.store.column(name)[rows] if name in columns else None
    sliced = frame["slice"].notna() & (frame["series"].notna() | frame["patient"].notna())
    volumes = frame["volume"].fillna(0).astype(int) if frame["volume"].notna().any() else 0
    series = frame["patient"].fillna("").astype(str) + "/" + frame["series"].fillna("").astype(str)
    frame = frame.assign(series=series, volume=volumes)
    several = frame.groupby("series")["volume"].transform("nunique") > 1
    frame["case"] = [
        (f"{name}/{volume}" if divided else name) if is_slice else f"image {row}"
        for row, name, volume, divided, is_slice in zip(
            rows, frame["series"], frame["volume"], several, sliced, strict=True
        )
    ]
    for name, case in frame.groupby("case", sort=True):
        case = case.sort_values("slice") if len(case) > 1 else case
        yield str(name), case["row"].to_numpy(), _spacing(case)


def _spacing(case: pandas.DataFrame) -> tuple[float, float, float] | None:
    """Spacing of a case with ordered slices; the distance of slices is from their positions, else from the file's header.

    Slices that are missing, repeated or uneven have no common distance: NaN.
    """
    within = case[["spacing_row_mm", "spacing_col_mm"]].iloc[0]
    if within.isna().any() or (within <= 0).any():
        return None
    between = case["spacing_slice_mm"].iloc[0]
    if len(case) > 1 and case["geometry"].notna().any():  # its reader found gaps, a tilted gantry, …
        return np.nan, float(within.iloc[0]), float(within.iloc[1])
    if len(case) > 1 and case["z_mm"].notna().all():
        steps = np.diff(case["z_mm"].to_numpy(float))
        between = float(np.median(np.abs(steps)))
        if np.abs(steps - np.median(steps)).max() > max(UNEVEN * between, ROUNDING_MM):
            return np.nan, float(within.iloc[0]), float(within.iloc[1])
    if len(case) == 1:
        between = 1.0  # has no effect: metrics of a single slice are computed in two dimensions
    if between is None or between != between or between <= 0:
        return None
    return float(between), float(within.iloc[0]), float(within.iloc[1])


def _overlaps(
    context: EvalContext,
    model: TaskModel,
    split: str,
    overlap: float,
    accelerator: Accelerator,
    lower: torch.dtype | None,
) -> pandas.DataFrame:
    """Dice, HD95 and NSD of every case and class of a split; each rank computes a part of the cases and gets all results.

    A case is compared while a GPU segments the next one.
    """
    task, store = context.task, context.backbone.inputs(context.store(split))
    cases = list(cases_of(task, context.rows[split]))
    in_mm = all(spacing is not None for _, _, spacing in cases)  # a mean of mm and pixels would be meaningless
    names = dict(enumerate(task.classes, 1))
    patients = task.patients if task.patients is not None else np.full(len(store), None)
    scored: list[tuple[int, dict]] = []

    def compare(number: int, masks: list[Callable[[], dict[str, np.ndarray]]]) -> None:
        name, rows, spacing = cases[number]
        found = np.concatenate([mask()["codes"] for mask in masks])
        even = spacing is not None and spacing[0] == spacing[0]
        usable = spacing if in_mm and even else None
        measured = case_overlap(store.masks(rows), found, names, usable, task.card.tolerance)
        if in_mm and not even:
            measured = [{**row, "hd95": np.nan, "nsd": np.nan} for row in measured]
        scored.extend((number, {"case": name, "patient": patients[rows[0]], **row}) for row in measured)

    earlier: list[tuple[int, list]] = []  # a case that is still being segmented
    with evaluating(model, accelerator.device, lower):
        for number in range(accelerator.process_index, len(cases), accelerator.num_processes):
            _, rows, _ = cases[number]
            parts = [rows[start : start + SLICES_AT_ONCE] for start in range(0, len(rows), SLICES_AT_ONCE)]
            masks = [_segmented(context, model, store.read(part), overlap, accelerator) for part in parts]
            earlier.append((number, masks))
            if len(earlier) > 1:
                compare(*earlier.pop(0))
        for case in earlier:
            compare(*case)
    frame = pandas.DataFrame([row for _, row in sorted(gather_object(scored), key=lambda item: item[0])])
    return frame.assign(unit="mm" if in_mm else "pixels")


def _segmented(
    context: EvalContext, model: TaskModel, images: np.ndarray, overlap: float, accelerator: Accelerator
) -> Callable[[], dict[str, np.ndarray]]:
    """Waits for the class codes, `codes` (B, H, W), of a store's images (B, C, H, W)."""
    from monai.inferers.utils import sliding_window_inference

    backbone, size = context.backbone, context.size
    scale = backbone.scale(context.task.store)
    values = to_device(torch.from_numpy(images), accelerator.device)
    height, width = values.shape[-2:]

    def logits_of(inputs: torch.Tensor) -> torch.Tensor:
        return model.head(backbone, inputs).float()

    if max(height, width) <= size:
        side = max(height, width)
        logits = logits_of(prepare(values, scale, size, backbone))
        logits = functional.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
        top, left = (side - height) // 2, (side - width) // 2
        logits = logits[..., top : top + height, left : left + width]
    else:
        inputs = backbone.intensity.normalise(match_channels(scale.unit(values), backbone.card.in_channels))
        logits: Any = sliding_window_inference(
            inputs.contiguous(memory_format=torch.channels_last),
            (size, size),
            WINDOWS_AT_ONCE,
            logits_of,
            overlap,
            mode="gaussian",
            padding_mode="replicate",
        )
    return to_host({"codes": logits.argmax(1).to(torch.int16)})


def _crop_share(context: EvalContext) -> tuple[float, float]:
    """Smallest and largest share of an image that a training crop covers, such that its scale is that of test images."""
    height, width = context.task.store.shape[1:]
    share = min(1.0, context.size**2 / (height * width))
    return (0.6, 1.0) if share == 1 else (0.7 * share, min(1.0, 1.3 * share))


def _freeze_unused(context: EvalContext, head: SegmentationHead) -> None:
    """Freeze the layers after the last feature map that the decoder reads: processes would wait for their gradients."""
    backbone = context.backbone
    image = torch.zeros(1, backbone.card.in_channels, context.size, context.size)
    parameters = list(backbone.parameters())
    gradients = torch.autograd.grad(head.eval()(backbone.eval(), image).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            parameter.requires_grad_(False)
