"""Backbones: a timm encoder and the card that says what it is and how it wants its images.

A saved backbone is a folder: `model.safetensors` and `config.json` as timm writes them, so that plain
`timm.create_model("local-dir:PATH", pretrained=True)` loads it, `card.json`, and `README.md` for people. Random
initialisation (`scratch:NAME`) and public weights (`timm:NAME.TAG`) are backbones too.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import nn

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.models.architecture import brief, build, difference, input_convolutions
from ssl_transfer.models.card import SCHEMA, new_card, readme, timm_config, weights_digest
from ssl_transfer.models.public import Classifier, from_hub, from_public_folder, is_public
from ssl_transfer.run import whole_folder

SCRATCH = "scratch"  # the name of a backbone that was never pretrained
FREE_OPTIONS = {"dynamic_img_size", "global_pool"}  # and every drop rate: a child may have others than its parent


class Backbone(nn.Module):
    """Images in, features out.

    Args:
        model: timm model without a head.
        card: What is known of it; `intensity`, `image_size`, `source_domain`, `method`, … (see `new_card`).
        classifier: Of the source classes, weights (S, feature_dim) and biases (S,): public weights bring one, and it is not
            saved with a backbone.

    Attributes:
        feature_dim: Length of a feature vector.
        intensity: How images must be scaled.
    """

    def __init__(self, model: nn.Module, card: dict[str, Any], classifier: Classifier | None = None):
        super().__init__()
        self.model = model
        self.card = card
        self.classifier = classifier

    @property
    def feature_dim(self) -> int:
        """Length of a feature vector."""
        return self.card["feature_dim"]

    @property
    def intensity(self) -> Intensity:
        """How images must be scaled."""
        return Intensity.from_card(self.card["intensity"])

    @property
    def id(self) -> str:
        """Content name: hash of the weights, the architecture and the intensity."""
        return self.card["id"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, C, H, W), scaled by `intensity`, to features (B, feature_dim)."""
        return self.model(images)


def adopt(model: nn.Module, parent: nn.Module) -> list[str]:
    """Give a model the weights of a parent of the same architecture; both come from `build`.

    Another number of channels and another image size are adapted as timm does it when it loads weights: filters of the
    first convolution are summed for one channel, else repeated and scaled; position embeddings are resampled.

    Returns:
        What was adapted, for the card: `conv1.weight: 3 → 1 input channels`.

    Raises:
        RuntimeError: If the parent is another architecture, in name, stem, options or tensors.
    """
    _check_kinship(model.built, parent.built)
    weights, own, adapted = parent.state_dict(), model.state_dict(), []
    have, want = parent.built["in_channels"], model.built["in_channels"]
    for name in input_convolutions(model):
        key = f"{name}.weight"
        if have != want and key in weights and weights[key].shape[1] == have:
            weights[key] = _with_channels(weights[key], want)
            adapted.append(f"{key}: {have} → {want} input channels")
    place = "pos_embed"
    if place in own and place in weights and own[place].shape != weights[place].shape:
        adapted.append(f"{place}: {weights[place].shape[1]} → {own[place].shape[1]} positions")
        prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
        grid = list(model.patch_embed.grid_size)
        weights[place] = resample_abs_pos_embed(weights[place], grid, num_prefix_tokens=prefix)
    differing = difference(own, weights)
    if differing:
        raise RuntimeError(differing)
    model.load_state_dict(weights)
    return adapted


def with_channels(backbone: Backbone, channels: int) -> Backbone:
    """A copy of a backbone that reads another number of channels, its first convolution adapted as `adopt` says."""
    card = backbone.card
    if card["in_channels"] == channels:
        return backbone
    model = build(card["architecture"], channels, card["image_size"], card["stem"], card["options"], 0)
    adapted = adopt(model, backbone.model)
    if not adapted:
        raise BackboneError(
            f"backbone {card['architecture']}: timm does not say which layer reads the image, so it cannot be adapted to "
            f"{channels} channels. Use channels=repeat."
        )
    intensity = replace(
        backbone.intensity,
        mean=_over_channels(backbone.intensity.mean, channels),
        std=_over_channels(backbone.intensity.std, channels),
    )
    changes = {"in_channels": channels, "intensity": intensity.to_card(), "adapted": [*card["adapted"], *adapted]}
    return _named(model, {**card, **changes}).train(backbone.training)


def _over_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Means or spreads of other channels: those of colours for grey are averaged, that of grey is repeated."""
    return (sum(values) / len(values),) * channels


def _check_kinship(own: dict[str, Any], given: dict[str, Any]) -> None:
    """Two architectures may have equal tensors and yet be two: strides, activations."""

    def essence(built: dict[str, Any]) -> dict[str, Any]:
        kept = {
            key: value
            for key, value in built["options"].items()
            if key not in FREE_OPTIONS and not ("drop" in key and key.endswith("_rate"))
        }
        options = json.dumps(kept, sort_keys=True)  # a list and a tuple are the same option
        return {"architecture": built["architecture"], "stem": built["stem"], "options": options}

    for key, expected in essence(own).items():
        found = essence(given)[key]
        if found != expected:
            raise RuntimeError(f"{key}: the parent has {found}, this backbone {expected}. They must be the same.")


def _with_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Input filters (O, I, H, W) for another number of channels, by the rule of timm's `adapt_input_conv` for any I."""
    have = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.repeat(1, math.ceil(channels / have), 1, 1)[:, :channels] * (have / channels)


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write a backbone's folder in one move; `card.json` gets the content id."""
    card, model = backbone.card, backbone.model
    card["id"] = weights_digest(model, card)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with whole_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(timm_config(model, card), indent=1))
        (temporary / "README.md").write_text(readme(card))
        (temporary / "card.json").write_text(json.dumps(card, indent=1))


