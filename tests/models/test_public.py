"""Public weights: from a folder as the hub holds it, adapted, described; and what is said where there is no network."""

import json
import shutil
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support.command_line import run

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.adoption import adopt
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import load_backbone, save_backbone

MODELS = {
    "resnet": ("resnet18.a1_in1k", {"channels": [8, 16, 32, 64]}),
    "densenet": ("densenet121.ra_in1k", {"growth_rate": 8, "block_config": [1, 1, 1, 1]}),
    "vgg": ("vgg11_bn.tv_in1k", {"mlp_ratio": 0.01}),
    "convnext": ("convnext_atto.d2_in1k", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}),
    "vit": ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}),
}


def downloaded(folder, family="resnet"):
    """A folder that timm itself writes for the hub: 1000 classes, three channels; and its model."""
    name, options = MODELS[family]
    torch.manual_seed(7)
    model = timm.create_model(name, **options).eval()
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return model


def plain(folder, **arguments):
    return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, **arguments).eval()


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("family", MODELS)
def test_a_downloaded_folder_is_a_backbone_with_the_features_that_timm_gives(tmp_path, family, channels):
    downloaded(tmp_path / "public", family)
    backbone = load_backbone(tmp_path / "public", in_channels=channels, size=64)
    images = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        expected = plain(tmp_path / "public", in_chans=channels)(images)
        assert torch.equal(backbone(images), expected)
    assert expected.shape == (2, backbone.feature_dim)
    save_backbone(backbone, tmp_path / "ours")  # and like any other it can be kept
    with torch.inference_mode():
        assert torch.equal(load_backbone(tmp_path / "ours")(images), expected)
        assert torch.equal(plain(tmp_path / "ours")(images), expected)


def test_the_card_of_public_weights_says_where_they_come_from_and_how_they_want_images(tmp_path):
    model = downloaded(tmp_path / "public")
    card = load_backbone(tmp_path / "public", size=64).card
    assert (card.name, card.architecture) == ("resnet18.a1_in1k", "resnet18")
    assert (card.method, card.source_domain, card.licence) == ("supervised", "photograph", "apache-2.0")
    assert card.intensity.mean == tuple(model.pretrained_cfg["mean"]) == (0.485, 0.456, 0.406)
    assert card.intensity.std == (0.229, 0.224, 0.225)
    assert card.adapted == card.parents == card.stores == ()
    (stage,) = card.stages
    assert (stage.domain, stage.images, stage.steps) == ("photograph", {}, None) and card.images is card.steps is None
    assert stage.dataset == "ImageNet-1k"


def test_public_weights_for_grey_images_say_what_was_adapted_and_scale_by_the_mean_over_colours(tmp_path):
    downloaded(tmp_path / "public")
    card = load_backbone(tmp_path / "public", in_channels=1, size=64).card
    assert card.adapted == ("conv1.weight: 3 → 1 input channels",)
    assert card.intensity.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    assert card.intensity.std == (pytest.approx((0.229 + 0.224 + 0.225) / 3),)


def test_a_folder_written_by_hand_as_the_hub_holds_it_is_read(tmp_path):
    """The hub's own config.json: no model_args, the head's size twice, sources that are null."""
    model = timm.create_model("test_resnet", num_classes=10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "test_resnet",
                "num_classes": 10,
                "num_features": 96,
                "global_pool": "avg",
                "pretrained_cfg": {
                    "custom_load": False,
                    "input_size": [3, 160, 160],
                    "fixed_input_size": False,
                    "interpolation": "bicubic",
                    "crop_pct": 0.95,
                    "mean": [0.5, 0.5, 0.5],
                    "std": [0.5, 0.5, 0.5],
                    "num_classes": 10,
                    "first_conv": "conv1.0",
                    "classifier": "fc",
                },
            }
        )
    )
    backbone = load_backbone(tmp_path, size=48)
    assert (backbone.card.name, backbone.card.image_size, backbone.feature_dim) == (tmp_path.name, 48, 96)
    assert torch.equal(backbone.model.layer1[0].conv1.weight, model.layer1[0].conv1.weight)


