"""What a training step asks of a GPU, counted on the pretend one: waits of the host, kernel launches, megabytes.

    python benchmarks/step_costs.py                   # all methods; about six minutes on one core
    python benchmarks/step_costs.py "MoCo" "MAE"      # those whose names begin so

The second of three steps of `pretrain` is counted, 16 images of 64 px, in float32; it is not logged, and the first one has built
the constants. The numbers of launches do not depend on the size of batch and image; megabytes grow with both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

RECIPE = """
data:      {{store: {store}, views: {views}, size: 64}}
backbone:  {{name: {architecture}, in_channels: {channels}}}
method:    {method}
optimizer: {{name: {optimizer}, lr: 0.001}}
train:     {{epochs: 0.5, batch_size: 16, precision: fp32, workers: 0, log_every_steps: 1000, checkpoint_every_steps: 1000}}
monitor:   {{every_epochs: 1000}}
tracker:   none
"""
VIT = "vit_small_patch16_224"
CASES: dict[str, dict[str, Any]] = {
    "SimCLR, ResNet-50, SGD": {"method": "{name: simclr}"},
    "SimCLR, ResNet-50, LARS": {"method": "{name: simclr}", "optimizer": "lars"},
    "SimCLR, ResNet-50, SGD, photographs": {"method": "{name: simclr}", "channels": 3},
    "BYOL, ResNet-50, LARS": {"method": "{name: byol}", "optimizer": "lars"},
    "MoCo, ResNet-50, SGD, 8 groups": {"method": "{name: moco, queue: 1024, bn_groups: 8}"},
    "MoCo, ResNet-50, SGD, 1 group": {"method": "{name: moco, queue: 1024, bn_groups: 1}"},
    "VICReg, ResNet-50, LARS": {"method": "{name: vicreg, hidden_dim: 256, projection_dim: 256}", "optimizer": "lars"},
    "Barlow Twins, ResNet-50, LARS": {
        "method": "{name: barlowtwins, hidden_dim: 256, projection_dim: 256}",
        "optimizer": "lars",
    },
    "SimSiam, ResNet-50, SGD": {"method": "{name: simsiam}"},
    "MoCo v3, ViT-S, AdamW": {"method": "{name: mocov3, hidden_dim: 256}", "architecture": VIT},
    "DINO, ViT-S, AdamW, 2 + 8 views": {
        "method": "{name: dino, output_dim: 1024, local_size: 32}",
        "architecture": VIT + ", options: {dynamic_img_size: true}",
    },
    "MAE, ViT-S, AdamW": {"method": "{name: mae}", "architecture": VIT},
    "supervised, ResNet-50, SGD": {"method": "{name: supervised}"},
}


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; default: all")
    chosen = tuple(parser.parse_args().names) or ("",)
    torch.set_num_threads(1)
    print(f"{'':40}{'waits':>6}{'launches':>10}{'MB':>8}", flush=True)
    for name, case in CASES.items():
        if name.startswith(chosen):
            counts = second_step(**case)
            print(
                f"{name:40}{counts.waits.total():6}{counts.launches:10,}{counts.bytes / 1e6:8,.0f}",
                *counts.waits,
                flush=True,
            )


def second_step(method: str, optimizer: str = "", architecture: str = "resnet50", channels: int = 1) -> Any:
    """Counts of the second step of a pretraining."""
    from support.pretend_gpu import PretendGPU

    from ssl_transfer.pretraining.stage import pretrain
    from ssl_transfer.training.loop import Training

    counted, advance = [], Training._advance

    def counting(training: Training, batches: Any) -> Any:
        with gpu.counting() as counts:
            result = advance(training, batches)
        counted.append(counts)
        return result

    Training._advance = counting
    try:
        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder, "recipe.yaml")
            recipe.write_text(
                RECIPE.format(
                    store=_store(Path(folder, "store"), channels),
                    views="ct" if channels == 1 else "natural",
                    architecture=architecture,
                    channels=channels,
                    method=method,
                    optimizer=optimizer or ("adamw" if architecture.startswith("vit") else "sgd"),
                )
            )
            with PretendGPU() as gpu:
                pretrain(recipe, Path(folder, "run"))
    finally:
        Training._advance = advance
    return counted[1]


def _store(folder: Path, channels: int) -> Path:
    """96 images of random numbers, 72 px: CT slices, or photographs."""
    from ssl_transfer.data.store import StoreWriter

    draw, dtype = np.random.default_rng(0), np.int16 if channels == 1 else np.uint8
    images = draw.integers(0, 200, (96, channels, 72, 72)).astype(dtype)
    with StoreWriter(folder, images.shape[1:], dtype) as writer:
        for number, image in enumerate(images):
            writer.append(image, {"patient": f"p{number}", "label": "ab"[number % 2]})
        facts = {"units": "hu", "domain": "ct"} if channels == 1 else {"units": "rgb", "domain": "photograph"}
        writer.finish(np.full(len(images), "train"), split_by="patient", **facts)
    return folder


if __name__ == "__main__":
    main()
