"""A backbone that starts from another: adapted as timm does it, said in the card, strangers refused in a few words."""

import pytest
import timm
import torch
from support.families import FAMILIES, described, family_backbone

from ssl_transfer.errors import RecipeError
from ssl_transfer.models.adoption import adopt
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe

VIT = {"embed_dim": 32, "depth": 1, "num_heads": 2}


def timm_s_own(parent, folder, **arguments):
    """The state that timm reaches when it loads the saved parent for other images."""
    save_backbone(parent, folder)
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments).state_dict()


def equal(one, other) -> bool:
    return list(one) == list(other) and all(torch.equal(value, other[key]) for key, value in one.items())


def small_resnet(stem="standard", channels=1, **options):
    return described("resnet10t", 32, {"channels": [8, 16, 32, 64], **options}, channels, stem)


def take(child, parent) -> list[str]:
    """Give a backbone the weights of another; what was adapted."""
    return adopt(child.model, child.architecture, parent)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("have", "want"), [(3, 1), (3, 2), (3, 4), (1, 3), (2, 3), (1, 1)])
def test_channels_are_adapted_to_the_weights_that_timm_itself_would_load(tmp_path, family, have, want):
    parent, child = family_backbone(family, have, seed=1), family_backbone(family, want)
    adapted = take(child, parent)
    assert equal(child.model.state_dict(), timm_s_own(parent, tmp_path / "parent", in_chans=want))
    assert len(adapted) == (have != want)
    assert all(line.endswith(f".weight: {have} → {want} input channels") for line in adapted)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("have", "want"), [(3, 1), (1, 3)])
def test_an_adapted_backbone_sees_a_grey_image_as_its_parent_did(family, have, want):
    parent, child = family_backbone(family, have, seed=1), family_backbone(family, want)
    take(child, parent)
    grey = torch.randn(2, 1, 32, 32)
    with torch.inference_mode():
        found, expected = (m(grey.expand(-1, channels, -1, -1)) for m, channels in ((child, want), (parent, have)))
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_deep_stem_is_adapted_where_it_reads_the_image(tmp_path):
    parent = described("resnet18", 32, {"channels": [8, 16, 32, 64], "stem_type": "deep"}, channels=3)
    child = described("resnet18", 32, parent.card.options)
    assert take(child, parent) == ["conv1.0.weight: 3 → 1 input channels"]
    assert equal(child.model.state_dict(), timm_s_own(parent, tmp_path / "parent", in_chans=1))


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"reg_tokens": 2, "no_embed_class": True}], ids=str)
@pytest.mark.parametrize("size", [32, 96])
def test_position_embeddings_are_resampled_as_timm_does_it(tmp_path, options, size):
    name = "vit_tiny_patch16_224"
    parent = described(name, 64, {**VIT, **options}, channels=3)
    child = described(name, size, parent.card.options, seed=1)
    positions = [backbone.model.pos_embed.shape[1] for backbone in (parent, child)]
    assert take(child, parent) == [
        "patch_embed.proj.weight: 3 → 1 input channels",
        f"pos_embed: {positions[0]} → {positions[1]} positions",
    ]
    assert equal(child.model.state_dict(), timm_s_own(parent, tmp_path / "parent", in_chans=1, img_size=size))


def test_the_parent_keeps_its_weights():
    parent = family_backbone("resnet", 3)
    before = {key: value.clone() for key, value in parent.state_dict().items()}
    take(family_backbone("resnet", 1, seed=1), parent)
    assert equal(parent.state_dict(), before)


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        (lambda: small_resnet(stem="small"), "stem: the parent has small, this backbone standard"),  # equal tensors
        (
            lambda: small_resnet(act_layer="gelu"),
            r'options: the parent has {"act_layer": "gelu", .* this backbone {"ch',
        ),
        (lambda: small_resnet(stem_width=8), r'options: the parent has .*"stem_width": 8'),
        (lambda: described("resnet14t", 32, {}), "architecture: the parent has resnet14t, this backbone resnet10t"),
    ],
)
def test_a_parent_of_another_build_is_refused_by_what_differs(parent, reason):
    child = small_resnet()
    before = {key: value.clone() for key, value in child.state_dict().items()}
    with pytest.raises(RuntimeError, match=reason):
        take(child, parent())
    assert equal(child.state_dict(), before)


def test_weights_of_other_names_or_shapes_are_told_by_the_first_three_and_a_count():
    child, parent = small_resnet(), small_resnet()
    parent.model.layer1[0].conv2 = torch.nn.Conv2d(8, 9, 3, bias=False)
    parent.model.layer2 = torch.nn.Identity()
    with pytest.raises(RuntimeError) as error:
        take(child, parent)
    message = str(error.value)
    assert message.startswith(
        "layer1.0.conv2.weight is of shape (9, 8, 3, 3) and should be of shape (8, 8, 3, 3); layer2.0.conv1.weight is absent"
    )
    assert message.endswith("more") and len(message) < 300


def test_drop_rates_and_pooling_are_the_child_s_own():
    parent = small_resnet()
    assert take(small_resnet(drop_path_rate=0.1, global_pool="max"), parent) == []


@pytest.fixture
def parent_folder(tmp_path):
    backbone = family_backbone("resnet", 3, 32, method="byol", parents=("grandparent",))
    save_backbone(backbone, tmp_path / "parent")
    return tmp_path / "parent"


def recipe_from(store, init, stem="standard"):
    name, options = FAMILIES["resnet"]
    return resolve(
        PretrainRecipe.model_validate(
            {
                "data": {"store": str(store.path), "views": "ct", "size": 32},
                "backbone": {"name": name, "options": options, "init": str(init), "stem": stem},
                "method": {"name": "simclr", "hidden_dim": 16, "projection_dim": 8},
                "optimizer": {"name": "adamw", "lr": 1e-3},
                "train": {"epochs": 1, "batch_size": 12},
            }
        ),
        "recipe",
    )


def test_a_run_on_ct_that_starts_from_a_colour_backbone_says_so_in_its_card(ct_store, parent_folder):
    parent = load_backbone(parent_folder)
    card = PretrainSetup.build(recipe_from(ct_store, parent_folder), "recipe").objective.backbone.card
    assert card.adapted == ("conv1.weight: 3 → 1 input channels",)
    assert card.parents == ("grandparent", parent.id)
    assert card.in_channels == 1


def test_a_run_whose_stem_is_not_its_parent_s_is_refused(ct_store, parent_folder):
    with pytest.raises(
        RecipeError, match=r"backbone.init: .*parent does not fit resnet18: stem: the parent has standard"
    ):
        PretrainSetup.build(recipe_from(ct_store, parent_folder, stem="small"), "recipe")


def test_the_scratch_of_a_backbone_with_a_parent_has_random_weights_of_its_seed(tmp_path):
    child = family_backbone("resnet", seed=5, pretraining_seed=3, parents=("somebody",))
    save_backbone(child, tmp_path / "child")
    scratch = load_backbone(f"scratch:{tmp_path / 'child'}")
    name, options = FAMILIES["resnet"]
    assert equal(scratch.model.state_dict(), Architecture(name, 1, 32, options=options).build(seed=3).state_dict())
    assert (scratch.card.method, scratch.card.parents, scratch.card.adapted) == ("none", (), ())
    assert scratch.card.intensity == child.card.intensity