def test_a_vit_built_for_one_size_keeps_it_and_its_child_takes_the_recipe_s(tmp_path):
    downloaded(tmp_path / "public", "vit")
    public = load_backbone(tmp_path / "public", size=32)
    assert public.card.image_size == 64
    options = {key: MODELS["vit"][1][key] for key in ("embed_dim", "depth", "num_heads")}
    architecture = Architecture("vit_tiny_patch16_224", 3, 32, options=options)
    child = architecture.build(seed=0)
    assert adopt(child, architecture, public) == ["pos_embed: 17 → 5 positions"]
    assert torch.equal(child.pos_embed, plain(tmp_path / "public", img_size=32).pos_embed)


def test_the_scratch_of_public_weights_is_their_architecture_with_random_weights(tmp_path):
    downloaded(tmp_path / "public")
    public, scratch = (
        load_backbone(tmp_path / "public", size=64),
        load_backbone(f"scratch:{tmp_path / 'public'}", size=64),
    )
    assert scratch.card.options == public.card.options and scratch.card.intensity == public.card.intensity
    assert not torch.equal(scratch.model.conv1.weight, public.model.conv1.weight)
    assert scratch.card.source_domain is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("a tensor less", r"timm cannot load these public weights: .*layer4.1.conv2.weight"),
        ("half a file", r"timm cannot load these public weights: SafetensorError"),
        ("no JSON", r"config.json: this is not what timm writes"),
        ("another architecture", r"timm has no architecture 'resnet81'\. Did you mean 'resnet18'\?"),
        ("no weights", r"this is no backbone"),
    ],
)
def test_a_damaged_download_is_refused(tmp_path, spoil, message):
    downloaded(tmp_path / "public")
    weights, config = tmp_path / "public" / "model.safetensors", tmp_path / "public" / "config.json"
    if spoil == "a tensor less":
        tensors = load_file(weights)
        del tensors["layer4.1.conv2.weight"]
        save_file(tensors, weights)
    elif spoil == "half a file":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif spoil == "no JSON":
        config.write_text("<html>not found</html>")
    elif spoil == "another architecture":
        config.write_text(config.read_text().replace('"resnet18"', '"resnet81"'))
    else:
        weights.unlink()
    with pytest.raises(BackboneError, match=message) as error:
        load_backbone(tmp_path / "public")
    assert len(str(error.value).replace(str(tmp_path), "")) < 400


def test_a_backbone_of_ours_without_its_card_is_not_taken_for_public_weights(tmp_path):
    save_backbone(load_backbone("scratch:test_resnet,size=32"), tmp_path / "b")
    (tmp_path / "b" / "card.json").unlink()
    with pytest.raises(BackboneError, match=r"its card.json is missing.* Copy the whole folder again"):
        load_backbone(tmp_path / "b")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("timm:resnet18.a1_in2k", r"timm knows no such public weights. Did you mean 'resnet18.a1_in1k'"),
        ("timm:resnet10", r"timm has no such architecture"),
    ],
)
def test_weights_that_timm_does_not_know_are_refused_without_a_network(spec, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(spec)


@pytest.mark.long
def test_without_a_network_the_command_line_explains_the_manual_download_which_works(tmp_path, ct_store):
    script = f"""
import os, sys
os.environ |= {{"HF_HUB_OFFLINE": "1", "HF_HOME": {str(tmp_path / "nothing")!r}}}
from ssl_transfer.cli import main
sys.exit(main(["features", sys.argv[1], {str(ct_store.path)!r}, "--out", "features"]))"""

    def features(backbone):
        return run([sys.executable, "-c", script, backbone], tmp_path)

    refused = features("timm:resnet18.a1_in1k")
    assert refused.status == 2 and "Traceback" not in refused.stderr
    assert "UnreachableError: timm:resnet18.a1_in1k: the public weights could not be loaded" in refused.stderr
    assert "hf download timm/resnet18.a1_in1k model.safetensors config.json --local-dir FOLDER" in refused.stderr
    assert len(refused.stderr) < 1200
    downloaded(tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "FOLDER")
    found = features("FOLDER")
    assert found.status == 0, found.stderr
