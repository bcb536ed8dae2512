"""Architectures: any timm name as a module without a head, and the few things that timm does not say about it."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.models.densenet import DenseNet
from timm.models.resnet import ResNet
from torch import nn

from ssl_transfer.errors import BackboneError, nearest

ELSEWHERE = {  # arguments of timm that have a home of their own in a recipe
    "in_chans": "backbone.in_channels",
    "img_size": "data.size",
    "pretrained": "backbone.init",
    "num_classes": "nothing: a backbone has no head",
    "features_only": "nothing: a backbone gives one vector",
}


def build(name: str, in_channels: int, size: int, stem: str, options: dict, seed: int) -> nn.Module:
    """Make a timm model without a head, randomly initialised from `seed`.

    It remembers its arguments as `built`, in the words of a card: weights alone cannot tell every two architectures apart.

    Args:
        name: Any timm architecture.
        in_channels: Of its images.
        size: Their height and width; given to architectures that are built for one size (ViT).
        stem: `standard`, or `small`: the first convolution of a ResNet or DenseNet has stride 1 (3 x 3 where it was 7 x 7)
            and no max-pooling follows, as is usual at 32 px and needed there (PROTOCOLS, section 1).
        options: Further arguments of the architecture.
        seed: Of the initial weights.

    Raises:
        BackboneError: If timm does not know the architecture or it refuses an argument.
    """
    if not timm.is_model(name):
        raise BackboneError(f"backbone.name: timm has no architecture '{name}'.{nearest(name, timm.list_models())}")
    for option in set(options) & set(ELSEWHERE):
        raise BackboneError(f"backbone.options.{option}: its place is {ELSEWHERE[option]}.")
    arguments = {"in_chans": in_channels, "num_classes": 0, **options}
    if has_fixed_size(name):
        arguments["img_size"] = size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(name, **arguments)
            if stem == "small":
                _shrink_stem(model, name)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise BackboneError(f"backbone {name} with {arguments}: timm refused: {error}") from None
    model.built = {
        "architecture": name,
        "in_channels": in_channels,
        "image_size": size,
        "stem": stem,
        "options": options,
    }
    return model


def _shrink_stem(model: nn.Module, name: str) -> None:
    if isinstance(model, ResNet):
        place, convolution, pool = model, "conv1", "maxpool"
    elif isinstance(model, DenseNet):
        place, convolution, pool = model.features, "conv0", "pool0"
    else:
        raise BackboneError(
            f"backbone.stem: 'small' is for ResNets and DenseNets; {name} is none. A ViT or a ConvNeXt takes "
            "backbone.options.patch_size instead; a VGG keeps every pixel in its first layers anyway."
        )
    first = getattr(place, convolution)
    if isinstance(first, nn.Sequential):
        first = first[0]
    if first.kernel_size == (7, 7):
        first = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        setattr(place, convolution, first)
    first.stride = (1, 1)
    setattr(place, pool, nn.Identity())


def has_fixed_size(name: str) -> bool:
    """Whether an architecture is built for one image size (ViT, Swin, …)."""
    return bool(timm.get_pretrained_cfg(name).fixed_input_size)


def input_convolutions(model: nn.Module) -> list[str]:
    """Names of the convolutions that read the image; timm names the ResNet's `conv1` also where a deep stem holds three."""
    listed = model.pretrained_cfg.get("first_conv") or []
    found = []
    for name in [listed] if isinstance(listed, str) else listed:
        inside = (
            place
            for place, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d) and f"{place}.".startswith(f"{name}.")
        )
        found += list(inside)[:1]
    return found


def feature_length(model: nn.Module, in_channels: int, size: int) -> int:
    """Length of the vector that a model gives for an image, measured with a black one.

    timm's `num_features` is another number wherever layers follow the pooling (VGG, MobileNetV3) or pooling concatenates.

    Raises:
        BackboneError: If it cannot read such an image, or does not give one vector for it.
    """
    training = model.training
    image = torch.zeros(1, in_channels, size, size)
    try:
        with torch.no_grad():
            features = model.eval()(image)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(
            f"{type(model).__name__} cannot read images of {in_channels} x {size} x {size}: {error}. Choose another size."
        ) from None
    finally:
        model.train(training)
    if features.ndim != 2:
        raise BackboneError(
            f"{type(model).__name__} gives {tuple(features.shape)} for one image, not a vector. Leave "
            "backbone.options.global_pool as timm has it."
        )
    return features.shape[1]


def difference(own: dict[str, Any], given: dict[str, Any]) -> str:
    """Where two sets of weights differ in names or shapes: the first three tensors, in words; empty if nowhere."""

    def shape(tensors: dict[str, Any], name: str) -> str:
        return f"of shape {tuple(tensors[name].shape)}" if name in tensors else "absent"

    names = [name for name in {**own, **given} if shape(own, name) != shape(given, name)]
    told = [f"{name} is {shape(given, name)} and should be {shape(own, name)}" for name in names[:3]]
    return "; ".join(told) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def brief(error: Exception) -> str:
    """Another library's error in one line, at most some 200 characters of it."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"
