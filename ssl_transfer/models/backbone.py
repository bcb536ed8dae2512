"""Backbones: a timm encoder and the card that says what it is and how it wants its images.

A saved backbone is a folder: `model.safetensors` and `config.json` as timm writes them, so that plain
`timm.create_model("local-dir:PATH", pretrained=True)` loads it, `card.json`, and `README.md` for people. Random
initialisation (`scratch:NAME`) and public weights (`timm:NAME.TAG`) are backbones too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ssl_transfer import __version__
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.run import whole_folder

SCHEMA = 1
SCRATCH = "scratch"  # the name of a backbone that was never pretrained
SMALL_STEM = (
    "_small_stem"  # suffix of an architecture that timm does not know: it refuses, rather than load a wrong stem
)


class Backbone(nn.Module):
    """Images in, features out.

    Args:
        model: timm model without a head.
        card: What is known of it; `intensity`, `image_size`, `source_domain`, `method`, … (see `new_card`).

    Attributes:
        feature_dim: Length of a feature vector.
        intensity: How images must be scaled.
    """

    def __init__(self, model: nn.Module, card: dict[str, Any]):
        super().__init__()
        self.model = model
        self.card = card

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


def build(name: str, in_channels: int, size: int, stem: str, options: dict, seed: int) -> nn.Module:
    """Make a timm model without a head, randomly initialised from `seed`.

    Args:
        name: Any timm architecture.
        in_channels: Of its images.
        size: Their height and width; given to architectures that are built for one size (ViT).
        stem: `standard`, or `small`: a ResNet's first convolution has stride 1 (3 x 3 where it was 7 x 7) and no
            max-pooling follows, as is usual at 32 px and needed there (PROTOCOLS, section 1).
        options: Further arguments of the architecture.
        seed: Of the initial weights.

    Raises:
        BackboneError: If timm does not know the architecture or it refuses an argument.
    """
    if not timm.is_model(name):
        raise BackboneError(f"backbone.name: timm has no architecture '{name}'.{nearest(name, timm.list_models())}")
    arguments = {"in_chans": in_channels, "num_classes": 0, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if timm.get_pretrained_cfg(name).fixed_input_size:
                arguments["img_size"] = size
            model = timm.create_model(name, **arguments)
            if stem == "small":
                _shrink_stem(model, name)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise BackboneError(f"backbone {name} with {arguments}: timm refused: {error}") from None
    return model


def _shrink_stem(model: nn.Module, name: str) -> None:
    if not isinstance(model, timm.models.resnet.ResNet):
        raise BackboneError(
            f"backbone.stem: 'small' is for ResNets; {name} is none. A ViT takes backbone.options.patch_size=4 instead."
        )
    first = model.conv1
    if isinstance(first, nn.Conv2d):
        model.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    else:
        first[0].stride = (1, 1)
    model.maxpool = nn.Identity()


def new_card(
    name: str, architecture: str, model: nn.Module, in_channels: int, size: int, stem: str, options: dict,
    intensity: Intensity, **facts: Any,
) -> dict[str, Any]:  # fmt: skip
    """The card of a backbone. `facts` lay over the defaults: method, source_domain, parents, pretraining_seed, …"""
    return {
        "schema": SCHEMA, "kind": "backbone", "name": name, "architecture": architecture, "in_channels": in_channels,
        "image_size": size, "stem": stem, "options": options, "feature_dim": model.num_features,
        "intensity": intensity.to_card(), "method": "none", "source_domain": None, "parents": [], "stores": [],
        "pretraining_seed": None, "licence": "as its training images", "version": __version__,
    } | facts  # fmt: skip


def weights_digest(model: nn.Module, card: dict[str, Any]) -> str:
    """Name a backbone by its tensors, architecture and intensity: 16 hex digits."""
    parts = [card["architecture"], card["stem"], card["options"], card["intensity"], card["in_channels"]]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write a backbone's folder in one move; `card.json` gets the content id."""
    card, model = backbone.card, backbone.model
    card["id"] = weights_digest(model, card)
    small = card["stem"] == "small"
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with whole_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "config.json").write_text(json.dumps(_timm_config(model, card, small), indent=1))
        (temporary / "README.md").write_text(_model_card(card, small))
        (temporary / "card.json").write_text(json.dumps(card, indent=1))


def _timm_config(model: nn.Module, card: dict[str, Any], small: bool) -> dict[str, Any]:
    size, channels = card["image_size"], card["in_channels"]
    intensity = card["intensity"]
    arguments = {"in_chans": channels, **card["options"]}
    if model.pretrained_cfg.get("fixed_input_size"):
        arguments["img_size"] = size
    return {
        "architecture": card["architecture"] + SMALL_STEM * small,
        "num_classes": 0,
        "num_features": card["feature_dim"],
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [channels, size, size], "fixed_input_size": bool(model.pretrained_cfg.get("fixed_input_size")),
            "mean": intensity["mean"], "std": intensity["std"], "crop_pct": 1.0, "interpolation": "bilinear",
            "first_conv": model.pretrained_cfg.get("first_conv"), "classifier": model.pretrained_cfg.get("classifier"),
            "num_classes": 0,
        },
    }  # fmt: skip


