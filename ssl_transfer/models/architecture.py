"""Architectures: any timm architecture as a module without a head, and properties of it that timm does not provide."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import timm
import torch
from timm.models.densenet import DenseNet
from timm.models.resnet import ResNet
from torch import nn

from ssl_transfer.cards import BackboneCard
from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.models.pooling import features_of
from ssl_transfer.models.tensor_files import shape_difference

# an nn.Module whose further attributes (pretrained_cfg, group_matcher, …) are timm's and carry no types
TimmModel = Any
RECIPE_KEYS = {  # arguments of timm that a recipe states under another key
    "in_chans": "backbone.in_channels",
    "img_size": "data.size",
    "pretrained": "backbone.init",
    "num_classes": "nothing: a backbone has no head",
    "features_only": "nothing: a backbone gives one vector",
}
LOADING = {  # arguments of timm that read files or fetch weights, not options of an architecture
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "no_jit",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "scriptable",
}
FREE_OPTIONS = {"dynamic_img_size", "global_pool"}  # and every drop rate: a child may differ from its parent in them


@dataclass(frozen=True)
class Architecture:
    """The architecture of a backbone, without weights.

    Attributes:
        name: Any timm architecture.
        in_channels: Number of input channels.
        size: Height and width of its images, in pixels; an argument of architectures with a fixed size (ViT).
        stem: `standard`, or `small`: the first convolution of a ResNet or DenseNet has stride 1 (3 x 3 where it was 7 x 7)
            and no max-pooling follows, as is usual at 32 px (Chen et al. 2020, https://arxiv.org/abs/2002.05709, B.9).
        options: Further arguments of the architecture.
    """

    name: str
    in_channels: int
    size: int
    stem: str = "standard"
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_card(cls, card: BackboneCard) -> Architecture:
        """The architecture that a backbone's card states."""
        return cls(card.architecture, card.in_channels, card.image_size, card.stem, card.options)

    @classmethod
    def from_scratch(cls, spec: str, in_channels: int, size: int) -> tuple[Architecture, int]:
        """Parse `scratch:NAME[,in_channels=1,size=64,stem=small,seed=0]`: the architecture, and the seed of its weights.

        Args:
            spec: The text to parse.
            in_channels: Default number of channels.
            size: Default size.

        Raises:
            BackboneError: If a setting is unknown or not a number.
        """
        name, *settings = spec.removeprefix("scratch:").split(",")
        values: dict[str, Any] = {"in_channels": in_channels, "size": size, "stem": "standard", "seed": 0}
        for setting in settings:
            key, _, text = setting.partition("=")
            if key not in values:
                raise BackboneError(f"{spec}: no setting '{key}'.{nearest(key, [*values, 'pooling'])}")
            try:
                values[key] = type(values[key])(text)
            except ValueError:
                raise BackboneError(f"{spec}: {key}={text}: expected a whole number.") from None
        seed = values.pop("seed")
        return cls(name, **values), seed

    @classmethod
    def of_public(
        cls, model: TimmModel, name: str, in_channels: int, size: int, options: dict[str, Any]
    ) -> Architecture:
        """The architecture of public weights that timm has loaded; an architecture with a fixed image size keeps it."""
        if has_fixed_size(name):
            fixed = (
                getattr(getattr(model, "patch_embed", None), "img_size", None) or model.pretrained_cfg["input_size"][1:]
            )
            size = fixed if isinstance(fixed, int) else fixed[0]
        return cls(name, in_channels, size, options=options)

    def card(self) -> dict[str, Any]:
        """The fields of a backbone's card that describe it."""
        return {
            "architecture": self.name,
            "in_channels": self.in_channels,
            "image_size": self.size,
            "stem": self.stem,
            "options": self.options,
        }

    def build(self, seed: int) -> TimmModel:
        """Make the timm model without a head, randomly initialised from `seed`; the global random state does not change.

        Raises:
            BackboneError: If timm does not know the architecture or refuses an argument.
        """
        if not timm.is_model(self.name):
            raise BackboneError(
                f"backbone.name: timm has no architecture '{self.name}'.{nearest(self.name, timm.list_models())}"
            )
        for option in set(self.options) & set(RECIPE_KEYS):
            raise BackboneError(f"backbone.options.{option}: its place is {RECIPE_KEYS[option]}.")
        for option in set(self.options) & LOADING:
            raise BackboneError(
                f"backbone.options.{option}: this loads something, and an option may not. Leave it out."
            )
        arguments = {"in_chans": self.in_channels, "num_classes": 0, **self.options}
        if has_fixed_size(self.name):
            arguments["img_size"] = self.size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                model = timm.create_model(self.name, **arguments)
                if self.stem == "small":
                    _shrink_stem(model, self.name)
            except BackboneError:
                raise
            except Exception as error:  # timm passes options on to the constructors of many layers
                stated = str(arguments)
                stated = stated if len(stated) <= 400 else f"{stated[:400]}…"
                raise BackboneError(f"backbone {self.name} with {stated}: timm refused: {brief(error)}") from None
        return model

    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Shapes of all weights, without memory for them; None if timm cannot build this architecture without.

        Raises:
            BackboneError: As `build`.
        """
        with torch.device("meta"):
            try:
                model = self.build(0)
            except BackboneError as error:
                if "meta" in str(error).lower():
                    return None
                raise
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    def check_parent(self, parent: Architecture) -> None:
        """Refuse weights of another architecture; even with equal tensors, strides or activations may differ.

        Raises:
            RuntimeError: If the parent differs in name, stem or options, drop rates and pooling aside.
        """
        essence = self._essence()
        for key, theirs in parent._essence().items():
            if theirs != essence[key]:
                raise RuntimeError(
                    f"{key}: the parent has {theirs}, this backbone {essence[key]}. They must be the same."
                )

    def _essence(self) -> dict[str, str]:
        """The properties that the weights depend on, as text."""
        kept = {
            key: value
            for key, value in self.options.items()
            if key not in FREE_OPTIONS and not ("drop" in key and key.endswith("_rate"))
        }
        options = json.dumps(kept, sort_keys=True)  # a list and a tuple are the same option
        return {"architecture": self.name, "stem": self.stem, "options": options}

    def feature_dim(self, model: nn.Module, pooling: str | None = None) -> int:
        """Length of the feature vector of its model in a pooling (see `features_of`), measured with a black image.

        timm's `num_features` differs where layers follow the pooling (VGG, MobileNetV3) or pooling concatenates.

        Raises:
            BackboneError: If the model cannot read images of this size, or does not return one vector per image.
        """
        training = model.training
        image = torch.zeros(1, self.in_channels, self.size, self.size)
        try:
            with torch.no_grad():
                features = features_of(model.eval(), image, pooling)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise BackboneError(
                f"{type(model).__name__} cannot read images of {self.in_channels} x {self.size} x {self.size}: {error}. "
                "Choose another size."
            ) from None
        finally:
            model.train(training)
        if features.ndim != 2:
            raise BackboneError(
                f"{type(model).__name__} gives {tuple(features.shape)} for one image, not a vector. Leave "
                "backbone.options.global_pool as timm has it."
            )
        return features.shape[1]


def _shrink_stem(model: TimmModel, name: str) -> None:
    if isinstance(model, ResNet):
        parent, convolution, pool = model, "conv1", "maxpool"
    elif isinstance(model, DenseNet):
        parent, convolution, pool = model.features, "conv0", "pool0"
    else:
        raise BackboneError(
            f"backbone.stem: 'small' is for ResNets and DenseNets; {name} is none. A ViT or a ConvNeXt takes "
            "backbone.options.patch_size instead; a VGG keeps every pixel in its first layers anyway."
        )
    first: Any = getattr(parent, convolution)
    if isinstance(first, nn.Sequential):
        first = first[0]
    if first.kernel_size == (7, 7):
        first = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
        setattr(parent, convolution, first)
    first.stride = (1, 1)
    setattr(parent, pool, nn.Identity())


def has_fixed_size(name: str) -> bool:
    """Whether an architecture is built for a single image size (ViT, Swin, …)."""
    config = timm.get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)


def input_convolutions(model: TimmModel) -> list[str]:
    """Names of the convolutions that read the image; timm lists a ResNet's `conv1` also where a deep stem holds three."""
    listed = model.pretrained_cfg.get("first_conv") or []
    names = []
    for prefix in [listed] if isinstance(listed, str) else listed:
        inside = (
            name
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Conv2d) and f"{name}.".startswith(f"{prefix}.")
        )
        names += list(inside)[:1]
    return names


def tensor_difference(expected: dict[str, Any], given: dict[str, Any]) -> str:
    """Where two sets of weights differ in names or shapes, see `shape_difference`."""
    return shape_difference(
        *({name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (expected, given))
    )


def brief(error: Exception) -> str:
    """Another library's error as a single line of at most some 200 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}{'…' if len(text) > 200 else ''}"
