"""Parts that rows of the table of layouts share: architectures that are tried, and patterns of names."""

from __future__ import annotations

import re
from collections.abc import Callable

RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)
DENSENETS = ("densenet121", "densenet169", "densenet201", "densenet161")
VGGS = tuple(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn"))
CONVNEXTS = tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large"))
VITS = (
    *("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224", "vit_tiny_patch16_224"),
    *("vit_small_patch8_224", "vit_base_patch8_224", "vit_base_patch32_224", "vit_large_patch32_224"),
    *("vit_large_patch14_224", "vit_huge_patch14_224"),
)
MOCO_VITS = tuple(f"{name},num_heads=12" if name.startswith("vit_small") else name for name in VITS)
DINOV2 = tuple(
    f"vit_{size}_patch14{registers}_dinov2{patch}"
    for patch in ("", ",patch_size=16")  # 16 in the recipes for ImageNet
    for registers in ("", "_reg4")
    for size in ("small", "base", "large", "giant")
)
DINOV3 = (
    *(f"vit_{size}_patch16_dinov3" for size in ("small", "small_plus", "base", "large", "huge_plus")),
    *(f"vit_{size}_patch16_dinov3_qkvb" for size in ("small", "small_plus", "base", "large")),
    *("vit_huge_plus_patch16_dinov3_qkvb", "vit_7b_patch16_dinov3"),
)
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
UNSCALED = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
SATELLITE = {r".*sat493m.*": ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))}
TEACHER_FIRST = (r"teacher", r".*teacher.*", r"", r"state_dict", r"model.*", r".*")
CLASSIFIER = {r"(?:fc|head|classifier|head\.fc|head_dist|last_linear)\.(?:weight|bias)": "classifier"}
DINO_HEADS = {r"(?:head|dino_head|ibot_head|dino_loss|ibot_patch_loss|koleo_loss)\..*": "heads and losses"}
UN_CHUNKED = (r"^blocks\.\d+\.(\d+\.)", r"blocks.\1")
SEQUENTIAL = (  # children of a torchvision model in an nn.Sequential
    (r"^0\.(?=weight$)", "conv1."),
    (r"^1\.(?=weight$|bias$|running_|num_batches)", "bn1."),
    *((rf"^{position}\.(?=\d+\.)", f"layer{position - 3}.") for position in (4, 5, 6, 7)),
    (r"^0\.(?=conv0|norm0|denseblock|transition|norm5)", "features."),
)
OLD_DENSENET = (r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2")
HF_BLOCK = (  # names of transformers 4 and 5
    (r"^(?:encoder\.|model\.)?layers?\.(\d+\.)", r"blocks.\1"),
    (r"attention\.(?:attention\.)?(?:query|q_proj)\.", "attn.q."),
    (r"attention\.(?:attention\.)?(?:key|k_proj)\.", "attn.k."),
    (r"attention\.(?:attention\.)?(?:value|v_proj)\.", "attn.v."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"(?<=\d\.)intermediate\.dense\.", "mlp.fc1."),
    (r"(?<=\d\.)output\.dense\.", "mlp.fc2."),
    (r"mlp\.gate_proj\.", "mlp.gate."),
    (r"mlp\.up_proj\.", "mlp.up."),
    (r"mlp\.(?:down_proj|weights_out)\.", "mlp.fc2."),
    (r"mlp\.weights_in\.", "mlp.fc1."),
    (r"^layernorm\.", "norm."),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
)
MASK_TOKEN = "mask token"  # of masked images, which a backbone never sees
CONSTANTS = "constants that timm computes"


def following(offset: int, text: str) -> Callable[[re.Match[str]], str]:
    """A replacement that counts from another number: its first field is the first group plus `offset`, others follow."""
    return lambda match: text.format(int(match[1]) + offset, *match.groups()[1:])


def half_of(text: str) -> Callable[[re.Match[str]], str]:
    """A replacement for torchvision's stages, which alternate with downsampling: its first field is half of the first group."""
    return lambda match: text.format(int(match[1]) // 2, *match.groups()[1:])
