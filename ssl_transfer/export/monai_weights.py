"""MONAI: weights of its 2-D ResNet, DenseNet and EfficientNet, which are encoders of `FlexibleUNet`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ssl_transfer.errors import BackboneError
from ssl_transfer.export.home import LOADER, Home, built_by_script, loaded_by_script, loader, save_weights
from ssl_transfer.export.matching import Mismatch, in_order
from ssl_transfer.models.architecture import input_convolutions
from ssl_transfer.models.backbone import Backbone

USAGE = """`load.py` builds MONAI's model without a classifier, and loads all tensors strictly:

```python
import runpy

backbone = runpy.run_path("FOLDER/load.py")["load"]()
```

ResNets (without the small stem) and EfficientNets are encoders of a U-Net, whose decoder starts from random weights:
`runpy.run_path("FOLDER/load.py")["flexible_unet"](out_channels=2)`.
"""
DEPTHS = {  # block and number of blocks of each stage
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
    "resnet101": ("bottleneck", [3, 4, 23, 3]),
    "resnet152": ("bottleneck", [3, 8, 36, 3]),
    "resnet200": ("bottleneck", [3, 24, 36, 3]),
}
DENSENETS = {f"densenet{depth}": f"DenseNet{depth}" for depth in (121, 169, 201)}
EFFICIENTNETS = {f"tf_efficientnet_b{n}": f"efficientnet-b{n}" for n in range(9)}  # padded as TensorFlow does


def write(backbone: Backbone, folder: Path) -> None:
    """Write the weights under MONAI's names, and the script that loads them.

    Raises:
        BackboneError: If MONAI has no 2-D model with these layers.
    """
    card = backbone.card
    known = (*DEPTHS, *DENSENETS, *EFFICIENTNETS)
    if card.architecture not in known:
        hint = f" MONAI pads as tf_{card.architecture} does." if f"tf_{card.architecture}" in EFFICIENTNETS else ""
        raise BackboneError(
            f"{card.name}: MONAI has no model with the layers of {card.architecture}. It has {', '.join(known)}.{hint} For any "
            "other architecture take --to timm or --to onnx."
        )
    (folder / LOADER).write_text(_script(backbone))
    try:
        tensors = in_order(backbone.model.state_dict(), built_by_script(folder).state_dict())
    except Mismatch as error:
        raise BackboneError(
            f"{card.name}: MONAI's model has other layers than this {card.architecture} with the options {card.options}: "
            f"{error}. Take --to timm or --to onnx."
        ) from None
    save_weights(tensors, folder)


def features(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Features by MONAI's model; of an encoder, its last map averaged."""
    answer = loaded_by_script(folder)(images)
    return answer[-1].mean((2, 3)) if isinstance(answer, (list, tuple)) else answer


def _script(backbone: Backbone) -> str:
    """The script that builds MONAI's model, and where it can be one, the U-Net whose encoder it is."""
    card = backbone.card
    small, what = card.stem == "small", f"MONAI's {card.architecture.removeprefix('tf_')}: {card.feature_dim} features"
    if small and card.architecture not in DEPTHS:
        raise BackboneError(
            f"{card.name}: MONAI cannot build the small-image stem of {card.architecture}. Take --to torchvision or --to onnx."
        )
    if card.architecture in DENSENETS:
        name = DENSENETS[card.architecture]
        lines = [
            f"model = {name}(spatial_dims=2, in_channels={card.in_channels}, out_channels=1)",
            "model.class_layers.out = torch.nn.Identity()",
        ]
        return loader(what, f"from monai.networks.nets import {name}", lines)
    if card.architecture in EFFICIENTNETS:
        name = EFFICIENTNETS[card.architecture]
        lines = [
            f'model = EfficientNetBN("{name}", pretrained=False, spatial_dims=2, in_channels={card.in_channels})',
            "model._fc = torch.nn.Identity()",
        ]
        imports = "from monai.networks.nets import EfficientNetBN, FlexibleUNet"
        return loader(what, imports, lines) + UNET.format(channels=card.in_channels, name=name, fill=FILLED)
    imports = (
        "from monai.networks.nets import FlexibleUNet\nfrom monai.networks.nets.resnet import ResNet, ResNetFeatures"
    )
    unet = "" if small else UNET.format(channels=card.in_channels, name=card.architecture, fill=REPLACED)
    return loader(what, imports + _encoder(backbone), ["model = Encoder()"]) + unet


def _encoder(backbone: Backbone) -> str:
    """MONAI's ResNet with the stem and the shortcuts of the backbone, which gives the maps of its stages."""
    block, layers = DEPTHS[backbone.card.architecture]
    first: Any = backbone.model.get_submodule(input_convolutions(backbone.model)[0])
    return ENCODER.format(
        block=block,
        layers=layers,
        channels=first.in_channels,
        kernel=first.kernel_size[0],
        stride=first.stride[0],
        no_pool=backbone.card.stem == "small",
    )


ENCODER = '''


class Encoder(ResNetFeatures):
    """The ResNet as an encoder: images (B, {channels}, H, W) become a list of five maps; features are the mean of the last."""

    def __init__(self):
        ResNet.__init__(
            self,
            "{block}",
            {layers},
            [64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels={channels},
            conv1_t_size={kernel},
            conv1_t_stride={stride},
            no_max_pool={no_pool},
            shortcut_type="B",
            bias_downsample=False,
            feed_forward=False,
        )'''
UNET = '''

def flexible_unet(out_channels, **options):
    """MONAI's FlexibleUNet with this encoder; its decoder starts from random weights."""
    unet = FlexibleUNet({channels}, out_channels, "{name}", pretrained=False, spatial_dims=2, **options)
    {fill}
    return unet
'''
REPLACED = "unet.encoder = load()"
FILLED = "unet.encoder._fc = torch.nn.Identity()\n    unet.encoder.load_state_dict(load().state_dict(), strict=True)"
HOME = Home("MONAI", write, features, USAGE)
