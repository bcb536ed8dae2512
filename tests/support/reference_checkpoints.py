"""Checkpoints as other programs write them, with random weights, and the features that their models give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock

TINY_RESNET = "resnet18,channels=[8,16,32,64]"
TINY_VIT = "vit_tiny_patch16_224,embed_dim=32,depth=2,num_heads=2"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Reference:
    """A checkpoint, and the features of the model that it comes from.

    Attributes:
        layout: Name of its layout.
        tensors: The state dict.
        features: The features (B, D) of images (B, 3, H, W) by the model itself.
        tensor: Name of a tensor of the backbone in the state dict.
        as_: The architecture; None: as the config says.
        size: Height and width of the images.
        inside: Keys of the checkpoint that lead to the state dict.
        beside: Name -> content of JSON files beside it; the weights are then `model.safetensors`.
        other: Further content of the checkpoint.
    """

    layout: str
    tensors: Tensors
    features: Callable[[torch.Tensor], torch.Tensor]
    tensor: str
    as_: str | None = None
    size: int = 32
    inside: tuple[str, ...] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, tensors: Tensors | None = None) -> Path:
        """Write the checkpoint, or one with other tensors, into a folder; return the path to import."""
        folder.mkdir(parents=True, exist_ok=True)
        content: Any = self.tensors if tensors is None else tensors
        if self.beside:
            for name, text in self.beside.items():
                (folder / name).write_text(json.dumps(text))
            save_file({name: tensor.contiguous() for name, tensor in content.items()}, folder / "model.safetensors")
            return folder
        for key in reversed(self.inside):
            content = {key: content}
        torch.save({**content, **self.other}, folder / "checkpoint.pth")
        return folder / "checkpoint.pth"


class TinyResNet(nn.Module):
    """A ResNet-18 of torchvision's blocks with 8 to 64 channels: torchvision itself has at least 64."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(_block(before, after, stride), _block(after, after, 1))
            for before, after, stride in ((64, 8, 1), (8, 16, 2), (16, 32, 2), (32, 64, 2))
        )
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(64, 5)

    def forward(self, images):
        for name, layer in self.named_children():
            images = layer(images) if name != "fc" else images.flatten(1)
        return images


def _block(before: int, after: int, stride: int) -> BasicBlock:
    shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    return BasicBlock(before, after, stride, shortcut if before != after else None)


def randomised(model: nn.Module, seed: int = 0) -> Any:
    """A model for inference, none of whose saved tensors is constant."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * (torch.rand(tensor.shape, generator=generator) - 0.5)
    return model.eval()


def resnet() -> tuple[Tensors, Callable]:
    """State dict of the tiny ResNet without `fc`, and its features."""
    model = randomised(TinyResNet())
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("fc.")}, model


def vit(spec: str = TINY_VIT, **options: Any) -> tuple[Tensors, Callable]:
    """State dict of a tiny ViT of timm, and its features."""
    settings = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "num_classes": 0}
    model = randomised(timm.create_model(spec.partition(",")[0], **{**settings, **options}))
    return dict(model.state_dict()), model


def under(prefix: str, tensors: Tensors) -> Tensors:
    """Tensors with a prefix before their names."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def linear(name: str) -> Tensors:
    """A linear layer of a head."""
    return {f"{name}.weight": torch.randn(4, 4), f"{name}.bias": torch.randn(4)}


def renamed(tensors: Tensors, *pairs: tuple[str, str]) -> Tensors:
    """Tensors whose names are changed by patterns."""
    result = {}
    for name, tensor in tensors.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor
    return result


def sequential(tensors: Tensors) -> Tensors:
    """Tensors of the ResNet as the children of nn.Sequential, which `list(model.children())` gives."""
    numbers = {name: number for number, (name, _) in enumerate(TinyResNet().named_children())}
    return {f"{numbers[(parts := name.split('.', 1))[0]]}.{parts[1]}": tensor for name, tensor in tensors.items()}
