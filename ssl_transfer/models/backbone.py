"""Backbones: a timm encoder, and a card with its architecture, input and training.

A saved backbone is a folder: `model.safetensors` and `config.json` as timm writes them, so that plain
`timm.create_model("local-dir:PATH", pretrained=True)` loads it, `card.json`, `README.md` for people, and `passport/`, by which
evaluations recognise its training images. Random
initialisation (`scratch:NAME`) and public weights (`timm:NAME.TAG`, `imagenet:NAME`) are backbones too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_transfer.cards import AGAIN, TRIVIAL, BackboneCard
from ssl_transfer.channels import InputChannels, stated_input
from ssl_transfer.data.images import Images
from ssl_transfer.data.intensity import Intensity, Scale
from ssl_transfer.data.neighbours import with_channels_of
from ssl_transfer.data.passport import Passport
from ssl_transfer.errors import BackboneError
from ssl_transfer.kept import located
from ssl_transfer.models.architecture import Architecture, TimmModel, brief
from ssl_transfer.models.card import new_card, readme, timm_config, weights_digest
from ssl_transfer.models.given_features import PREFIX as PREFIX_OF_FEATURES
from ssl_transfer.models.given_features import WITHOUT_IMAGES, GivenFeatures
from ssl_transfer.models.packaged import PREFIX
from ssl_transfer.models.pooling import check_pooling, features_of, pooled, timm_pooling
from ssl_transfer.models.public import (
    SourceClassifier,
    from_hub,
    from_package,
    from_public_folder,
    is_public,
    stated_channels,
)
from ssl_transfer.models.tensor_files import Shape, shape_difference, stored_shapes
from ssl_transfer.models.trivial import TrivialFeatures, is_trivial, trivial_card
from ssl_transfer.paths import portable
from ssl_transfer.poolings import stated_pooling
from ssl_transfer.run import whole_folder

SCRATCH = "scratch"  # name of a randomly initialised backbone
NO_PASSPORT = Passport()


class Backbone(nn.Module):
    """An encoder that maps images to features.

    Args:
        model: timm model without a head.
        card: Architecture, input and training of the backbone.
        classifier: Classifier of the source classes of public weights, weights (S, feature_dim) and biases (S,); None if there
            is none. It is not saved with a backbone.
        passport: What is known of its training images, in all stages.

    Attributes:
        spec: Path or name under which it was loaded; None: it was made.
    """

    def __init__(
        self,
        model: TimmModel,
        card: BackboneCard,
        classifier: SourceClassifier | None = None,
        passport: Passport = NO_PASSPORT,
    ):
        super().__init__()
        self.model: TimmModel = model
        self.card = card
        self.classifier = classifier
        self.passport = passport
        self.spec: str | None = None

    @classmethod
    def identified(cls, model: TimmModel, card: BackboneCard, classifier: SourceClassifier | None = None) -> Backbone:
        """A backbone with its id in its card."""
        return cls(model, replace(card, id=weights_digest(model, card)), classifier)

    @property
    def architecture(self) -> Architecture:
        """Its architecture."""
        return Architecture.from_card(self.card)

    @property
    def feature_dim(self) -> int:
        """Length of a feature vector."""
        return self.card.feature_dim

    @property
    def intensity(self) -> Intensity:
        """How input images are scaled."""
        return self.card.intensity

    def inputs(self, store: Images) -> Images:
        """A store with the channels that this backbone reads, before windows: see `with_channels_of`."""
        return with_channels_of(store, self.card.channels)

    def scale(self, store: Images) -> Scale:
        """The map from the values of a store of `inputs` to unit intensity."""
        return Scale.of_store(store.card, self.intensity.window_hu, self.card.channels)

    @property
    def id(self) -> str:
        """Hash of the weights, the architecture, the intensity, the pooling and the channels; empty until it is saved."""
        return self.card.id

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, C, H, W), scaled by `intensity`, to features (B, feature_dim)."""
        return features_of(self.model, images, self.card.pooling)

    @property
    def reads_images(self) -> bool:
        """Whether it computes features; False for features from a file (`features:FILE`)."""
        return not isinstance(self.model, GivenFeatures)

    @property
    def pooling(self) -> str:
        """How its features are pooled; cards of earlier versions do not state it, and then it is timm's way."""
        return self.card.pooling or timm_pooling(self.model)

    def poolings(self, images: torch.Tensor, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Features of images in several poolings of a ViT from one forward pass, see `models.pooling.pooled`."""
        return pooled(self.model, images, names)


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write the folder of a backbone atomically, with its id and the id of its passport in the card.

    Raises:
        BackboneError: If a weight is NaN or infinite.
        OutputError: If the folder cannot be written.
    """
    model = backbone.model
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BackboneError(
                f"{folder}: not saved: {name} is NaN or infinite, so the training has failed. Lower optimizer.lr, warm up "
                "longer, set train.clip_gradient, or look for images that are not finite; then start again with --resume never."
            )
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with whole_folder(folder) as temporary:
        passport, identity = backbone.passport.save(temporary), weights_digest(model, backbone.card)
        backbone.card = card = replace(backbone.card, id=identity, passport=passport)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(timm_config(model, card), indent=1))
        (temporary / "README.md").write_text(readme(card))
        card.save(temporary)


