"""Operations of a pretraining, counted from its recipe: by hand, and as a run states them; nothing has to exist for it."""

import pytest
import torch
from support.tiny_methods import FIXED_VIT, IMAGES, RESNET, SIDE, SMALL, VIT, VIT_ONLY, new_batch, new_method

from ssl_transfer.errors import RecipeError, StoreError
from ssl_transfer.models.flops import counted_flops, drop_weights
from ssl_transfer.pretraining.expected_flops import pretraining_flops
from ssl_transfer.recipe import PretrainRecipe, load_recipe, validate

FUSED = 0.03  # attention that is counted as plain products lacks one of seven, a small share of these tiny networks


def recipe_of(method, kind, frozen=0, **data):
    """Two epochs of 40 images in batches of 8, so many of them frozen, from a store and a parent that do not exist."""
    content = {
        "data": {"store": "stores/none", "views": "xray", "size": SIDE, "limit": 40, **data},
        "backbone": {
            "name": kind[0],
            "in_channels": 1,
            "options": kind[1],
            "init": "runs/none" if frozen else "scratch",
        },
        "method": method,
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "train": {"epochs": 2, "batch_size": 8, "freeze_epochs": frozen},
    }
    return validate(PretrainRecipe, content, "recipe")


def test_a_vit_with_a_classifier_costs_what_is_counted_by_hand():
    width, depth, patches, classes = 16, 2, (SIDE // 4) ** 2, 3
    tokens = patches + 1
    embedding, classifier = 2 * patches * 4 * 4 * width, 2 * width * classes
    block = 2 * tokens * width * (3 + 1 + 4 + 4) * width + 2 * (2 * tokens * tokens * width)
    of_image = 2 * embedding + 3 * (depth * block + classifier)  # the images need no gradient
    frozen = embedding + depth * block + 2 * classifier
    assert pretraining_flops(recipe_of("supervised", FIXED_VIT), "recipe") == 2 * 40 * of_image
    assert pretraining_flops(recipe_of("supervised", FIXED_VIT, frozen=1), "recipe") == 40 * of_image + 40 * frozen


def test_a_recipe_states_what_the_card_of_its_run_states(finished, tiny_recipe):
    card = finished[1]
    assert pretraining_flops(load_recipe(PretrainRecipe, tiny_recipe), "recipe") == card["flops"] > 0


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_method_is_counted_without_its_weights_as_with_them(name):
    method = new_method(name, VIT if name in VIT_ONLY else RESNET)
    batch, found = new_batch(method), []
    for without in (False, True):
        if without:
            drop_weights(method)
            batch = batch._replace(
                views=[view.to("meta") for view in batch.views],
                labels=torch.zeros(IMAGES, dtype=torch.int64, device="meta"),
            )
        with counted_flops() as flops:
            method(batch, 0)["loss"].backward()
        found.append(flops.count)
    assert found[1] == pytest.approx(found[0], rel=FUSED if name in VIT_ONLY else 0) and found[1] > 0


def test_what_cannot_be_known_before_the_run_is_said():
    with pytest.raises(RecipeError, match="teacher is opened"):
        pretraining_flops(recipe_of({"name": "distill", **SMALL["distill"]}, RESNET), "recipe")
    with pytest.raises(StoreError, match="no such store"):
        pretraining_flops(recipe_of("simclr", RESNET, limit=None), "recipe")
