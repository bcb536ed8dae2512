"""Every family of backbones: saved, read by plain timm, of the length it says, small stems, wrong sizes and options."""

import pytest
import timm
import torch
from support.families import FAMILIES, NATIVE_PX, described, family_backbone

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.models.card import new_card


def plain_timm(folder, **arguments):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments).eval()


@pytest.mark.parametrize("size", [32, 64, NATIVE_PX])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_timm_gives_the_features_of_a_saved_backbone_bit_for_bit(tmp_path, family, channels, size):
    backbone = family_backbone(family, channels, size)
    save_backbone(backbone, tmp_path / "b")
    images = torch.randn(2, channels, size, size)
    with torch.inference_mode():
        expected = backbone(images)
        assert torch.equal(plain_timm(tmp_path / "b")(images), expected)
        assert torch.equal(load_backbone(tmp_path / "b")(images), expected)
    assert expected.shape == (2, backbone.feature_dim)


@pytest.mark.parametrize(
    ("name", "options", "length"),
    [
        ("vgg11", {"mlp_ratio": 0.01}, 4096),  # timm's num_features: 512
        ("mobilenetv3_small_050", {}, 1024),  # 288
        ("resnet10t", {"channels": [8, 16, 32, 64], "global_pool": "catavgmax"}, 128),  # 64
        ("vit_tiny_patch16_224", {"embed_dim": 32, "depth": 1, "num_heads": 2, "dynamic_img_size": True}, 32),
    ],
)
def test_the_feature_length_on_the_card_is_that_of_the_output(name, options, length):
    backbone = described(name, 32, options)
    assert backbone.feature_dim == backbone.card.feature_dim == length
    assert backbone(torch.zeros(2, 1, 32, 32)).shape == (2, length)


def test_writing_a_card_leaves_the_model_as_it_was():
    architecture = Architecture("resnet10t", 1, 32)
    model = architecture.build(seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    new_card("made up", architecture, model, Intensity())
    assert all(layer.training for layer in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_vit_of_dynamic_size_reads_other_sizes_before_and_after_it_was_saved(tmp_path):
    options = {"embed_dim": 32, "depth": 1, "num_heads": 2, "dynamic_img_size": True}
    backbone = described("vit_tiny_patch16_224", 32, options)
    save_backbone(backbone, tmp_path / "b")
    images = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(plain_timm(tmp_path / "b")(images), backbone(images))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"channels": [8, 16, 32, 64]}),
        ("resnet10t", {"channels": [8, 16, 32, 64]}),  # its first convolution is three
        FAMILIES["densenet"],
        ("densenet121", {**FAMILIES["densenet"][1], "stem_type": "deep"}),
    ],
)
def test_the_small_stem_keeps_sixteen_times_the_pixels_and_travels_in_the_card(tmp_path, name, options):
    small, standard = (described(name, 32, options, stem=stem) for stem in ("small", "standard"))
    images = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        maps = [backbone.model.forward_features(images).shape for backbone in (small, standard)]
        assert maps[0][-2:] == (4, 4) and maps[1][-2:] == (1, 1)
        save_backbone(small, tmp_path / "b")
        assert torch.equal(load_backbone(tmp_path / "b")(images), small(images))
    assert load_backbone(tmp_path / "b").card.stem == "small"


@pytest.mark.parametrize("family", ["resnet", "densenet"])
def test_plain_timm_refuses_a_small_stem_rather_than_load_another_one(tmp_path, family):
    save_backbone(family_backbone(family, stem="small"), tmp_path / "b")
    with pytest.raises(RuntimeError, match="Unknown model"):
        plain_timm(tmp_path / "b")
    assert "load_backbone" in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize("family", ["vgg", "convnext", "vit"])
def test_a_family_without_a_small_stem_is_refused_with_an_alternative(family):
    with pytest.raises(BackboneError, match=r"'small' is for ResNets and DenseNets; .* is none.*options.patch_size"):
        family_backbone(family, stem="small")


def test_a_size_that_an_architecture_cannot_read_is_refused_before_training():
    with pytest.raises(BackboneError, match=r"DenseNet cannot read images of 1 x 8 x 8: .* Choose another size"):
        family_backbone("densenet", size=8)


def test_an_architecture_that_gives_no_vector_is_refused():
    with pytest.raises(BackboneError, match=r"ResNet gives \(1, 512, 1, 1\) for one image, not a vector"):
        described("resnet10t", 32, {"global_pool": ""})


@pytest.mark.parametrize(
    ("option", "home"),
    [("in_chans", "backbone.in_channels"), ("img_size", "data.size"), ("pretrained", "backbone.init")],
)
def test_an_option_that_is_another_key_is_answered_with_that_key(option, home):
    with pytest.raises(BackboneError, match=f"backbone.options.{option}: its place is {home}"):
        Architecture("resnet10t", 1, 32, options={option: 1}).build(seed=0)