def load_backbone(spec: str | Path, in_channels: int = 3, size: int = 224) -> Backbone:
    """Load a backbone, ready for features (`eval`).

    `scratch:FOLDER` is the control of a pretrained backbone: its architecture with the random weights of its seed, without
    pretraining. Its run started from the same weights, with two exceptions: a run with a parent (`init`) started from the
    parent's weights; and MAE sets a ViT's position embedding to sines and cosines.

    Args:
        spec: A folder that `pretrain` wrote; `RUN@EPOCH`, `RUN@best` or `RUN@last` with the folder of a pretraining run;
            `scratch:NAME[,in_channels=1,size=64,stem=small,seed=0]` or `scratch:FOLDER` for random weights;
            `timm:NAME[.TAG]` for public weights, `imagenet:NAME` for those of an installed package (see `packaged`), both
            with `,in_channels=1` or 3 where it should not be that of the store; or a folder with their `model.safetensors`
            and `config.json`, as timm writes them and the Hugging Face hub holds them; `trivial` for `TrivialFeatures`.
            Behind any of them, `,context=3` and `,windows=lung+bone+-160:240` state what the channels are (see
            `InputChannels`), and `,pooling=cls|mean|cls+mean|last4` the pooling of a ViT (see `models.pooling`).
        in_channels: Channels of public weights (timm adapts the first convolution), and default for `scratch:`.
        size: Height and width of its images, likewise; public weights of an architecture with a fixed size keep it.

    Raises:
        BackboneError: If it does not exist, is damaged, or its public weights cannot be fetched.
    """
    text, channels = stated_input(str(spec))
    if channels.are_stated:
        stated = with_stated_channels(load_backbone(text, channels.count, size), channels)
        stated.spec = portable(spec)
        return stated
    text, pooling = stated_pooling(text)
    if pooling is not None:
        stated = with_pooling(load_backbone(text, in_channels, size), pooling)
        stated.spec = portable(spec)
        return stated
    if text.startswith(PREFIX_OF_FEATURES):
        raise BackboneError(f"{text}: {WITHOUT_IMAGES}")
    if is_trivial(text):
        backbone = trivial_backbone(text, (in_channels, size, size))
    elif text.startswith("scratch:"):
        backbone = _scratch(text, in_channels, size)
    elif text.startswith(("timm:", PREFIX)):
        name, channels = stated_channels(text)
        fetch = from_package if name.startswith(PREFIX) else from_hub
        backbone = Backbone.identified(*fetch(name.partition(":")[2], channels or in_channels, size))
    else:
        backbone = _from_folder(located(text), in_channels, size)
    backbone.spec = portable(spec)
    return backbone.eval()


def with_pooling(backbone: Backbone, pooling: str) -> Backbone:
    """A backbone with the weights of another, and another pooling of its tokens; in `eval`.

    Raises:
        BackboneError: If it has no such pooling.
    """
    check_pooling(backbone.model, pooling, backbone.card.name)
    dim = backbone.architecture.feature_dim(backbone.model, pooling)
    card = replace(backbone.card, pooling=pooling, feature_dim=dim)
    classifier = backbone.classifier if pooling == backbone.pooling else None
    other = Backbone.identified(backbone.model, card, classifier)
    other.passport = backbone.passport
    return other.eval()


