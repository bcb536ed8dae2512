"""torchvision: weights that its model of the same architecture loads strictly, and a script that does so."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ssl_transfer.errors import BackboneError
from ssl_transfer.export.home import LOADER, Home, built_by_script, loaded_by_script, loader, save_weights
from ssl_transfer.export.matching import Mismatch, in_order
from ssl_transfer.models.architecture import input_convolutions
from ssl_transfer.models.backbone import Backbone

USAGE = """`load.py` builds torchvision's model, replaces its classifier by the identity, and loads all tensors strictly:

```python
import runpy

backbone = runpy.run_path("FOLDER/load.py")["load"]()
```
"""


@dataclass(frozen=True)
class Counterpart:
    """A model of torchvision that has the layers of timm's in the same order.

    Attributes:
        architectures: timm's architecture -> the function in `torchvision.models`.
        head: The layer that is replaced by the identity, so that the output is timm's feature vector.
        first: The convolution that reads the image.
        pool: The pooling that a small stem lacks; empty: there is no small stem.
        moved: See `in_order`.
        sized: Whether the image size is an argument.
    """

    architectures: dict[str, str]
    head: str
    first: str
    pool: str = ""
    moved: dict[str, str] = field(default_factory=dict)
    sized: bool = False


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


VGG = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]
RESNET = (
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
COUNTERPARTS = (
    Counterpart(_same(*RESNET), "fc", "conv1", "maxpool"),
    Counterpart(
        _same(*(f"densenet{n}" for n in (121, 161, 169, 201))), "classifier", "features.conv0", "features.pool0"
    ),
    Counterpart(_same(*VGG), "classifier.6", "features.0"),
    Counterpart(_same(*(f"convnext_{n}" for n in ("tiny", "small", "base", "large"))), "classifier.2", "features.0.0"),
    Counterpart(_same(*(f"efficientnet_b{n}" for n in range(5))), "classifier.1", "features.0.0"),
    Counterpart({"mobilenetv2_100": "mobilenet_v2"}, "classifier.1", "features.0.0"),
    Counterpart(
        {f"vit_{size}_patch{patch}_224": f"vit_{size[0]}_{patch}" for size in ("base", "large") for patch in (16, 32)},
        "heads.head",
        "conv_proj",
        moved={"pos_embed": "patch_embed.proj.bias"},
        sized=True,
    ),
)
BY_NAME = {name: row for row in COUNTERPARTS for name in row.architectures}


def write(backbone: Backbone, folder: Path) -> None:
    """Write the weights under torchvision's names, and the script that loads them.

    Raises:
        BackboneError: If torchvision has no model with these layers.
    """
    card = backbone.card
    row = BY_NAME.get(card.architecture)
    if row is None:
        raise BackboneError(
            f"{card.name}: torchvision has no model with the layers of {card.architecture}. It has {', '.join(BY_NAME)}. For any "
            "other architecture take --to timm or --to onnx."
        )
    (folder / LOADER).write_text(_script(row, backbone))
    built = built_by_script(folder)
    try:
        tensors = in_order(backbone.model.state_dict(), built.state_dict(), row.moved)
    except Mismatch as error:
        raise BackboneError(
            f"{card.name}: torchvision's {row.architectures[card.architecture]} has other layers than this "
            f"{card.architecture} with the options {card.options}: {error}. Take --to timm or --to onnx."
        ) from None
    save_weights(tensors, folder)


def features(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Features by torchvision's model."""
    return loaded_by_script(folder)(images)


def _script(row: Counterpart, backbone: Backbone) -> str:
    """The script that builds torchvision's model, with the first layers of the backbone and without a classifier."""
    card, name = backbone.card, row.architectures[backbone.card.architecture]
    lines = [f"model = torchvision.models.{name}({f'image_size={card.image_size}' if row.sized else ''})"]
    if card.in_channels != 3 or card.stem == "small":
        first: Any = backbone.model.get_submodule(input_convolutions(backbone.model)[0])
        lines.append(
            f"model.{_path(row.first)} = torch.nn.Conv2d({first.in_channels}, {first.out_channels}, {first.kernel_size}, "
            f"stride={first.stride}, padding={first.padding}, bias={first.bias is not None})"
        )
    if card.stem == "small":
        lines.append(f"model.{_path(row.pool)} = torch.nn.Identity()")
    lines.append(f"model.{_path(row.head)} = torch.nn.Identity()")
    return loader(f"torchvision's {name}: {card.feature_dim} features", "import torchvision", lines)


def _path(layer: str) -> str:
    """A layer as Python writes it: `classifier.6` -> `classifier[6]`."""
    return re.sub(r"\.(\d+)", r"[\1]", layer)


HOME = Home("torchvision", write, features, USAGE)
