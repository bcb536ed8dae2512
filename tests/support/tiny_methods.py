"""Shared by the tests of methods and of two ranks: every method, small, in float64, and batches that fit it."""

import torch

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.data.presets.radiology import ct
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.card import new_card

IMAGES, SIDE, PATCH, CLASSES = 8, 16, 4, 3
RESNET = ("resnet10t", {"channels": [8, 16, 32, 64], "stem_width": 8})
FIXED_VIT = ("vit_tiny_patch16_224", {"patch_size": PATCH, "embed_dim": 16, "depth": 2, "num_heads": 2})
VIT = (FIXED_VIT[0], {**FIXED_VIT[1], "dynamic_img_size": True})
PRESET = ct(SIDE, 1, "hu")
VIT_ONLY = ("mae", "dinov2")
SMALL = {
    "simclr": {"hidden_dim": 32, "projection_dim": 16},
    "byol": {"hidden_dim": 32, "projection_dim": 16},
    "moco": {"queue": 32, "bn_groups": 1, "projection_dim": 16},
    "mocov3": {"hidden_dim": 32, "projection_dim": 16},
    "barlowtwins": {"hidden_dim": 32, "projection_dim": 16},
    "vicreg": {"hidden_dim": 32, "projection_dim": 16},
    "simsiam": {"projection_dim": 16, "bottleneck_dim": 8},
    "dino": {"output_dim": 24, "hidden_dim": 32, "bottleneck_dim": 8, "local_views": 3, "local_size": 8},
    "dinov2": {"output_dim": 24, "hidden_dim": 32, "bottleneck_dim": 8, "local_views": 2, "local_size": 8},
    "distill": {"teacher": "scratch:test_resnet,in_channels=3,size=32,seed=1", "queue": 32},
    "mae": {"decoder_dim": 24, "decoder_depth": 2, "decoder_heads": 3},
    "supervised": {"classes": CLASSES},
}


def new_backbone(kind=RESNET, **facts):
    """A tiny backbone of an architecture and its options, always with the same weights."""
    name, options = kind
    architecture = Architecture(name, 1, SIDE, options=options)
    model = architecture.build(seed=0)
    return Backbone(model, new_card("made up", architecture, model, Intensity(), **facts))


def new_method(name, kind=None, **options):
    """A method in float64, so that agreement is agreement, not rounding; methods that mask are on a ViT, others on a ResNet."""
    backbone = new_backbone(kind or (VIT if name in VIT_ONLY else RESNET))
    torch.manual_seed(0)
    method = METHODS[name](backbone, **{**SMALL[name], **options}).double().train()
    for part in ("criterion", "patch_criterion"):
        if hasattr(method, part):
            getattr(method, part).float()  # losses, and with them the queue and the centre, are float32 always
    return method


def new_batch(method, seed=1, images=IMAGES):
    """As many random views, of such sizes, as the method asks for."""
    torch.manual_seed(seed)
    sizes = [preset.size for preset in method.view_presets(PRESET)]
    views = [torch.randn(images, 1, size, size, dtype=torch.float64) for size in sizes]
    return ViewBatch(views, torch.arange(images), torch.randint(CLASSES, (images,)))


def gradients(method):
    """Gradients by parameter."""
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def assert_same_tensors(found, expected, relative=1e-5, of_all=1e-6):
    """Each tensor differs by no more than its share of its own length and of the length of all: float32 in the losses."""
    assert set(found) == set(expected)
    length = torch.stack([value.double().norm() for value in expected.values()]).norm()
    for name, value in expected.items():
        difference = (found[name].double() - value.double()).norm()
        assert difference <= relative * value.double().norm() + of_all * length, (name, float(difference))
