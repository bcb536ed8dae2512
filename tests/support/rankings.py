"""Backbones that read pixels off an image, and tasks whose pixels say what they are meant to: rankings known beforehand."""

import numpy as np
import torch
from support.tiny_tasks import write_task
from torch import nn

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.ranking.stage import rank

SIDE = 4
CLASSES = 3
CLEAR, DIM, NOISE = (0, 1, 2), (3, 4, 5), (6, 7, 8)  # pixels that tell the class well, badly, not at all
PATIENTS, IMAGES = 20, 3
SCORES = {"nce", "leep", "n_leep", "h_score", "regularized_h_score", "logme", "transrate", "gbc", "sfda"}
CRITERIA = SCORES | {"knn", "linear_probe"}
TINY = "scratch:test_resnet,size=32"
OFFLINE = "timm:resnet18.a1_in1k"
THREE = {"noise": NOISE, "dim": DIM, "clear": CLEAR}


class Reader(nn.Module):
    """A model whose features are some of the pixels."""

    def __init__(self, pixels, factor=1.0):
        super().__init__()
        self.pixels, self.factor = list(pixels), factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, self.pixels] * self.factor


def reader(*pixels, factor=1.0, **facts):
    """A backbone of `Reader`; `facts` are its card's."""
    model = Reader(pixels, factor)
    name, facts = f"reads {pixels} times {factor}", {"method": "simclr", "source_domain": "ct", **facts}
    return Backbone(model, new_card(name, Architecture("reader", 1, SIDE), model, Intensity(), **facts, id=name))


def cohort(
    folder, columns=None, patients=PATIENTS, images=IMAGES, with_patients=True, seed=0, test_pixels=None, **card
):
    """A task: 14 of 20 patients are train, 3 val, 3 test; images of a patient are of different classes.

    Args:
        columns: Column -> text of every image; None: `label`, the class.
        with_patients: Whether the store knows patients.
        test_pixels: What test images look like; None: like the others.
    """
    draw = np.random.default_rng(seed)
    count = patients * images
    labels = np.arange(count) % CLASSES
    values = draw.normal(size=(count, SIDE**2))
    values[:, CLEAR] += 5 * np.eye(CLASSES)[labels]
    values[:, DIM] += 0.7 * np.eye(CLASSES)[labels]
    splits = np.repeat(["train", "val", "test"], [count - 6 * images, 3 * images, 3 * images])
    if test_pixels is not None:
        values[splits == "test"] = test_pixels
    pictures = np.clip(np.rint(127.5 + 20 * values), 0, 255).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    who = [f"p{n:03d}" if with_patients else None for n in np.repeat(np.arange(patients), images)]
    columns = {"label": labels.astype(str)} if columns is None else columns
    return write_task(folder, pictures, splits, {"patient": who, **columns}, **card)


def ranked(task, backbones, out, **settings):
    """What `rank` writes as JSON, with few resamples unless `settings` say otherwise; tuples of pixels are readers."""
    backbones = {name: reader(*one) if isinstance(one, tuple) else one for name, one in backbones.items()}
    return rank(task, backbones, out, **{"resamples": 20, **settings}).to_json()


def criteria_of(answer, name):
    """Criterion -> value of one backbone."""
    (backbone,) = (entry for entry in answer["backbones"] if entry["name"] == name)
    return {"linear_probe": backbone["linear_probe"], "knn": backbone["knn"], **backbone["scores"]}


def train_and_val_rows(task):
    """Rows of train, then of val, as the store has them."""
    return np.concatenate([np.flatnonzero(task.store.column("split") == split) for split in ("train", "val")])


def plain(answer):
    """An answer without what differs between two runs of the same."""
    backbones = [{key: value for key, value in one.items() if key != "seconds"} for one in answer["backbones"]]
    return {key: answer[key] for key in ("order", "first", "agreement", "recommendation")} | {"backbones": backbones}
