"""Checkpoints of programs for self-supervised learning: their names of tensors, around a ResNet or ViT with random weights."""

from __future__ import annotations

import torch
from support.reference_checkpoints import (
    TINY_RESNET,
    TINY_VIT,
    Reference,
    linear,
    randomised,
    renamed,
    resnet,
    sequential,
    under,
    vit,
)

CONVOLUTION = "layer3.1.conv2.weight"
QKV = "blocks.1.attn.qkv.weight"


def _resnet(layout: str, prefix: str, heads: dict | None = None, **facts) -> Reference:
    tensors, features = resnet()
    tensors = under(prefix, tensors) | (heads or {})
    return Reference(layout, tensors, features, f"{prefix}{CONVOLUTION}", TINY_RESNET, **facts)


def _vit(layout: str, prefix: str, heads: dict | None = None, **facts) -> Reference:
    tensors, features = vit()
    tensors = under(prefix, tensors) | (heads or {})
    return Reference(layout, tensors, features, f"{prefix}{QKV}", TINY_VIT, **facts)


def moco() -> Reference:
    """https://github.com/facebookresearch/moco: DistributedDataParallel, two encoders, a queue."""
    heads = linear("module.encoder_q.fc.0") | linear("module.encoder_q.fc.2") | under("module.encoder_k.", resnet()[0])
    heads |= {"module.queue": torch.randn(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    other = {"epoch": 200, "arch": "resnet18", "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}}}
    return _resnet("moco", "module.encoder_q.", heads, inside=("state_dict",), other=other)


def moco_v3() -> Reference:
    """https://github.com/facebookresearch/moco-v3 with a ViT, whose head is an MLP."""
    heads = linear("module.base_encoder.head.0") | linear("module.predictor.0")
    heads |= under("module.momentum_encoder.", vit()[0])
    return _vit("moco_v3", "module.base_encoder.", heads, inside=("state_dict",))


def moco_v3_resnet() -> Reference:
    heads = linear("module.base_encoder.fc.0") | under("module.momentum_encoder.", resnet()[0])
    return _resnet("moco_v3", "module.base_encoder.", heads, inside=("state_dict",))


def dino() -> Reference:
    """https://github.com/facebookresearch/dino and iBOT: student, teacher, and the loss's centre."""
    heads = linear("head.mlp.0") | {"head.last_layer.weight_g": torch.randn(4, 1)}
    student = under("module.backbone.", {name: tensor + 1 for name, tensor in vit()[0].items()})
    other = {"student": student, "dino_loss": {"center": torch.zeros(1, 4)}}
    return _vit("dino", "backbone.", heads, inside=("teacher",), other=other)


def swav() -> Reference:
    """https://github.com/facebookresearch/swav: flat, as published."""
    heads = linear("module.projection_head.0") | {"module.prototypes.weight": torch.randn(4, 4)}
    return _resnet("swav", "module.", heads)


def barlow() -> Reference:
    """https://github.com/facebookresearch/barlowtwins and vicreg."""
    heads = linear("module.projector.0") | {"module.bn.running_mean": torch.zeros(4)}
    return _resnet("barlow_vicreg", "module.backbone.", heads, inside=("model",))


def vissl() -> Reference:
    """https://github.com/facebookresearch/vissl: the trunk below `classy_state_dict`, the heads beside it."""
    return _resnet("vissl", "_feature_blocks.", inside=("classy_state_dict", "base_model", "model", "trunk"))


def solo_learn() -> Reference:
    """https://github.com/vturrisi/solo-learn: a Lightning module with a momentum backbone and an online classifier."""
    heads = linear("classifier") | linear("projector.0") | linear("momentum_projector.0") | linear("predictor.0")
    heads |= under("momentum_backbone.", resnet()[0]) | {"queue": torch.randn(2, 4, 8)}
    return _resnet("solo_learn", "backbone.", heads, inside=("state_dict",))


def simclr() -> Reference:
    """https://github.com/Spijkervet/SimCLR: `encoder` without `fc`, and a projector without biases."""
    heads = {f"projector.{layer}.weight": torch.randn(4, 4) for layer in (0, 2)}
    return _resnet("simclr", "encoder.", heads)


def simsiam() -> Reference:
    """https://github.com/facebookresearch/simsiam."""
    heads = linear("module.encoder.fc.0") | linear("module.predictor.0")
    return _resnet("simsiam", "module.encoder.", heads, inside=("state_dict",))


def mae() -> Reference:
    """https://github.com/facebookresearch/mae: a ViT of timm, and a decoder."""
    heads = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 5, 8)}
    heads |= linear("decoder_embed") | linear("decoder_blocks.0.mlp.fc1") | linear("decoder_pred")
    return _vit("mae", "", heads, inside=("model",))


def mmpretrain() -> Reference:
    """https://github.com/open-mmlab/mmpretrain with a ResNet: mean and standard deviation in 0–255."""
    heads = linear("head.fc") | linear("neck.fc0")
    heads |= {"data_preprocessor.mean": torch.tensor([[[123.675]], [[116.28]], [[103.53]]])}
    heads |= {"data_preprocessor.std": torch.tensor([[[58.395]], [[57.12]], [[57.375]]])}
    return _resnet("mmpretrain", "backbone.", heads, inside=("state_dict",), other={"meta": {"epoch": 3}})


def mmpretrain_vit() -> Reference:
    """The ViT of mmpretrain: `ln1`, `ffn.layers` and `projection`."""
    tensors, features = vit()
    tensors = renamed(
        tensors,
        (r"^patch_embed\.proj\.", "patch_embed.projection."),
        (r"^norm\.", "ln1."),
        (r"^blocks\.(\d+)\.norm([12])\.", r"layers.\1.ln\2."),
        (r"^blocks\.(\d+)\.mlp\.fc1\.", r"layers.\1.ffn.layers.0.0."),
        (r"^blocks\.(\d+)\.mlp\.fc2\.", r"layers.\1.ffn.layers.1."),
        (r"^blocks\.", "layers."),
    )
    tensors = under("backbone.", tensors) | linear("head.layers.head") | linear("neck.decoder_embed")
    name = "backbone.layers.0.ffn.layers.1.weight"
    return Reference("mmpretrain_vit", tensors, features, name, TINY_VIT, inside=("state_dict",))


def lightly() -> Reference:
    """https://github.com/lightly-ai/lightly: BYOL of its examples, with its own heads."""
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

    heads = under("projection_head.", dict(BYOLProjectionHead(8, 8, 4).state_dict()))
    heads |= under("prediction_head.", dict(BYOLPredictionHead(4, 8, 4).state_dict()))
    tensors, features = resnet()
    tensors = sequential(tensors)
    heads |= under("backbone_momentum.", tensors)
    tensors = under("backbone.", tensors) | heads
    return Reference("lightly", tensors, features, "backbone.6.1.conv2.weight", TINY_RESNET, inside=("state_dict",))


def lightly_mae() -> Reference:
    """MAE of lightly: the ViT within its own module, a decoder, and a mask token."""
    from lightly.models.modules import MaskedVisionTransformerTIMM

    tensors, features = vit()
    masked = MaskedVisionTransformerTIMM(vit=features)
    heads = linear("decoder.decoder_blocks.0.attn.qkv") | {"decoder.mask_token": torch.zeros(1, 1, 8)}
    tensors = under("backbone.", dict(masked.state_dict())) | heads
    return Reference("lightly", tensors, features, f"backbone.vit.{QKV}", TINY_VIT, inside=("state_dict",))


def lightly_train() -> Reference:
    """lightly-train: distillation, whose checkpoint leaves the teacher out."""
    heads = linear("student_projection_head") | {"teacher_queue": torch.randn(4, 4)}
    return _resnet("lightly_train", "student_embedding_model.wrapped_model._features.", heads, inside=("state_dict",))


def lightly_train_dino() -> Reference:
    """lightly-train: DINO, whose teacher is exported."""
    heads = linear("teacher_projection_head.layers.0") | linear("student_projection_head.layers.0")
    heads |= under("student_embedding_model.wrapped_model._model.", vit()[0]) | {"criterion.center": torch.zeros(4)}
    return _vit("lightly_train_dino", "teacher_embedding_model.wrapped_model._model.", heads, inside=("state_dict",))


def radimagenet() -> Reference:
    """https://github.com/BMEII-AI/RadImageNet: the first nine children of torchvision's ResNet, as `backbone`."""
    tensors, features = resnet()
    return Reference(
        "radimagenet", under("backbone.", sequential(tensors)), features, "backbone.6.1.conv2.weight", TINY_RESNET
    )


def radimagenet_densenet() -> Reference:
    from torchvision.models import DenseNet

    model = randomised(DenseNet(growth_rate=8, block_config=(1, 1, 1, 1), num_init_features=16, num_classes=5))
    model.classifier = torch.nn.Identity()
    tensors = {f"backbone.0.{name.removeprefix('features.')}": value for name, value in model.state_dict().items()}
    as_ = "densenet121,growth_rate=8,block_config=[1,1,1,1]"
    return Reference("radimagenet", tensors, model, "backbone.0.denseblock2.denselayer1.conv1.weight", as_, 64)


def sequential_backbone() -> Reference:
    """A backbone of lightly, saved by itself."""
    tensors, features = resnet()
    return Reference("sequential", sequential(tensors), features, "6.1.conv2.weight", TINY_RESNET)


def open_clip() -> Reference:
    """OpenCLIP with an image encoder of timm, as BiomedCLIP."""
    heads = linear("text.transformer.layer.0") | linear("visual.head.proj") | {"logit_scale": torch.zeros(())}
    return _vit("open_clip", "visual.trunk.", heads)


def prefixed() -> Reference:
    return _vit("prefixed", "timm_model.", linear("timm_model.head"))


def timm_checkpoint() -> Reference:
    """A training checkpoint of timm: `state_dict`, `arch`, and the arguments of the command."""
    import argparse

    other = {"arch": "resnet18", "args": argparse.Namespace(lr=0.1, model="resnet18"), "epoch": 3}
    return _vit("timm", "", linear("head"), inside=("state_dict",), other=other)