def load_backbone(spec: str | Path, in_channels: int = 3, size: int = 224) -> Backbone:
    """Load a backbone, ready for features (`eval`).

    `scratch:FOLDER` is the control of a pretrained backbone: its architecture with the random weights of its seed, and no
    pretraining whatsoever. That is where its run began, with two exceptions: a run that began from a parent (`init`) began
    with the parent's weights, not with these; and MAE lays sines and cosines over a ViT's position embedding.

    Args:
        spec: A folder that `pretrain` wrote; `scratch:NAME[,in_channels=1,size=64,stem=small,seed=0]` or `scratch:FOLDER` for
            random weights; `timm:NAME[.TAG]` for public weights, or a folder with their `model.safetensors` and
            `config.json`, as timm writes them and the Hugging Face hub holds them.
        in_channels: Of a `scratch:` backbone that does not say, and of public weights: timm adapts the first convolution.
        size: Height and width of its images, likewise; public weights that are built for one size keep it.

    Raises:
        BackboneError: If it does not exist, is damaged, or its public weights cannot be fetched.
    """
    text = str(spec)
    if text.startswith("scratch:"):
        backbone = _scratch(text, in_channels, size)
    elif text.startswith("timm:"):
        backbone = _named(*from_hub(text.removeprefix("timm:"), in_channels, size))
    else:
        backbone = _from_folder(Path(spec), in_channels, size)
    return backbone.eval()


def _scratch(spec: str, in_channels: int, size: int) -> Backbone:
    name, *settings = spec.removeprefix("scratch:").split(",")
    if (Path(name) / "config.json").is_file():
        if settings:
            raise BackboneError(f"{spec}: a folder has its settings in its card; leave out {', '.join(settings)}.")
        return untrained_backbone(_from_folder(Path(name), in_channels, size).card)
    known = {"in_channels": in_channels, "size": size, "stem": "standard", "seed": 0}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in known:
            raise BackboneError(f"{spec}: no setting '{key}'.{nearest(key, known)}")
        try:
            known[key] = type(known[key])(value)
        except ValueError:
            raise BackboneError(f"{spec}: {key}={value}: expected a whole number.") from None
    channels = known["in_channels"]
    intensity = Intensity(mean=(0.5,) * channels, std=(0.25,) * channels)
    return _unpretrained(name, channels, known["size"], known["stem"], {}, intensity, known["seed"])


def untrained_backbone(card: dict[str, Any]) -> Backbone:
    """A card's architecture and scaling with the random weights of its seed (0 if it has none)."""
    return _unpretrained(
        card["architecture"],
        card["in_channels"],
        card["image_size"],
        card["stem"],
        card["options"],
        Intensity.from_card(card["intensity"]),
        card["pretraining_seed"] or 0,
    )


def _unpretrained(
    architecture: str, in_channels: int, size: int, stem: str, options: dict, intensity: Intensity, seed: int
) -> Backbone:
    shape = (in_channels, size, stem, options)
    model = build(architecture, *shape, seed)
    return _named(model, new_card(SCRATCH, architecture, model, *shape, intensity, pretraining_seed=seed))


def _named(model: nn.Module, card: dict[str, Any], classifier: Classifier | None = None) -> Backbone:
    return Backbone(model, {**card, "id": weights_digest(model, card)}, classifier)


def _from_folder(path: Path, in_channels: int, size: int) -> Backbone:
    if is_public(path):
        return _named(*from_public_folder(path, in_channels, size))
    card = _read_card(path)
    model = build(card["architecture"], card["in_channels"], card["image_size"], card["stem"], card["options"], 0)
    try:
        tensors = load_file(path / "model.safetensors")
    except Exception as error:  # safetensors raises its own, and OSError
        raise BackboneError(f"{path}/model.safetensors: cannot be loaded: {brief(error)} Pretrain again.") from None
    differing = difference(model.state_dict(), tensors)
    if differing:
        raise BackboneError(f"{path}/model.safetensors: does not belong to this card: {differing}. Pretrain again.")
    model.load_state_dict(tensors)
    return Backbone(model, card)


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads((path / "card.json").read_text())
    except (OSError, ValueError):
        card = None
    if not isinstance(card, dict) or card.get("kind") != "backbone":
        raise BackboneError(
            f"{path}: this is no backbone (a folder with model.safetensors, config.json and card.json). Pretrain one with "
            "`ssl-transfer pretrain RECIPE`, or name `scratch:NAME` or `timm:NAME`."
        )
    if card["schema"] != SCHEMA:
        raise BackboneError(f"{path}: backbone schema {card['schema']}, this version reads {SCHEMA}.")
    return card
