"""Checkpoints of torchvision, with random weights."""

from __future__ import annotations

from support.reference_checkpoints import TINY_RESNET, TINY_VIT, Reference, linear, randomised, renamed, resnet
from torch import nn
from torchvision.models import VGG, ConvNeXt, DenseNet, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vgg import make_layers


def resnet_with_classifier() -> Reference:
    tensors, features = resnet()
    return Reference("torchvision", tensors | linear("fc"), features, "layer3.1.conv2.weight", TINY_RESNET)


def densenet(*, old: bool = False) -> Reference:
    """`old`: with the names `norm.1` of weights from before torchvision 0.3."""
    model = randomised(DenseNet(growth_rate=8, block_config=(1, 1, 1, 1), num_init_features=16, num_classes=5))
    tensors = dict(model.state_dict())
    if old:
        tensors = renamed(tensors, (r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2"))
    model.classifier = nn.Identity()
    name = next(name for name in tensors if name.startswith("features.denseblock3.") and "conv" in name)
    as_ = "densenet121,growth_rate=8,block_config=[1,1,1,1]"
    return Reference("torchvision", tensors, model, name, as_, 64)


def vit() -> Reference:
    model = randomised(
        VisionTransformer(image_size=32, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
    )
    tensors = dict(model.state_dict())
    model.heads = nn.Identity()
    name = "encoder.layers.encoder_layer_1.self_attention.in_proj_weight"
    return Reference("torchvision_vit", tensors, model, name, f"{TINY_VIT},mlp_ratio=2")


def convnext() -> Reference:
    settings = [CNBlockConfig(*widths, 1) for widths in ((8, 16), (16, 24), (24, 32), (32, None))]
    model = randomised(ConvNeXt(settings, num_classes=5))
    tensors = dict(model.state_dict())
    model.classifier[2] = nn.Identity()
    as_ = "convnext_tiny,depths=[1,1,1,1],dims=[8,16,24,32]"
    return Reference("torchvision_convnext", tensors, model, "features.3.0.block.3.weight", as_, 64)


def vgg() -> Reference:
    """VGG-11 with a narrow first linear layer."""
    layers = make_layers([64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"])
    model = VGG(layers, num_classes=5, init_weights=False)
    model.classifier = nn.Sequential(
        nn.Linear(512 * 49, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 5)
    )
    model = randomised(model)
    tensors = dict(model.state_dict())
    model.classifier = model.classifier[:5]
    return Reference("torchvision_vgg", tensors, model, "classifier.0.weight", "vgg11,mlp_ratio=0.002", 64)
