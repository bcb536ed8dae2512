"""Checkpoints of Hugging Face transformers, and the same weights under the names of the repositories of DINOv2 and DINOv3."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from support.reference_checkpoints import Reference, Tensors, linear, randomised, renamed, under

# in timm, in MAE and in DINO; transformers has 1e-12 by default, which differs where tokens have a variance near 1e-6
EPSILON = {"layer_norm_eps": 1e-6}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DINOV2_AS = "vit_small_patch14_dinov2,embed_dim=32,depth=2,num_heads=2"
DINOV3_AS = "vit_small_patch16_dinov3_qkvb,embed_dim=32,depth=2,num_heads=2"
FIRST_VALUE = "encoder.layer.0.attention.attention.value.weight"


def saved(model: Any, original: bool) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and configuration as `save_pretrained` writes them: with the names of transformers 4, or of 5."""
    import json

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_original_format=original)
        return load_file(Path(folder, "model.safetensors")), json.loads(Path(folder, "config.json").read_text())


def pooled(model: Any):
    """The class token after the last norm."""
    return lambda images: model(images).last_hidden_state[:, 0]


def hf_dinov2(original: bool = True, registers: bool = False, gated: bool = False) -> Reference:
    import transformers

    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    settings = {**SHAPE, "image_size": 28, "patch_size": 14, "use_swiglu_ffn": gated}
    settings |= {"num_register_tokens": 4} if registers else {}
    model = randomised(getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**settings)))
    tensors, config = saved(model, original)
    value = next(name for name in tensors if re.search(r"layer\.0.*(?:value|v_proj)\.weight", name))
    return Reference("hf_dinov2", tensors, pooled(model), value, size=28, beside={"config.json": config})


def hf_dinov3(original: bool = True, gated: bool = False) -> Reference:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    settings = {**SHAPE, "image_size": 32, "num_register_tokens": 4, "use_gated_mlp": gated}
    settings |= {"hidden_act": "silu"} if gated else {}
    model = randomised(DINOv3ViTModel(DINOv3ViTConfig(**settings)))
    tensors, config = saved(model, original)
    value = next(name for name in tensors if name.endswith("layer.0.attention.v_proj.weight"))
    return Reference("hf_dinov3", tensors, pooled(model), value, beside={"config.json": config})


def hf_vit(original: bool = True) -> Reference:
    from transformers import ViTConfig, ViTModel

    model = randomised(ViTModel(ViTConfig(**SHAPE, **EPSILON, image_size=32)))
    tensors, config = saved(model, original)
    value = next(name for name in tensors if re.search(r"layers?\.0.*(?:value|v_proj)\.weight", name))
    return Reference("hf_vit", tensors, pooled(model), value, beside={"config.json": config})


def hf_mae(original: bool = True) -> Reference:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {f"decoder_{key}": value for key, value in SHAPE.items()}
    model = randomised(ViTMAEForPreTraining(ViTMAEConfig(**SHAPE, **EPSILON, **decoder, image_size=32, mask_ratio=0.0)))
    tensors, config = saved(model, original)
    value = next(name for name in tensors if re.search(r"^vit.*layers?\.0.*(?:value|v_proj)\.weight", name))
    return Reference("hf_vit", tensors, pooled(model.vit), value, beside={"config.json": config})


def hf_resnet() -> Reference:
    from transformers import ResNetConfig, ResNetModel

    settings = {"embedding_size": 64, "hidden_sizes": [8, 16, 32, 64], "depths": [2, 2, 2, 2], "layer_type": "basic"}
    model = randomised(ResNetModel(ResNetConfig(**settings)))
    tensors, config = saved(model, True)
    return Reference(
        "hf_resnet",
        tensors,
        lambda images: model(images).pooler_output.flatten(1),
        "encoder.stages.2.layers.1.layer.0.convolution.weight",
        as_="resnet18,channels=[8,16,32,64]",
        beside={"config.json": config},
    )


def dinov2(*, registers: bool = False, gated: bool = False, training: bool = False) -> Reference:
    """The hub's names, from the weights of a model of transformers; `training`: a teacher with chunked blocks and its heads."""
    source = hf_dinov2(registers=registers, gated=gated)
    tensors = _hub_block(source.tensors)
    tensors = renamed(
        tensors,
        (r"mlp\.weights_in", "mlp.w12"),
        (r"mlp\.weights_out", "mlp.w3"),
        (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    )
    name = DINOV2_AS.replace("small", "giant") + ",mlp_ratio=5.5" if gated else DINOV2_AS + ",mlp_ratio=4"
    spec = name.replace("_dinov2", "_reg4_dinov2") if registers else name
    tensor = "blocks.0.attn.qkv.weight"
    if not training:
        return Reference("dinov2", tensors, source.features, tensor, spec, 28)
    tensors = under("backbone.", renamed(tensors, (r"^blocks\.(\d+)\.", r"blocks.0.\1.")))
    tensors |= linear("dino_head.mlp.0") | linear("ibot_head.last_layer")
    return Reference(
        "dinov2", tensors, source.features, "backbone.blocks.0.0.attn.qkv.weight", spec, 28, inside=("teacher",)
    )


def dinov3(*, gated: bool = False, training: bool = False) -> Reference:
    """The hub's names, from the weights of a model of transformers: a bias of k that is masked, and constants."""
    source = hf_dinov3(gated=gated)
    tensors = _hub_block(source.tensors)
    pairs = [(r"layer_scale(\d)\.lambda1", r"ls\1.gamma"), (r"^register_tokens$", "storage_tokens")]
    if gated:
        pairs += [(rf"mlp\.{hf}_proj", f"mlp.{hub}") for hf, hub in (("gate", "w1"), ("up", "w2"), ("down", "w3"))]
    else:
        pairs += [(r"mlp\.up_proj", "mlp.fc1"), (r"mlp\.down_proj", "mlp.fc2")]
    tensors = renamed(tensors, *pairs)
    for name in [name for name in tensors if name.endswith("qkv.bias")]:
        mask = torch.ones_like(tensors[name])
        mask[32:64] = 0
        tensors[f"{name}_mask"] = mask
        tensors[name] = torch.where(mask.bool(), tensors[name], torch.randn(()))
    tensors["rope_embed.periods"] = torch.rand(4)
    spec = DINOV3_AS.replace("_small_", "_small_plus_") if gated else DINOV3_AS
    spec += ",mlp_ratio=2"
    if not training:
        return Reference("dinov3", tensors, source.features, "blocks.0.attn.qkv.weight", spec)
    tensors = under("backbone.", tensors) | linear("dino_head.mlp.0") | linear("ibot_head.last_layer")
    return Reference(
        "dinov3", tensors, source.features, "backbone.blocks.1.attn.proj.weight", spec, inside=("teacher",)
    )


def _hub_block(tensors: Tensors) -> Tensors:
    """Tensors with the names that both repositories have in common; q, k and v joined, k without a bias as zeros."""
    tensors = renamed(
        tensors,
        (r"^(?:encoder\.|model\.)?layer\.(\d+)\.", r"blocks.\1."),
        (r"attention\.(?:attention\.)?(query|key|value|[qkv]_proj)\.", lambda match: f"attn.{match[1][0]}."),
        (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
        (r"^layernorm\.", "norm."),
        (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.", ""),
    )
    for block in (0, 1):
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"blocks.{block}.attn.{part}.{kind}", None) for part in "qkv"]
            shape = torch.zeros_like(parts[0])
            tensors[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([shape if part is None else part for part in parts])
    return tensors
