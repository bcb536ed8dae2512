"""Public weights: downloaded by timm, or from a folder or an installed package for machines without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
from torch import nn

from ssl_transfer.cards import BackboneCard, TrainingStage, lineage
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, UnreachableError, nearest
from ssl_transfer.models.architecture import (
    LOADING,
    RECIPE_KEYS,
    Architecture,
    TimmModel,
    brief,
    input_convolutions,
    tensor_difference,
)
from ssl_transfer.models.card import MAKER, new_card
from ssl_transfer.models.packaged import PACKAGES, packaged_model
from ssl_transfer.models.pooling import has_tokens, own_pooling, timm_pooling
from ssl_transfer.models.public_facts import public_facts

SourceClassifier = tuple[np.ndarray, np.ndarray]  # weights (S, feature_dim) and biases (S,) of the source classes


class PublicWeights(NamedTuple):
    """A model without its head, its card, and its head if that is one linear layer."""

    model: nn.Module
    card: BackboneCard
    classifier: SourceClassifier | None


def stated_channels(spec: str) -> tuple[str, int | None]:
    """The spec of public weights without `,in_channels=N`, and the number; None without one: the channels of the store.

    Raises:
        BackboneError: If another setting is stated, or a number below 1.

    Example:
        >>> stated_channels("imagenet:efficientnet_lite0,in_channels=3")
        ('imagenet:efficientnet_lite0', 3)
    """
    name, *settings = spec.split(",")
    for setting in settings:
        key, _, number = setting.partition("=")
        if len(settings) > 1 or key != "in_channels" or not number.isdecimal() or int(number) < 1:
            raise BackboneError(f"{spec}: found '{setting}'. Expected `,in_channels=1` or another number of channels.")
    return name, int(settings[0].partition("=")[2]) if settings else None


def from_hub(name: str, in_channels: int, size: int) -> PublicWeights:
    """timm's public weights `NAME[.TAG]`, from timm's cache if they were downloaded before.

    Args:
        name: Architecture, and the tag of its weights (without a tag: timm's default).
        in_channels: Number of input channels; timm adapts the first convolution.
        size: Height and width of its images; an architecture with a fixed size keeps it.

    Raises:
        BackboneError: If timm knows no such weights.
        UnreachableError: If it cannot fetch them.
    """
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise BackboneError(f"timm:{name}: timm has no such architecture.{nearest(architecture, timm.list_models())}")
    available = timm.list_models(f"{architecture}.*", pretrained=True)
    if not available or (tag and name not in available):
        raise BackboneError(f"timm:{name}: timm knows no such public weights.{nearest(name, available)}")
    configured = timm.get_pretrained_cfg(name)
    repository = (configured and configured.hf_hub_id) or f"timm/{name}"
    try:
        public: TimmModel = timm.create_model(name, pretrained=True, in_chans=in_channels)
    except Exception as error:  # timm passes on any error of the hub, the network or the disk
        raise UnreachableError(
            f"timm:{name}: the public weights could not be loaded: {brief(error)} Without a network: on a machine that has "
            f"one, `hf download {repository} model.safetensors config.json --local-dir FOLDER` (or fetch the two files from "
            f"https://huggingface.co/{repository}); copy FOLDER here, and write its path instead of timm:{name}."
        ) from None
    return _described(public, name, architecture, {}, in_channels, size)


def from_package(name: str, in_channels: int, size: int) -> PublicWeights:
    """ImageNet weights of an installed package, see `packaged_model`.

    Args:
        name: A key of `PACKAGES`.
        in_channels, size: See `from_hub`.

    Raises:
        BackboneError: If there is no such name, or the package's file is damaged.
        UnreachableError: If the package is not installed.
    """
    public = packaged_model(name, in_channels)
    package = PACKAGES[name]
    return _described(public, f"{name}.{package.tag}", package.architecture, {}, in_channels, size)


def is_public(path: Path) -> bool:
    """Whether a folder holds public weights: the files of the Hugging Face hub, and no card of this package."""
    return not (path / "card.json").exists() and all(
        (path / name).is_file() for name in ("config.json", "model.safetensors")
    )


def from_public_folder(path: Path, in_channels: int, size: int) -> PublicWeights:
    """Public weights that were downloaded: `model.safetensors` and `config.json` as timm writes them.

    Args:
        path: The folder.
        in_channels, size: See `from_hub`.

    Raises:
        BackboneError: If timm cannot load it, or it is a backbone of this package without its card.
    """
    try:
        config = json.loads((path / "config.json").read_text())
        architecture, arguments = str(config["architecture"]), dict(config.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BackboneError(
            f"{path}/config.json: this is not what timm writes beside a model's weights. Weights of another library: "
            f"`ssl-transfer import {path} --out FOLDER`."
        ) from None
    if config.get("made_by") == MAKER:
        raise BackboneError(f"{path}: this is no backbone: its card.json is missing. Copy the whole folder again.")
    _refuse_loading(path, architecture, arguments)
    try:
        public: TimmModel = timm.create_model(f"local-dir:{path}", pretrained=True, in_chans=in_channels)
    except Exception as error:  # timm passes on any error of the disk
        raise BackboneError(f"{path}: timm cannot load these public weights: {brief(error)}") from None
    options = {key: value for key, value in arguments.items() if key not in RECIPE_KEYS}
    tag = public.pretrained_cfg.get("tag")
    return _described(public, f"{architecture}.{tag}" if tag else path.name, architecture, options, in_channels, size)


def _refuse_loading(path: Path, architecture: str, arguments: dict[str, Any]) -> None:
    """Refuse a configuration with which timm would load other files than the weights of the folder.

    Raises:
        BackboneError: If it is one, or its architecture is not one of timm's.
    """
    if not timm.is_model(architecture):
        raise BackboneError(
            f"{path}/config.json: timm has no architecture '{architecture}'.{nearest(architecture, timm.list_models())}"
        )
    if loading := sorted(LOADING & set(arguments)):
        raise BackboneError(
            f"{path}/config.json: model_args.{loading[0]} loads something else than model.safetensors. Remove the key."
        )


def _described(
    public: TimmModel, name: str, architecture: str, options: dict[str, Any], in_channels: int, size: int
) -> PublicWeights:
    """Public weights for `in_channels` without a head, from a model that timm has loaded with its head."""
    config = public.pretrained_cfg
    described = Architecture.of_public(public, architecture, in_channels, size, options)
    model = described.build(seed=0)
    expected = model.state_dict()
    weights = {key: value for key, value in public.state_dict().items() if key in expected}
    difference = tensor_difference(expected, weights)
    if difference:
        raise BackboneError(f"{name}: without its head it is another model: {difference}.")
    model.load_state_dict(weights)
    source, mean, std = config["input_size"][0], config["mean"], config["std"]
    adapted: tuple[str, ...] = ()
    if source != in_channels:
        layers = input_convolutions(model)
        adapted = tuple(f"{layer}.weight: {source} → {in_channels} input channels" for layer in layers)
        mean, std = ((sum(values) / len(values),) * in_channels for values in (mean, std))
    # timm writes its own pooling among the arguments of every model; nobody has chosen it for these features
    pooling = own_pooling(model, {}) if has_tokens(model) else None
    facts = public_facts(name)
    card = new_card(
        name,
        described,
        model,
        Intensity(mean=tuple(mean), std=tuple(std)),
        pooling=pooling,
        method=facts.method,
        **lineage(TrainingStage(name=name, method=facts.method, domain=facts.domain, images={}, dataset=facts.dataset)),
        licence=config.get("license") or facts.licence or "see timm",
        adapted=adapted,
    )
    return PublicWeights(model, card, _classifier(public, model.eval(), card))


def _classifier(public: TimmModel, model: TimmModel, card: BackboneCard) -> SourceClassifier | None:
    """The head that a public model was trained with, if it is one linear layer on the features, in the pooling of the card."""
    head = public.get_classifier() if hasattr(public, "get_classifier") else None
    if not isinstance(head, nn.Linear) or head.in_features != card.feature_dim or card.pooling != timm_pooling(model):
        return None
    image = torch.randn(1, card.in_channels, *2 * [card.image_size], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if not torch.allclose(public.eval()(image), head(model(image)), rtol=1e-3, atol=1e-3):
            return None
    biases = torch.zeros(head.out_features) if head.bias is None else head.bias.detach()
    return head.weight.detach().numpy().copy(), biases.numpy().copy()