def with_stated_channels(backbone: Backbone, channels: InputChannels) -> Backbone:
    """A backbone whose channels are grey or colours, with others that are slices or windows; in `eval`.

    Raises:
        BackboneError: If its channels are stated already, or are not so many.
    """
    card = backbone.card
    if card.channels.are_stated and card.channels != channels:
        raise BackboneError(f"{card.name}: its channels are {card.channels}, as its card says, and not {channels}.")
    if card.in_channels != channels.count or card.method == TRIVIAL:
        raise BackboneError(
            f"{card.name}: has {card.in_channels} channel(s), and {channels} are {channels.count}. Take public weights, whose "
            "channels are adapted, or pretrain with data.context and data.windows."
        )
    window = {"window_hu": channels.windows_hu[0]} if channels.windows_hu else {}
    card = replace(card, channels=channels, intensity=replace(card.intensity, **window))
    other = Backbone.identified(backbone.model, card, backbone.classifier)
    other.passport = backbone.passport
    return other.eval()


def _scratch(spec: str, in_channels: int, size: int) -> Backbone:
    folder, *settings = spec.removeprefix("scratch:").split(",")
    if (Path(folder) / "config.json").is_file():
        if settings:
            raise BackboneError(f"{spec}: a folder has its settings in its card; leave out {', '.join(settings)}.")
        return random_init(_from_folder(Path(folder), in_channels, size).card)
    architecture, seed = Architecture.from_scratch(spec, in_channels, size)
    channels = architecture.in_channels
    return _random_init(architecture, Intensity(mean=(0.5,) * channels, std=(0.25,) * channels), seed)


def trivial_backbone(spec: str, shape: tuple[int, int, int]) -> Backbone:
    """Trivial features (`trivial[,seed=N]`, see `trivial_card`) of images of shape (C, H, W)."""
    return Backbone.identified(TrivialFeatures(*shape[1:]), trivial_card(spec, shape)).eval()


def random_init(card: BackboneCard) -> Backbone:
    """A card's architecture and scaling with the random weights of its seed (0 if it has none)."""
    facts = {"pooling": card.pooling, "channels": card.channels}
    return _random_init(Architecture.from_card(card), card.intensity, card.pretraining_seed or 0, **facts)


def _random_init(architecture: Architecture, intensity: Intensity, seed: int, **facts: Any) -> Backbone:
    model = architecture.build(seed)
    card = new_card(SCRATCH, architecture, model, intensity, pretraining_seed=seed, **facts)
    return Backbone.identified(model, card)


def _from_folder(path: Path, in_channels: int, size: int) -> Backbone:
    if is_public(path):
        return Backbone.identified(*from_public_folder(path, in_channels, size))
    card = BackboneCard.load(path)
    weights = path / "model.safetensors"
    try:
        stored = stored_shapes(weights)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{weights}: cannot be loaded: {brief(error)} {AGAIN}") from None
    architecture = Architecture.from_card(card)
    expected = architecture.shapes()  # compared before memory is allocated
    if expected is not None:
        _refuse_difference(weights, expected, stored)
    model = architecture.build(seed=0)
    try:
        tensors = load_file(weights)
    except Exception as error:  # safetensors raises its own errors, and OSError
        raise BackboneError(f"{weights}: cannot be loaded: {brief(error)} {AGAIN}") from None
    _refuse_difference(weights, _shapes(model.state_dict()), _shapes(tensors))
    model.load_state_dict(tensors)
    if card.id and weights_digest(model, card) != card.id:
        raise BackboneError(
            f"{weights}: these are not the weights of its card: their digest is another one, so one of the two files was damaged "
            f"or changed. Copy the folder again, or: {AGAIN}"
        )
    if card.feature_dim not in (model.num_features, getattr(model, "head_hidden_size", None)):
        measured = architecture.feature_dim(model, card.pooling)
        if measured != card.feature_dim:
            raise BackboneError(
                f"{path}/card.json: is damaged: feature_dim: found {card.feature_dim}, measured {measured}. {AGAIN}"
            )
    return Backbone(model, card, passport=Passport.load(path, card.passport))


def _refuse_difference(weights: Path, expected: Mapping[str, Shape], stored: Mapping[str, Shape]) -> None:
    if difference := shape_difference(expected, stored):
        raise BackboneError(f"{weights}: does not belong to this card: {difference}. {AGAIN}")


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
