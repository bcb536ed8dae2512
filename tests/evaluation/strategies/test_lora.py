"""LoRA: what is adapted, what stays, and where it is refused."""

import pytest
import torch
from support.families import FAMILIES, family_backbone
from support.strategies import ADAMW, made, moved

from ssl_transfer.errors import RecipeError

pytestmark = pytest.mark.usefixtures("one_thread")  # on such small images a second one only waits


# lora


def test_lora_leaves_the_pretrained_weights_bit_identical_and_moves_adapters_and_head(trained):
    record = trained("lora", "vit", ADAMW, steps=3)
    pretrained = family_backbone("vit").model.state_dict()
    final = {name.replace(".base_layer", ""): value for name, value in record.tensors[-1].items()}
    assert all(torch.equal(final[f"backbone.model.{name}"], value) for name, value in pretrained.items())
    adapters = {name for name in record.tensors[-1] if "lora_" in name}
    assert len(adapters) == 2 * 2 * 2  # two blocks, qkv and proj, A and B
    assert {f"backbone.model.{name}" for name in moved(record, 1, "backbone.model")} == adapters
    assert moved(record, 0, "head") == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("rank", [1, 4])
def test_an_adapter_has_the_stated_rank(rank):
    strategy, *_ = made("lora", "vit", rank=rank)
    assert {min(parameter.shape) for parameter in strategy.backbone_parameters.values()} == {rank}


def test_lora_can_adapt_other_layers():
    strategy, *_ = made("lora", "vit", layers=("fc1",))
    assert len(strategy.backbone_parameters) == 4 and all(".fc1." in name for name in strategy.backbone_parameters)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "vit"])
def test_lora_on_a_family_without_attention_is_refused_with_a_hint_to_a_vit(family):
    with pytest.raises(RecipeError, match=r"has no linear layers called qkv or proj.*Take a ViT"):
        made("lora", family)


def test_lora_s_random_start_depends_on_the_seed_alone(trained):
    torch.manual_seed(1)
    one = trained("lora", "vit", steps=1)
    torch.manual_seed(2)
    other = trained("lora", "vit", steps=1)
    assert all(torch.equal(value, other.tensors[0][name]) for name, value in one.tensors[0].items())
