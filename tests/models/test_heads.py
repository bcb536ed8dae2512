"""Heads: a classifier that starts near zero, and a decoder over the maps of every family."""

import itertools

import pytest
import torch
from support.families import FAMILIES, described, family_backbone

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.heads import LinearHead, SegmentationHead

SIZE = 64
LEVELS = {"resnet": 5, "densenet": 5, "vgg": 6, "convnext": 4, "vit": 4}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def images(count=2, channels=1):
    return torch.randn(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def test_a_classifier_gives_one_number_per_class(family):
    backbone = family_backbone(family, size=SIZE)
    assert LinearHead(backbone.feature_dim, 3)(backbone, images()).shape == (2, 3)


def test_a_fresh_classifier_prefers_no_class():
    backbone = family_backbone("resnet")
    head = LinearHead(backbone.feature_dim, 3)
    assert (head.linear.bias == 0).all() and head.linear.weight.abs().max() < 0.1


@pytest.mark.parametrize("classes", [2, 4])
def test_a_decoder_gives_one_map_per_class_at_the_image_s_resolution(family, classes):
    backbone = family_backbone(family, size=SIZE)
    assert SegmentationHead(backbone, classes, SIZE)(backbone, images()).shape == (2, classes, SIZE, SIZE)


def test_the_levels_come_finest_first_each_half_as_fine_as_the_one_before(family):
    backbone = family_backbone(family, size=SIZE)
    levels = SegmentationHead(backbone, 2, SIZE)._levels(backbone, images())
    sides = [level.shape[-1] for level in levels]
    assert len(levels) == LEVELS[family]
    assert all(finer == 2 * coarser for finer, coarser in itertools.pairwise(sides))
    assert all(level.ndim == 4 and level.shape[-1] == level.shape[-2] for level in levels)


def test_a_vit_s_levels_are_of_evenly_spaced_blocks():
    backbone = described("vit_tiny_patch16_224", SIZE, {"embed_dim": 32, "depth": 8, "num_heads": 2})
    head = SegmentationHead(backbone, 2, SIZE)
    assert head.layers == ["blocks.1", "blocks.3", "blocks.5", "blocks.7"]


def test_tokens_lie_in_a_map_where_their_patches_lie_in_the_image():
    """One bright patch in a ViT without attention between patches is bright at its place alone."""
    backbone = described("vit_tiny_patch16_224", SIZE, {"embed_dim": 32, "depth": 4, "num_heads": 2})
    for block in backbone.model.blocks:
        torch.nn.init.zeros_(block.attn.proj.weight)
    head = SegmentationHead(backbone, 2, SIZE)
    black, bright = torch.zeros(2, 1, 1, SIZE, SIZE).unbind()
    bright = bright.clone()
    bright[:, :, 16:32, 48:64] = 1  # second row of patches, last column
    one, other = (head._levels(backbone, image)[2] for image in (black, bright))  # at the tokens' own resolution
    changed = (one - other).abs().sum(1)[0] > 1e-4
    assert changed.nonzero().tolist() == [[1, 3]]


def test_the_decoder_reads_the_finest_details_of_an_image(family):
    """Moving one pixel of the image moves logits somewhere: nothing between image and logits is cut."""
    backbone = family_backbone(family, size=SIZE)
    head = SegmentationHead(backbone, 2, SIZE).eval()
    image = images(1).requires_grad_()
    head(backbone, image).square().sum().backward()
    assert (image.grad != 0).float().mean() > 0.9


def test_the_decoder_s_gradient_reaches_the_first_layer(family):
    backbone = family_backbone(family, size=SIZE)
    SegmentationHead(backbone, 2, SIZE)(backbone, images()).square().sum().backward()
    first = next(p for p in backbone.parameters() if p.ndim == 4)
    assert first.grad.abs().sum() > 0


def test_no_hook_stays_in_the_backbone(family):
    backbone = family_backbone(family, size=SIZE)
    SegmentationHead(backbone, 2, SIZE)(backbone, images())
    assert not any(layer._forward_hooks for layer in backbone.modules())


def test_measuring_the_levels_leaves_the_backbone_as_it_was(family):
    backbone = family_backbone(family, size=SIZE).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    SegmentationHead(backbone, 2, SIZE)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_wider_decoder_has_more_parameters():
    backbone = family_backbone("resnet", size=SIZE)
    narrow, wide = (
        sum(p.numel() for p in SegmentationHead(backbone, 2, SIZE, width).parameters()) for width in (8, 16)
    )
    assert wide > 2 * narrow


def test_a_backbone_without_maps_is_refused_by_name():
    backbone = family_backbone("resnet")
    backbone.model.feature_info = []
    with pytest.raises(BackboneError, match=r"resnet18: timm lists no maps .* Segment with a ResNet"):
        SegmentationHead(backbone, 2, SIZE)
