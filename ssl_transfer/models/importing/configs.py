"""Specs of architectures from the `config.json` that Hugging Face writes beside the weights of a model."""

from __future__ import annotations

from typing import Any

from ssl_transfer.errors import BackboneError

SIZES = {  # width, depth and heads -> name of the size in timm
    (192, 12, 3): "tiny",
    (384, 12, 6): "small",
    (768, 12, 12): "base",
    (1024, 24, 16): "large",
    (1280, 32, 16): "huge",
    (1536, 40, 24): "giant",
    (1280, 32, 20): "huge_plus",
    (4096, 40, 32): "7b",
}
LARGEST_EPSILON = 1e-5  # of norms; smaller ones make no difference to features


def timm_spec(config: dict[str, Any]) -> str | None:
    """The architecture that timm's config names, with its options; also that of a checkpoint with a key `arch`."""
    import timm

    name = config.get("architecture") or config.get("arch")
    if not isinstance(name, str) or not timm.is_model(name.partition(".")[0]):
        return None
    arguments = config.get("model_args")
    options = arguments if isinstance(arguments, dict) else {}
    skipped = ("in_chans", "img_size", "num_classes", "pretrained", "features_only")
    return ",".join(
        [name.partition(".")[0], *(f"{key}={value}" for key, value in options.items() if key not in skipped)]
    )


def hf_dinov2(config: dict[str, Any]) -> str | None:
    """The architecture of a `Dinov2Model` or `Dinov2WithRegistersModel`."""
    _check(config, hidden_act="gelu")
    registers = config.get("num_register_tokens", 4) if "registers" in str(config.get("model_type")) else 0
    family = "_reg4_dinov2" if registers else "_dinov2"
    gated = config.get("use_swiglu_ffn", False)
    names = {size: f"vit_{size}_patch14{family}" for size in ("small", "base", "large", "giant")}
    spec = _vit(config, names, "giant" if gated else "small", patch=14)
    if spec and registers not in (0, 4):
        spec += f",reg_tokens={registers}"
    if spec and gated and config["hidden_size"] != 1536:  # timm's ratio is that of gate and value together
        hidden = int(int(config["hidden_size"] * config.get("mlp_ratio", 4)) * 2 / 3)
        spec += f",mlp_ratio={2 * ((hidden + 7) // 8 * 8) / config['hidden_size']}"
    return spec


def hf_dinov3(config: dict[str, Any]) -> str | None:
    """The architecture of a `DINOv3ViTModel`."""
    _check(config, hidden_act="silu" if config.get("use_gated_mlp") else "gelu", rope_theta=100.0)
    plus = "_plus" if config.get("use_gated_mlp") else ""
    sizes = {"small": f"small{plus}", "base": "base", "large": "large", "huge_plus": "huge_plus", "7b": "7b"}
    bias = "" if _size(config) == "7b" else "_qkvb"
    names = {size: f"vit_{name}_patch16_dinov3{bias}" for size, name in sizes.items()}
    spec = _vit(config, names, "small", patch=16)
    if spec is None:
        return None
    registers = config.get("num_register_tokens", 0)
    spec += "" if registers == 4 else f",num_reg_tokens={registers}"
    ratio = config.get("intermediate_size", 4 * config["hidden_size"]) / config["hidden_size"]
    if _size(config) not in names and ratio != 4:
        spec += f",mlp_ratio={ratio}"
    return spec


def hf_vit(config: dict[str, Any]) -> str | None:
    """The architecture of a `ViTModel` or `ViTMAEModel`."""
    _check(config, hidden_act="gelu")
    patch = config.get("patch_size", 16)
    available = {"tiny": (16,), "small": (8, 16, 32), "base": (8, 16, 32), "large": (14, 16, 32), "huge": (14,)}
    names = {size: f"vit_{size}_patch{patch}_224" for size, patches in available.items() if patch in patches}
    spec = _vit(config, names, "small", patch=patch)
    if spec is None:
        spec = _vit(config, {"small": "vit_small_patch16_224"}, "small", patch=16)
    ratio = config.get("intermediate_size", 4 * config.get("hidden_size", 1)) / config.get("hidden_size", 1)
    return f"{spec},mlp_ratio={ratio}" if spec and ratio != 4 else spec


def hf_resnet(config: dict[str, Any]) -> str | None:
    """The architecture of a `ResNetModel` of torchvision's kind."""
    _check(config, hidden_act="relu", downsample_in_bottleneck=False)
    kinds: dict[tuple[str, tuple[int, ...]], str] = {
        ("basic", (2, 2, 2, 2)): "resnet18",
        ("basic", (3, 4, 6, 3)): "resnet34",
        ("bottleneck", (3, 4, 6, 3)): "resnet50",
        ("bottleneck", (3, 4, 23, 3)): "resnet101",
        ("bottleneck", (3, 8, 36, 3)): "resnet152",
    }
    return kinds.get((str(config.get("layer_type")), tuple(config.get("depths") or ())))


def _check(config: dict[str, Any], **expected: Any) -> None:
    """Refuse functions that the architecture in timm does not have, which no tensor would show.

    Raises:
        BackboneError: If a value is another one than expected, or norms add much to the variance.
    """
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise BackboneError(f"config.json: {key}: found {config[key]}, and timm's architecture has {value}.")
    if config.get("layer_norm_eps", 0) > LARGEST_EPSILON:
        found = config["layer_norm_eps"]
        raise BackboneError(
            f"config.json: layer_norm_eps: found {found}, and timm's architecture has at most {LARGEST_EPSILON}."
        )


def _size(config: dict[str, Any]) -> str | None:
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    return SIZES.get(tuple(config.get(key) for key in keys))  # type: ignore[arg-type]


def _vit(config: dict[str, Any], names: dict[str, str], other: str, patch: int) -> str | None:
    """Spec of a ViT: the name of its size if there is one, else that of another size with options.

    Args:
        config: The configuration.
        names: Size -> architecture in timm.
        other: The size whose architecture takes the options, if no size fits.
        patch: Patch size of these architectures.
    """
    try:
        width, depth, heads = (int(config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    except (KeyError, TypeError, ValueError):
        return None
    size = _size(config)
    if size in names:
        spec = names[size]
    elif other in names:
        spec = f"{names[other]},embed_dim={width},depth={depth},num_heads={heads}"
    else:
        return None
    found = config.get("patch_size", patch)
    return spec if found == patch else f"{spec},patch_size={found}"
