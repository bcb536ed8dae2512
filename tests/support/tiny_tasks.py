"""Shared by the tests of fine-tuning and of two ranks: tasks of a few made-up images, and a short way to evaluate."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.tasks import Task
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.evaluation.task_model import TaskModel
from ssl_transfer.recipe import parse_overrides

SIDE = 32
LEVELS = (0, 120, 240)  # grey value of background and of each class
SHORT = (
    "resamples=0",
    "optimizer={name: sgd, lr: 0.05, momentum: 0.0, weight_decay: 0.0}",
    "train.steps=3",
    "train.batch_size=4",
    "train.check_every_steps=1000",
    "train.log_every_steps=1",
    "train.workers=0",
)


def write_task(
    folder,
    images,
    splits,
    columns,
    masks=None,
    mask_classes=None,
    units="display",
    domain="ct",
    mask_ignore=None,
    **card,
):
    """A task of images (N, C, H, W), with a column per name; its card lies beside the store."""
    images, folder = np.asarray(images), Path(folder)
    mask_dtype = None if masks is None else np.uint8
    folder.mkdir(parents=True, exist_ok=True)
    with StoreWriter(folder / "store", images.shape[1:], images.dtype, mask_dtype) as writer:
        for number, image in enumerate(images):
            row = {name: values[number] for name, values in columns.items()}
            writer.append(image, row, None if masks is None else masks[number].astype(np.uint8))
        stated = {"units": units, "domain": domain, "mask_classes": mask_classes, "mask_ignore": mask_ignore}
        writer.finish(np.array(splits), split_by="patient", **stated)
    written = {"store": str(folder / "store"), "target": "label", "metric": "accuracy", **card}
    (folder / "task.yaml").write_text(yaml.safe_dump(written))
    return Task.load(folder / "task.yaml")


def spots(labels, size=SIDE, channels=1, seed=0):
    """Noisy grey images, uint8 (N, C, H, W): the brighter the middle, the higher the label; and where that spot is, bool."""
    draw = np.random.default_rng(seed)
    middle = np.zeros((size, size), bool)
    middle[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = True
    labels = np.asarray(labels)
    values = 60 + 30 * draw.random((len(labels), channels, size, size))
    values += 60 * labels[:, None, None, None] * middle
    return np.clip(values, 0, 255).astype(np.uint8), middle


def class_task(folder, train=8, held_out=4, classes=2, size=SIDE, channels=1, labels=None, shift=0, **card):
    """Classes by brightness, a patient per image; `shift` moves the test labels on by so many classes."""
    splits = np.repeat(["train", "val", "test"], [train, held_out, held_out])
    labels = np.arange(len(splits)) % classes if labels is None else np.asarray(labels)
    images, _ = spots(labels, size, channels)
    shifted = np.where(splits == "test", (labels + shift) % classes, labels)
    columns = {"label": shifted.astype(str), "patient": [f"p{n:03d}" for n in range(len(splits))]}
    return write_task(folder, images, splits, columns, **card)


def mask_task(folder, train=8, held_out=2, classes=1, size=SIDE, slices=1, height=None, **card):
    """A spot in the middle of every image, of as many classes from top to bottom; volumes of `slices` images."""
    splits = np.repeat(["train", "val", "test"], [train * slices, held_out * slices, held_out * slices])
    images, middle = spots(np.ones(len(splits)), size)
    bands = 1 + (np.arange(size) - size // 4) * classes // (size // 2)
    mask = np.where(middle, bands[:, None], 0)
    if height:
        images, mask = images[:, :, :height], mask[:height]
    volume = np.arange(len(splits)) // slices
    columns = {"patient": [f"p{n:03d}" for n in volume], "series": [f"s{n}" for n in volume]}
    if slices > 1:
        columns["slice"] = np.arange(len(splits)) % slices
    names = {str(number): f"band{number}" for number in range(1, classes + 1)}
    card = {"target": "mask", "metric": "dice", **card}
    return write_task(folder, images, splits, columns, [mask] * len(splits), names, **card)


def judge(protocol, backbone, task, folder, *overrides):
    """Evaluate for three steps of plain SGD, without intervals, unless `overrides` say otherwise."""
    backbone.card = replace(backbone.card, id=backbone.id or "made up")  # a saved one would have its own
    return evaluate(protocol, backbone, task, Path(folder), **parse_overrides([*SHORT, *overrides]))


@contextmanager
def recorded_models() -> Iterator[list[TaskModel]]:
    """Collects what is trained meanwhile. In the end each has the weights that were selected, and is on the CPU."""
    found, start = [], TaskModel.__init__

    def watched(model, *arguments):
        start(model, *arguments)
        found.append(model)

    TaskModel.__init__ = watched
    try:
        yield found
    finally:
        TaskModel.__init__ = start
    for model in found:
        model.cpu()


def state_on_cpu(module):
    """A copy of the state of a module, by name."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def weights(model):
    """What a model has learnt, and its statistics, by name."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith("strategy.")}


def drawn(folder, height, width, count=12, **columns):
    """Images that show their masks: rectangles of two classes at random places; a patient each."""
    draw = np.random.default_rng(0)
    masks = np.zeros((count, height, width), np.uint8)
    for mask in masks:
        for number in (1, 2):
            top, left = draw.integers(1, [height // 2, width // 2])
            mask[top : top + height // 3, left : left + width // 3] = number
    images = np.array(LEVELS, np.uint8)[masks][:, None]
    splits = np.repeat(["train", "val", "test"], count // 3)
    columns = {"patient": [f"p{n:02d}" for n in range(count)], **columns}
    return write_task(
        folder, images, splits, columns, masks, {"1": "liver", "2": "tumour"}, target="mask", metric="dice"
    )
