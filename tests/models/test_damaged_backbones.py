"""Damaged and hostile backbones: refused in words, before memory is asked for and without loading anything else."""

import json
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.faults import ANYTHING, flip, keys_in, replaced, rewrite

from ssl_transfer.data.intensity import Intensity
from ssl_transfer.errors import BackboneError, SslTransferError
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone, load_backbone, save_backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.models.tensor_files import stored_digest
from ssl_transfer.run import write_json

RESNET = Architecture("resnet10t", 1, 16, options={"channels": [8, 16, 32, 64], "stem_width": 8})


def new_backbone() -> Backbone:
    model = RESNET.build(0)
    return Backbone(model, new_card("made up", RESNET, model, Intensity())).eval()


@pytest.fixture
def saved(tmp_path):
    save_backbone(new_backbone(), tmp_path / "backbone")
    return tmp_path / "backbone"


def test_weights_with_one_flipped_bit_are_not_those_of_the_card(saved):
    flip(saved / "model.safetensors", -3)
    with pytest.raises(BackboneError, match="these are not the weights of its card"):
        load_backbone(saved)


def test_the_folder_of_a_run_names_its_backbone(saved):
    with pytest.raises(BackboneError, match=f"this is a run. Name its backbone: {saved}"):
        load_backbone(saved.parent)


@pytest.mark.parametrize("change", [{"architecture": "resnet14t"}, {"in_channels": 3}])
def test_weights_of_another_architecture_do_not_belong_to_the_card(saved, change):
    if "in_channels" in change:
        change["intensity"] = {"window_hu": [-160, 240], "mean": [0.5] * 3, "std": [0.2] * 3}
    rewrite(saved / "card.json", **change)
    with pytest.raises(BackboneError, match="does not belong to this card"):
        load_backbone(saved)


def test_weights_that_would_fit_another_stem_are_not_those_of_the_card(saved):
    rewrite(saved / "card.json", stem="small")
    with pytest.raises(BackboneError, match="these are not the weights of its card"):
        load_backbone(saved)


@pytest.mark.parametrize(
    "options",
    [
        {"channels": [10**6, 16, 32, 64], "stem_width": 8},
        {"channels": [8, 16, 32, 10**9], "stem_width": 8},
        {"layers": [20] * 4},
        {"num_classes": 10**9},
        {"stem_width": "x"},
        {"block": None},
        {"act_layer": "no such"},
    ],
    ids=str,
)
def test_options_that_ask_for_any_memory_are_refused_by_the_header_of_the_weights(saved, options):
    rewrite(saved / "card.json", options=options)
    with pytest.raises(BackboneError):
        load_backbone(saved)


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"])
def test_an_option_that_loads_something_is_refused(saved, option, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(tmp_path / "PWNED")))
    rewrite(saved / "card.json", options={**RESNET.options, option: str(tmp_path / "evil.pth")})
    with pytest.raises(BackboneError, match=f"backbone.options.{option}: this loads something"):
        load_backbone(saved)
    assert not (tmp_path / "PWNED").exists()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("where", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("card", [True, False])
def test_a_pickle_in_the_place_of_weights_is_never_executed(saved, tmp_path, where, card):
    """In a backbone of ours, and in a folder of public weights."""
    (saved / where).write_bytes(pickle.dumps(Evil(tmp_path / "PWNED")))
    if where != "model.safetensors":
        (saved / "model.safetensors").unlink()
    if not card:
        (saved / "card.json").unlink()
        config = json.loads((saved / "config.json").read_text())
        write_json(saved / "config.json", {key: value for key, value in config.items() if key != "made_by"})
    with pytest.raises(BackboneError):
        load_backbone(saved, in_channels=1, size=16)
    assert not (tmp_path / "PWNED").exists()


def test_public_weights_whose_configuration_loads_something_are_refused(saved, tmp_path):
    (saved / "card.json").unlink()
    config = json.loads((saved / "config.json").read_text())
    config.pop("made_by")
    config["model_args"]["checkpoint_path"] = str(tmp_path / "evil.pth")
    write_json(saved / "config.json", config)
    with pytest.raises(BackboneError, match=r"config\.json: model_args\.checkpoint_path loads something else"):
        load_backbone(saved, in_channels=1, size=16)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:4],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: (2**60).to_bytes(8, "little") + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: content[:8] + bytes(200) + content[208:],
        lambda content: b"PK\x03\x04" + content,
    ],
)
def test_damaged_weights_are_refused_in_words(saved, damage):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BackboneError, match=r"model\.safetensors: cannot be loaded: .*Pretrain again"):
        load_backbone(saved)


def test_a_card_that_promises_another_number_of_features_is_refused(saved):
    rewrite(saved / "card.json", feature_dim=65)
    with pytest.raises(BackboneError, match="feature_dim: found 65, measured 64"):
        load_backbone(saved)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_a_card_with_any_other_value_loads_or_is_refused_in_words(saved, data):
    path = saved / "card.json"
    content = json.loads(path.read_text())
    try:
        keys = data.draw(st.sampled_from(list(keys_in(content))))
        write_json(path, replaced(content, keys, data.draw(ANYTHING)))
        load_backbone(saved)
    except SslTransferError as error:
        assert "backbone" in str(error) and len(str(error)) < 1500
    finally:
        write_json(path, content)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_backbone_whose_weights_are_not_finite_is_not_saved(tmp_path, value):
    backbone = new_backbone()
    backbone.model.state_dict()["conv1.0.weight"][0, 0, 0, 0] = value
    with pytest.raises(BackboneError, match=r"b: not saved: conv1\.0\.weight is NaN or infinite.* --resume never"):
        save_backbone(backbone, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_the_digest_of_a_file_is_that_of_its_tensors_in_half_precision_too(tmp_path):
    backbone = new_backbone()
    backbone.model.to(torch.bfloat16)
    save_backbone(backbone, tmp_path / "half")
    assert stored_digest(tmp_path / "half/model.safetensors", backbone.card) == backbone.id
