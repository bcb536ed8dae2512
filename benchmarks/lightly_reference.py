"""Does `pretrain` learn what lightly's own parts learn? kNN and loss of SimCLR, BYOL and MoCo on CIFAR-10, against a plain loop.

    python benchmarks/lightly_reference.py cifar10.npz --channels 64 128 256 512 --epochs 200   # as published, on a GPU
    python benchmarks/lightly_reference.py cifar10_subset.npz                                   # a CPU: an hour

Ours is `pretrain` with `recipes/cifar10_*.yaml`. The loop is written from the settings of lightly's CIFAR-10 benchmark and the
examples of its documentation: its transform on PIL images, its heads, losses and momentum update, SGD, and a cosine. The cosine
falls by steps, as ours does; by epochs, as there, is the same where there are many.
Both train the same architecture (timm's ResNet-18 with a first layer for small images) on the same images, with the same seeds,
batch, epochs and precision, and are judged by lightly's `knn_predict` (k = 200, temperature 0.1) on test images, after the last
epoch. The images are MedMNIST-like arrays: `train_images`, `train_labels`, `test_images`, `test_labels`.

For each method: mean and standard deviation over seeds of both, the difference with its 90 % interval (Welch), and the p-value of
two one-sided tests of equivalence within --margin; likewise for the loss of the last epoch, with a margin of 2 % of it, and the
loss of each epoch. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
BATCH = 128
NEIGHBOURS, VOTE_TEMPERATURE = 200, 0.1  # of kNN
QUEUE, MOCO_TEMPERATURE = 4096, 0.1
SIDES = ("ours", "lightly")
LOSS_MARGIN = 0.02  # as a share of the loss
Learner = tuple[
    Callable[[list[torch.Tensor], int], torch.Tensor], list[nn.Parameter]
]  # (views, epoch) -> loss; what it trains


@dataclass(frozen=True)
class Images:
    """RGB images, uint8 (N, H, W, 3), and their classes (N,), of training and test."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Images:
        """Read arrays of MedMNIST's names."""
        with np.load(path) as arrays:
            return cls(
                *(arrays[f"{split}_{what}"].squeeze() for split in ("train", "test") for what in ("images", "labels"))
            )

    def store(self, folder: Path) -> Path:
        """Write the training images as a store."""
        from ssl_transfer import ingest

        np.savez(folder / "train.npz", train_images=self.train, train_labels=self.train_labels)
        ingest(folder / "train.npz", folder / "store", domain="photograph")
        return folder / "store"


@dataclass(frozen=True)
class Trained:
    """What one training came to: kNN accuracy on test, and the mean loss of each epoch."""

    knn: float
    losses: list[float]


