"""Chains: a backbone starts from another, and its card says from which and what was adapted."""

import pytest
import torch

from ssl_transfer.errors import RecipeError
from ssl_transfer.models.backbone import load_backbone

STILL = "optimizer.lr=1e-9"  # weights end as they began, to six digits
VIT = ("backbone.name=vit_tiny_patch16_224", "backbone.options={patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}")

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_backbone_can_start_from_another_and_records_its_parents(runs, finished, tmp_path):
    first = load_backbone(finished[0] / "backbone")
    runs(tmp_path / "second", f"backbone.init={finished[0] / 'backbone'}", STILL)
    second = load_backbone(tmp_path / "second" / "backbone")
    assert second.card.parents == (first.id,) and second.card.adapted == ()
    weight, parent = (b.model.layer1[0].conv1.weight for b in (second, first))
    assert torch.allclose(weight, parent, atol=1e-6)
    runs(tmp_path / "third", f"backbone.init={tmp_path / 'second' / 'backbone'}")
    assert load_backbone(tmp_path / "third" / "backbone").card.parents == (first.id, second.id)


def test_a_parent_with_another_number_of_channels_is_adapted_and_the_card_records_it(runs, finished, tmp_path):
    """Three equal channels are seen as the parent saw one; and summed again, as it was."""
    start, key = f"backbone.init={finished[0] / 'backbone'}", "conv1.0.weight"
    runs(tmp_path / "three", start, "backbone.in_channels=3", STILL)
    assert runs.card(tmp_path / "three")["adapted"] == [f"{key}: 1 → 3 input channels"]
    parent, three = runs.tensors(finished[0])[key], runs.tensors(tmp_path / "three")[key]
    assert three.shape[1] == 3 and torch.allclose(three.sum(1, keepdim=True), parent, atol=1e-5)
    runs(tmp_path / "one", f"backbone.init={tmp_path / 'three' / 'backbone'}", STILL)
    assert runs.card(tmp_path / "one")["adapted"] == [f"{key}: 3 → 1 input channels"]
    assert torch.allclose(runs.tensors(tmp_path / "one")[key], parent, atol=1e-5)


def test_a_vit_of_smaller_images_is_adapted_and_the_card_records_it(runs, tmp_path):
    runs(tmp_path / "small", *VIT, "train.epochs=1")
    start = f"backbone.init={tmp_path / 'small' / 'backbone'}"
    runs(tmp_path / "large", *VIT, start, "data.size=32", "backbone.in_channels=3", "train.epochs=1", STILL)
    assert runs.card(tmp_path / "large")["adapted"] == [
        "patch_embed.proj.weight: 1 → 3 input channels",
        "pos_embed: 5 → 17 positions",
    ]
    small, large = (runs.tensors(tmp_path / name) for name in ("small", "large"))
    assert torch.allclose(large["pos_embed"][:, 0], small["pos_embed"][:, 0], atol=1e-6)  # the class token's
    assert torch.allclose(large["blocks.0.attn.qkv.weight"], small["blocks.0.attn.qkv.weight"], atol=1e-6)


def test_a_parent_of_another_shape_is_refused(runs, finished, tmp_path):
    with pytest.raises(RecipeError, match=r"backbone.init: .* does not fit"):
        runs(tmp_path / "run", f"backbone.init={finished[0] / 'backbone'}", "backbone.options.stem_width=16")


def test_supervised_then_self_supervised_is_two_recipes(runs, tmp_path):
    """As multistage transfer does it."""
    runs(tmp_path / "labels", "method=supervised", "train.epochs=1")
    runs(tmp_path / "views", f"backbone.init={tmp_path / 'labels' / 'backbone'}", "train.epochs=1")
    card = runs.card(tmp_path / "views")
    assert card["method"] == "simclr" and card["parents"] == [runs.card(tmp_path / "labels")["id"]]
