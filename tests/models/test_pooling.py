"""Pooling of a ViT's tokens: one rule for all, stated in the card, the four poolings against timm's own layers."""

import numpy as np
import pytest
import timm
import torch
from support.families import described

from ssl_transfer import features
from ssl_transfer.errors import BackboneError
from ssl_transfer.features import Features, extract_features
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.models.pooling import own_pooling, timm_pooling
from ssl_transfer.models.public import from_public_folder
from ssl_transfer.recipe import PretrainRecipe

TINY = {"embed_dim": 32, "depth": 5, "num_heads": 2}
VITS = {  # architecture, options -> pooling of timm, pooling of the rule
    "vit": ("vit_tiny_patch16_224", TINY, "cls", "cls"),
    "dinov2 with registers": ("vit_small_patch14_reg4_dinov2", TINY, "cls", "cls"),
    "dinov3": ("vit_small_patch16_dinov3", {**TINY, "num_heads": 2}, "mean", "cls"),
    "fc_norm": ("eva02_tiny_patch14_224", TINY, "mean", "cls"),
    "beit": ("beit_base_patch16_224", TINY, "mean", "cls"),
    "no class token": ("vit_medium_patch16_gap_240", TINY, "mean", "mean"),
    "attention pooling": ("vit_base_patch16_siglip_224", TINY, "map", "map"),
}
WITH_CLASS_TOKEN = [name for name, (*_, rule) in VITS.items() if rule == "cls"]


def size_of(name):
    return 56 if "14" in name else 64


def vit(kind, **facts):
    name, options, *_ = VITS[kind]
    backbone = described(name, size_of(name), options, channels=3, **facts)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # norms of random weights are the identity but for this
        for key, value in backbone.model.named_parameters():
            if "norm" in key or "token" in key:
                value += 0.3 * torch.randn(value.shape, generator=generator)
    return backbone


def images_for(backbone, count=2):
    side = backbone.card.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", VITS)
def test_a_vit_has_its_class_token_by_default_or_the_mean_where_it_has_none(kind):
    _, options, of_timm, rule = VITS[kind]
    backbone = vit(kind)
    assert (timm_pooling(backbone.model), own_pooling(backbone.model, options)) == (of_timm, rule)
    assert backbone.card.pooling == backbone.pooling == rule


def test_the_option_global_pool_states_a_pooling():
    assert described("vit_tiny_patch16_224", 32, {**TINY, "global_pool": "avg"}).card.pooling == "mean"


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto"])
def test_a_cnn_averages_and_has_no_other_pooling(name):
    backbone = load_backbone(
        f"scratch:{name},in_channels=1,size=64" if name != "swin_tiny_patch4_window7_224" else f"scratch:{name}"
    )
    assert backbone.card.pooling == "mean"
    with pytest.raises(
        BackboneError, match=r"pooling=cls: is no ViT: it averages its last feature map. Expected one of mean\."
    ):
        load_backbone(f"scratch:{name},pooling=cls", size=64)


def by_hand(model, images):
    """The four poolings from the outputs of timm's layers."""
    tokens, outputs = [], []
    hooks = [model.norm.register_forward_hook(lambda _, __, output: tokens.append(output))]
    hooks += [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in model.blocks]
    model(images)
    for hook in hooks:
        hook.remove()
    last = model.fc_norm(tokens[0])  # the identity, or the norm of every token: then `norm` is the identity
    cls, mean = last[:, 0], model.fc_norm(tokens[0][:, model.num_prefix_tokens :].mean(1))
    last4 = torch.cat([model.fc_norm(model.norm(output))[:, 0] for output in outputs[-4:]], 1)
    return {"cls": cls, "mean": mean, "cls+mean": torch.cat([cls, mean], 1), "last4": last4}


@pytest.mark.parametrize("kind", WITH_CLASS_TOKEN)
def test_the_poolings_are_those_of_the_layers_of_timm(kind):
    backbone = vit(kind)
    images = images_for(backbone)
    with torch.inference_mode():
        expected = by_hand(backbone.model, images)
        together = backbone.poolings(images, expected)
        for name, vectors in expected.items():
            torch.testing.assert_close(together[name], vectors)
        assert torch.equal(backbone(images), together["cls"])
        own = {"cls": "cls", "mean": "mean"}[timm_pooling(backbone.model)]
        torch.testing.assert_close(backbone.model(images), expected[own])


def test_last4_is_what_dinov2_concatenates():
    backbone = vit("dinov2 with registers")
    images = images_for(backbone)
    with torch.inference_mode():
        layers = backbone.model.get_intermediate_layers(images, n=4, return_prefix_tokens=True, norm=True)
        expected = torch.cat([prefix[:, 0] for _, prefix in layers], 1)
        torch.testing.assert_close(backbone.poolings(images, ["last4"])["last4"], expected)