def _model_card(card: dict[str, Any], small: bool) -> str:
    window = card["intensity"]["window_hu"]
    load = (
        "This backbone has the small-image stem, which timm cannot build: load it with "
        '`ssl_transfer.load_backbone("PATH")`.'
        if small
        else 'Plain timm loads it: `timm.create_model("local-dir:PATH", pretrained=True)`.'
    )
    return f"""# {card["name"]}

{card["architecture"]}, {card["in_channels"]} channel(s), {card["image_size"]} px, {card["feature_dim"]} features.
Pretrained with **{card["method"]}** on **{card["source_domain"] or "nothing"}** (seed {card["pretraining_seed"]}).

{load}

## Input
Intensity 0 and 1 are {window[0]:g} and {window[1]:g} HU for CT, 0 and 255 for displayed images; clip, then
subtract {card["intensity"]["mean"]} and divide by {card["intensity"]["std"]}.

## Origin
- stores: {", ".join(card["stores"]) or "none"}
- parents: {", ".join(card["parents"]) or "none"}
- licence: {card["licence"]}
- made by ssl_transfer {card["version"]}; `card.json` has everything.
"""


def load_backbone(spec: str | Path, in_channels: int = 3, size: int = 224) -> Backbone:
    """Load a backbone, ready for features (`eval`).

    Args:
        spec: A folder that `pretrain` wrote; `scratch:NAME[,in_channels=1,size=64,stem=small,seed=0]` for random weights;
            `scratch:FOLDER` for the random weights that a pretrained backbone began with; `timm:NAME[.TAG]` for public
            weights.
        in_channels: Of a `scratch:` or `timm:` backbone that does not say. timm adapts the first convolution.
        size: Height and width of its images, likewise.

    Raises:
        BackboneError: If it does not exist, is damaged, or its public weights cannot be fetched.
    """
    text = str(spec)
    if text.startswith("scratch:"):
        backbone = _scratch(text, in_channels, size)
    elif text.startswith("timm:"):
        backbone = _public(text.removeprefix("timm:"), in_channels, size)
    else:
        backbone = _from_folder(Path(spec))
    return backbone.eval()


def _scratch(spec: str, in_channels: int, size: int) -> Backbone:
    name, *settings = spec.removeprefix("scratch:").split(",")
    if (Path(name) / "card.json").is_file():
        return _beginning_of(_read_card(Path(name)))
    known = {"in_channels": in_channels, "size": size, "stem": "standard", "seed": 0}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in known:
            raise BackboneError(f"{spec}: no setting '{key}'.{nearest(key, known)}")
        try:
            known[key] = type(known[key])(value)
        except ValueError:
            raise BackboneError(f"{spec}: {key}={value}: expected a whole number.") from None
    channels, seed = known["in_channels"], known["seed"]
    model = build(name, channels, known["size"], known["stem"], {}, seed)
    intensity = Intensity(mean=(0.5,) * channels, std=(0.25,) * channels)
    card = new_card(SCRATCH, name, model, channels, known["size"], known["stem"], {}, intensity, pretraining_seed=seed)
    card["id"] = weights_digest(model, card)
    return Backbone(model, card)


def _beginning_of(card: dict[str, Any]) -> Backbone:
    """The backbone of a card as it was before training: its architecture, its seed, its scaling."""
    shape = [card[key] for key in ("in_channels", "image_size", "stem", "options")]
    model = build(card["architecture"], *shape, card["pretraining_seed"])
    beginning = new_card(
        SCRATCH, card["architecture"], model, *shape, Intensity.from_card(card["intensity"]),
        pretraining_seed=card["pretraining_seed"],
    )  # fmt: skip
    beginning["id"] = weights_digest(model, beginning)
    return Backbone(model, beginning)


def _public(name: str, in_channels: int, size: int) -> Backbone:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise BackboneError(f"timm:{name}: timm has no such architecture.{nearest(architecture, timm.list_models())}")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, in_chans=in_channels)
    except Exception as error:  # timm raises whatever the hub, the network or the disk gave it
        raise BackboneError(
            f"timm:{name}: the public weights could not be loaded ({type(error).__name__}: {error}). Without a network, "
            "fetch the model folder elsewhere (`timm` name on the Hugging Face hub: model.safetensors and config.json), "
            "copy it here, and load it by its path."
        ) from None
    mean, std = (tuple(model.pretrained_cfg[key][:1] * in_channels) if in_channels != 3 else
                 tuple(model.pretrained_cfg[key]) for key in ("mean", "std"))  # fmt: skip
    native = model.pretrained_cfg["input_size"][-1] if model.pretrained_cfg.get("fixed_input_size") else size
    card = new_card(
        name, architecture, model, in_channels, native, "standard", {}, Intensity(mean=mean, std=std),
        method="public weights", source_domain="photograph", licence=model.pretrained_cfg.get("license") or "see timm",
    )  # fmt: skip
    card["id"] = weights_digest(model, card)
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


def _from_folder(path: Path) -> Backbone:
    card = _read_card(path)
    model = build(card["architecture"], card["in_channels"], card["image_size"], card["stem"], card["options"], 0)
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except Exception as error:  # safetensors and torch each raise their own
        raise BackboneError(f"{path}/model.safetensors: cannot be loaded: {error}. Pretrain again.") from None
    return Backbone(model, card)