def main() -> None:
    """Train both with each method and seed, print a table, and the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="CIFAR-10, or a part of it, as a .npz")
    parser.add_argument("--methods", nargs="+", choices=tuple(LIGHTLY), default=list(LIGHTLY))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--channels", type=int, nargs=4, default=[16, 32, 64, 128], help="of the stages of the ResNet-18"
    )
    parser.add_argument("--margin", type=float, default=0.02, help="of equivalence, in kNN accuracy")
    options = parser.parse_args()
    images = Images.read(options.images)
    numbers = {}
    for method in options.methods:
        pairs = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            pairs.append([train(method, images, seed, options) for train in (ours, lightly)])
            print(
                f"{method}, seed {seed}: kNN of ours {pairs[-1][0].knn:.3f}, of the loop {pairs[-1][1].knn:.3f}",
                flush=True,
            )
        numbers[method] = compared(method, pairs, options.margin)
    print(json.dumps(numbers))


def compared(method: str, pairs: list[list[Trained]], margin: float) -> dict[str, object]:
    """Print the comparison of one method, and return its numbers."""
    from ssl_transfer.study.statistics import tost, welch

    sides = list(zip(*pairs, strict=True))
    curves = np.array([[trained.losses for trained in side] for side in sides])  # (sides, seeds, epochs)
    numbers: dict[str, object] = {"loss_by_epoch": curves.mean(1).round(4).tolist()}
    knn = np.array([[trained.knn for trained in side] for side in sides])
    last = curves[..., -1]
    for name, values, allowed in (("knn", knn, margin), ("last_loss", last, LOSS_MARGIN * abs(last[1].mean()))):
        test, p = welch(values[0], values[1], confidence=0.9), tost(values[0], values[1], allowed)
        means = ", ".join(
            f"{side} {mean:.4f} ± {sd:.4f}"
            for side, mean, sd in zip(SIDES, values.mean(1), values.std(1, ddof=1), strict=True)
        )
        print(
            f"{method:7s} {name:10s} {means}, difference {test.difference:+.4f} [{test.ci_low:+.4f}, {test.ci_high:+.4f}], "
            f"equivalent within ±{allowed:.4f}: p = {p:.3f}, n = {test.n_a}"
        )
        numbers[name] = {
            "values": values.round(4).tolist(),
            "difference": test.difference,
            "margin": allowed,
            "p_equivalent": p,
        }
    for number, curve in zip(SIDES, curves.mean(1), strict=True):
        print(f"  loss of {number:8s}" + " ".join(f"{loss:7.3f}" for loss in curve))
    return numbers


def ours(method: str, images: Images, seed: int, options: argparse.Namespace) -> Trained:
    """Train by `pretrain` with the recipe of the method."""
    from ssl_transfer.models.backbone import load_backbone
    from ssl_transfer.pretraining.stage import pretrain

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        changed = {
            "data.store": str(images.store(Path(folder))),
            "train.epochs": options.epochs,
            "train.seed": seed,
            "train.log_every_steps": 1,
            "monitor.every_epochs": options.epochs,
            "backbone.options": {"channels": options.channels},
        }
        if method == "moco":
            changed["method.bn_groups"] = 1  # a timm ResNet has no batch norm in parts, so the loop has none
        pretrain(RECIPES / f"cifar10_{method}.yaml", run, **changed)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        losses = np.array([line["loss"] for line in lines if "loss" in line])
        if method == "byol":
            losses = losses / 4 - 1  # 2·(2 − 2 cos) in place of −cos
        model = load_backbone(run / "backbone").model
    return Trained(knn(model, images), losses.reshape(options.epochs, -1).mean(1).tolist())


def lightly(method: str, images: Images, seed: int, options: argparse.Namespace) -> Trained:
    """Train by a plain loop of lightly's parts."""
    torch.manual_seed(seed)
    backbone = resnet(options.channels).to(device())
    step, parameters = LIGHTLY[method](backbone, options.channels[-1], options.epochs)
    optimizer = torch.optim.SGD(parameters, lr=0.06, momentum=0.9, weight_decay=5e-4)
    steps = options.epochs * (len(images.train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for epoch in range(options.epochs):
        of_epoch = []
        for views in batches(images.train):
            loss = step([view.to(device()) for view in views], epoch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            of_epoch.append(loss.detach())
        losses.append(torch.stack(of_epoch).mean().item())
    return Trained(knn(backbone, images), losses)


def batches(images: np.ndarray) -> Iterator[list[torch.Tensor]]:
    """Two views of each image in random order, in whole batches."""
    from lightly.transforms.simclr_transform import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader

    transform = SimCLRTransform(input_size=images.shape[1], cj_strength=0.5, gaussian_blur=0.0)
    pictures = [Image.fromarray(image) for image in images]

    class Views(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int) -> Any:
            return transform(pictures[index])

    yield from DataLoader(Views(), BATCH, shuffle=True, drop_last=True)


def resnet(channels: list[int]) -> nn.Module:
    """timm's ResNet-18 without a head, with a first layer for small images: 3×3, stride 1, no pooling."""
    import timm

    model: Any = timm.create_model("resnet18", num_classes=0, channels=channels)
    model.conv1 = nn.Conv2d(3, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm does
    model.maxpool = nn.Identity()
    return model


def simclr(backbone: nn.Module, width: int, epochs: int) -> Learner:
    """lightly's SimCLR."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    network = nn.Sequential(backbone, SimCLRProjectionHead(width, 512, 128)).to(device())
    criterion = NTXentLoss()

    def step(views: list[torch.Tensor], epoch: int) -> torch.Tensor:
        return criterion(*[in_bf16(network, view) for view in views])

    return step, list(network.parameters())


def byol(backbone: nn.Module, width: int, epochs: int) -> Learner:
    """lightly's BYOL; the momentum rises to 1 along a cosine, as in the example of its documentation."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum
    from lightly.utils.scheduler import cosine_schedule

    network = nn.Sequential(backbone, BYOLProjectionHead(width, 1024, 256)).to(device())
    predictor = BYOLPredictionHead(256, 1024, 256).to(device())
    target, criterion = copy.deepcopy(network), NegativeCosineSimilarity()

    def step(views: list[torch.Tensor], epoch: int) -> torch.Tensor:
        update_momentum(network, target, cosine_schedule(epoch, epochs, 0.99, 1.0))
        predictions = [in_bf16(nn.Sequential(network, predictor), view) for view in views]
        with torch.no_grad():
            targets = [in_bf16(target, view) for view in views]
        return (criterion(predictions[0], targets[1]) + criterion(predictions[1], targets[0])) / 2

    return step, [*network.parameters(), *predictor.parameters()]


def moco(backbone: nn.Module, width: int, epochs: int) -> Learner:
    """lightly's MoCo, with queries from the first view and keys from the second, as in the example of its documentation."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import update_momentum

    network = nn.Sequential(backbone, MoCoProjectionHead(width, width, 128)).to(device())
    keys, criterion = copy.deepcopy(network), NTXentLoss(MOCO_TEMPERATURE, memory_bank_size=(QUEUE, 128)).to(device())

    def step(views: list[torch.Tensor], epoch: int) -> torch.Tensor:
        update_momentum(network, keys, 0.99)
        with torch.no_grad():
            key = in_bf16(keys, views[1])
        return criterion(in_bf16(network, views[0]), key)

    return step, list(network.parameters())


LIGHTLY = {"simclr": simclr, "byol": byol, "moco": moco}


def knn(model: nn.Module, images: Images) -> float:
    """Accuracy on test images by lightly's weighted vote of the nearest training images."""
    from lightly.utils.benchmarking.knn import knn_predict

    model = model.eval().to(device())
    train, test = (functional.normalize(features(model, part), dim=1) for part in (images.train, images.test))
    labels = torch.from_numpy(images.train_labels.astype(np.int64)).to(device())
    predicted = knn_predict(test, train.T.contiguous(), labels, int(labels.max()) + 1, NEIGHBOURS, VOTE_TEMPERATURE)
    return float((predicted[:, 0].cpu().numpy() == images.test_labels).mean())


@torch.inference_mode()
def features(model: nn.Module, images: np.ndarray) -> torch.Tensor:
    """Features of images, scaled by ImageNet's mean and standard deviation, (N, D)."""
    from lightly.transforms.utils import IMAGENET_NORMALIZE

    mean, std = (torch.tensor(IMAGENET_NORMALIZE[name])[:, None, None] for name in ("mean", "std"))
    scaled = ((torch.from_numpy(part).permute(0, 3, 1, 2) / 255 - mean) / std for part in np.array_split(images, 20))
    return torch.cat([model(part.to(device())) for part in scaled])


def in_bf16(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Outputs in float32 of a network that computes in the precision of `precision: auto`."""
    from ssl_transfer.training.machine import native_precision

    with torch.autocast(images.device.type, torch.bfloat16, enabled=native_precision() == "bf16"):
        return network(images.contiguous(memory_format=torch.channels_last)).float()


def device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    main()