def test_without_a_class_token_there_are_two_poolings():
    backbone = vit("no class token")
    images = images_for(backbone)
    with torch.inference_mode():
        both = backbone.poolings(images, ["mean", "last4"])
        torch.testing.assert_close(both["mean"], backbone(images))
    assert both["last4"].shape == (2, 4 * 32)
    with pytest.raises(BackboneError, match=r"pooling=cls: has no class token\. Expected one of mean, last4"):
        load_backbone("scratch:vit_medium_patch16_gap_240,pooling=cls")


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean", "last4"])
def test_a_pooling_of_the_spec_is_in_the_card_the_features_and_the_id_and_is_saved(tmp_path, pooling):
    save_backbone(vit("dinov3"), tmp_path / "plain")
    plain = load_backbone(tmp_path / "plain")
    stated = load_backbone(f"{tmp_path / 'plain'},pooling={pooling}")
    images = images_for(plain)
    with torch.inference_mode():
        expected = plain.poolings(images, [pooling])[pooling]
        assert torch.equal(stated(images), expected)
        assert stated.card.pooling == pooling and stated.feature_dim == expected.shape[1]
        assert (stated.id == plain.id) == (pooling == "cls")
        save_backbone(stated, tmp_path / "stated")
        kept = load_backbone(tmp_path / "stated")
        assert torch.equal(kept(images), expected) and kept.id == stated.id and kept.card.pooling == pooling
        assert load_backbone(f"scratch:{tmp_path / 'stated'}").card.pooling == pooling


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["vit", "dinov3", "fc_norm"])
def test_plain_timm_pools_a_saved_backbone_in_the_same_way(tmp_path, kind, pooling):
    save_backbone(vit(kind, pooling=pooling), tmp_path / "b")
    saved = load_backbone(tmp_path / "b")
    images = images_for(saved)
    with torch.inference_mode():
        plain = timm.create_model(f"local-dir:{tmp_path / 'b'}", pretrained=True).eval()
        torch.testing.assert_close(plain(images), saved(images))


def test_an_unknown_pooling_gets_the_nearest_name():
    with pytest.raises(BackboneError, match=r"no pooling is called 'cls-mean'\. Did you mean 'cls\+mean'\?"):
        load_backbone("scratch:vit_tiny_patch16_224,pooling=cls-mean")


def test_public_weights_whose_head_reads_another_pooling_have_no_classifier(tmp_path):
    """LEEP and NCE need the head on the features; timm's DINOv3 averages, the rule takes the class token."""
    model = timm.create_model("vit_small_patch16_dinov3", **TINY, img_size=64, num_classes=7)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    assert from_public_folder(tmp_path, 3, 64).classifier is None
    model = timm.create_model("vit_tiny_patch16_224", **TINY, img_size=64, num_classes=7)
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    assert from_public_folder(tmp_path, 3, 64).classifier is not None


def test_a_recipe_may_state_a_pooling_and_without_one_its_id_is_that_of_earlier_versions():
    content = {
        "data": {"store": "s", "views": "ct", "size": 64},
        "backbone": {"name": "vit_tiny_patch16_224"},
        "method": "simclr",
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "train": {"epochs": 1, "batch_size": 4},
    }
    plain = PretrainRecipe.model_validate(content)
    stated = PretrainRecipe.model_validate({**content, "backbone": {**content["backbone"], "pooling": "cls+mean"}})
    assert "pooling" not in plain.identity()["backbone"] and stated.identity()["backbone"]["pooling"] == "cls+mean"


def test_cached_features_hold_every_pooling_from_one_forward_pass(tmp_path, ct_store, monkeypatch):
    backbone = load_backbone("scratch:vit_tiny_patch16_224,in_channels=1,size=32")
    passes = []
    backbone.model.patch_embed.register_forward_hook(lambda _, __, output: passes.append(len(output)))
    every = extract_features(backbone, ct_store, tmp_path / "all", pool="all")
    assert sum(passes) == len(ct_store)
    single = {
        name: extract_features(
            load_backbone(f"scratch:vit_tiny_patch16_224,in_channels=1,size=32,pooling={name}"),
            ct_store,
            tmp_path / name,
        )
        for name in ("cls", "mean", "cls+mean", "last4")
    }
    for opened in (every, Features.load(tmp_path / "all")):
        for name, alone in single.items():
            assert np.allclose(opened.pooled(name), alone.values, rtol=1e-4, atol=1e-6), name
    assert np.array_equal(every.values, every.pooled("cls"))
    monkeypatch.setattr(features, "embed_poolings", None)  # read, not computed
    assert np.array_equal(extract_features(backbone, ct_store, tmp_path / "all", pool="all").values, every.values)
