"""Backbones: what is saved loads with plain timm, names itself by its content, and damage is reported."""

import copy
import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from ssl_transfer.cards import BackboneCard
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone, load_backbone, save_backbone
from ssl_transfer.models.card import new_card, weights_digest

SIZE = 16
RESNET = Architecture("resnet10t", 1, SIZE, options={"channels": [8, 16, 32, 64], "stem_width": 8})


def new_backbone(seed=0, **facts) -> Backbone:
    model = RESNET.build(seed)
    return Backbone(model, new_card("made up", RESNET, model, Intensity(), **facts)).eval()


@pytest.fixture
def saved(tmp_path):
    save_backbone(new_backbone(), tmp_path / "backbone")
    return tmp_path / "backbone"


def test_the_weights_file_holds_tensors_and_the_format_only(saved):
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(new_backbone().model.state_dict())


def test_equal_weights_are_equal_bytes_whatever_the_card_says(tmp_path, saved):
    save_backbone(new_backbone(method="simclr", stores=("elsewhere",)), tmp_path / "other")
    save_backbone(new_backbone(seed=1), tmp_path / "third")
    digests = [
        hashlib.sha256((f / "model.safetensors").read_bytes()).digest()
        for f in (saved, tmp_path / "other", tmp_path / "third")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_memory_format_changes_neither_bytes_nor_id(tmp_path, saved):
    backbone = new_backbone()
    backbone.to(memory_format=torch.channels_last)
    save_backbone(backbone, tmp_path / "other")
    assert (tmp_path / "other/model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    assert backbone.id == load_backbone(saved).id


def test_the_id_belongs_to_the_weights_not_to_the_folder(tmp_path, saved):
    shutil.copytree(saved, tmp_path / "moved")
    one, moved, other = load_backbone(saved), load_backbone(tmp_path / "moved"), new_backbone(seed=1)
    assert one.id == moved.id == weights_digest(one.model, one.card)
    assert weights_digest(other.model, other.card) != one.id


@pytest.mark.parametrize(
    "change", [{"stem": "small"}, {"intensity": Intensity(window_hu=(-1000, 1000))}, {"architecture": "resnet10"}]
)
def test_the_id_also_names_what_the_weights_mean(change):
    backbone = new_backbone()
    assert weights_digest(backbone.model, replace(backbone.card, **change)) != weights_digest(
        backbone.model, backbone.card
    )


def test_the_id_depends_on_every_tensor():
    backbone = new_backbone()
    before = weights_digest(backbone.model, backbone.card)
    for key in backbone.model.state_dict():
        changed = copy.deepcopy(backbone.model)
        changed.state_dict()[key].add_(1)
        assert weights_digest(changed, backbone.card) != before, key


def test_initial_weights_belong_to_the_seed_and_leave_the_caller_s_draws_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (RESNET.build(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.layer1[0].conv1.weight, same.layer1[0].conv1.weight)
    assert not torch.equal(one.layer1[0].conv1.weight, other.layer1[0].conv1.weight)


def test_a_scratch_backbone_is_a_backbone_of_its_seed():
    spec = "scratch:resnet10t,in_channels=1,size=32,stem=small"
    one, same, other = load_backbone(spec), load_backbone(spec), load_backbone(f"{spec},seed=1")
    assert one.id == same.id != other.id
    assert (one.card.in_channels, one.card.image_size, one.card.source_domain) == (1, 32, None)
    assert not one.training


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scratch:resnet81", r"timm has no architecture 'resnet81'. Did you mean 'resnet18'"),
        ("timm:resnet81.a1_in1k", r"timm has no such architecture. Did you mean 'resnet18'"),
        ("scratch:resnet18,chanels=1", r"no setting 'chanels'.* Known: in_channels|Did you mean 'in_channels'"),
        ("scratch:vit_tiny_patch16_224,poolin=mean", r"Did you mean 'pooling'"),
        ("scratch:resnet18,in_channels=grey", r"in_channels=grey: expected a whole number"),
        ("scratch:vit_tiny_patch16_224,stem=small,size=32", r"'small' is for ResNets and DenseNets; vit_tiny"),
        ("runs/nowhere", r"runs/nowhere: this is no backbone .* Pretrain one with"),
    ],
)
def test_a_wrong_name_is_refused_with_advice(spec, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(spec)


def test_the_backbone_of_a_run_that_has_not_finished_is_called_so(tmp_path):
    (tmp_path / "recipe.yaml").write_text("train: {}")
    with pytest.raises(BackboneError, match=r"has not finished, so it has no backbone"):
        load_backbone(tmp_path / "backbone")


def test_options_that_an_architecture_refuses_are_reported_as_a_user_error():
    with pytest.raises(BackboneError, match="timm refused"):
        Architecture("resnet10t", 1, 16, options={"chanels": [1, 2]}).build(seed=0)


@pytest.mark.parametrize("spoil", ["empty folder", "no card", "foreign card"])
def test_a_folder_that_is_no_backbone_is_refused(tmp_path, saved, spoil):
    if spoil == "empty folder":
        saved = tmp_path / "empty"
        saved.mkdir()
    elif spoil == "no card":
        (saved / "card.json").unlink()
    else:
        (saved / "card.json").write_text(json.dumps({"kind": "store"}))
    with pytest.raises(BackboneError, match=r"this is (no|not a) backbone"):
        load_backbone(saved)


@pytest.mark.parametrize("left", [0, 100, 0.5, -1])
def test_truncated_weights_are_refused(saved, left):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(BackboneError, match=r"model.safetensors: cannot be loaded"):
        load_backbone(saved)


def test_missing_weights_are_refused(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"model.safetensors: cannot be loaded"):
        load_backbone(saved)


def test_a_card_of_a_newer_schema_is_refused(saved):
    card = json.loads((saved / "card.json").read_text())
    (saved / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(BackboneError, match="schema 99, this version reads 1"):
        load_backbone(saved)


def test_a_card_comes_back_as_it_was_written(saved):
    backbone = load_backbone(saved)
    assert BackboneCard.load(saved) == backbone.card
    assert json.loads((saved / "card.json").read_text()) == backbone.card.to_json()
    assert backbone.architecture == RESNET == Architecture.from_card(backbone.card)


def test_a_damaged_card_is_refused(saved):
    card = json.loads((saved / "card.json").read_text())
    del card["feature_dim"]
    (saved / "card.json").write_text(json.dumps(card))
    with pytest.raises(BackboneError, match="feature_dim"):
        load_backbone(saved)


def test_weights_of_another_architecture_are_refused_by_the_first_tensors_that_differ(tmp_path, saved):
    card = json.loads((saved / "card.json").read_text())
    (saved / "card.json").write_text(json.dumps({**card, "options": {**card["options"], "stem_width": 16}}))
    with pytest.raises(
        BackboneError, match=r"does not belong to this card: conv1.0.weight is of shape .* more"
    ) as error:
        load_backbone(saved)
    assert len(str(error.value)) < 500


def test_scratch_of_a_folder_takes_its_settings_from_the_card(saved):
    with pytest.raises(BackboneError, match="leave out seed=1"):
        load_backbone(f"scratch:{saved},seed=1")


def test_the_scratch_of_a_folder_is_what_its_seed_began_with(tmp_path):
    save_backbone(new_backbone(seed=4, pretraining_seed=4), tmp_path / "b")
    assert load_backbone(f"scratch:{tmp_path / 'b'}").id == load_backbone(tmp_path / "b").id  # it was never trained
