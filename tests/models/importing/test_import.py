"""The import of a checkpoint: what its card states, what is refused and how, and that no code of a checkpoint runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from support import reference_hf as hf
from support import reference_programs as programs
from support.command_line import ssl_transfer
from support.reference_checkpoints import TINY_RESNET, TINY_VIT, TinyResNet, randomised, resnet, vit

from ssl_transfer.cards import BackboneCard
from ssl_transfer.errors import BackboneError, RecipeError, UnreachableError, UsageError
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.importing.checkpoint import read_checkpoint
from ssl_transfer.models.importing.hub import fetch, parse_hub
from ssl_transfer.models.importing.stage import import_backbone
from ssl_transfer.verification.stage import verify


def saved(tmp_path, content, name="checkpoint.pth"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


@pytest.fixture
def tiny(tmp_path):
    """A plain state dict of the ResNet."""
    return saved(tmp_path, resnet()[0])


# The card


def test_the_card_states_the_origin_and_the_counts(tmp_path):
    path = programs.moco().write(tmp_path)
    options = {"as_": TINY_RESNET, "domain": "ct/thorax + mr", "licence": "cc-by-nc-4.0", "window": (-1000, 400)}
    answer = import_backbone(path, tmp_path / "backbone", name="MoCo on CT", **options)
    card = BackboneCard.load(tmp_path / "backbone")
    assert card.origin is not None and card.origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = len(resnet()[0])
    assert (card.origin.layout, card.origin.state_dict) == ("moco", "state_dict")
    assert (card.origin.matched, card.origin.missing) == (tensors, 0)
    assert answer["ignored"] == {"projection head": 4, "momentum encoder": tensors, "queue": 2}
    assert card.origin.ignored == sum(answer["ignored"].values())
    assert (card.name, card.source_domain, card.method) == ("MoCo on CT", "ct/thorax + mr", "moco")
    assert (card.licence, card.intensity.window_hu, card.images) == ("cc-by-nc-4.0", (-1000, 400), None)
    assert verify(tmp_path / "backbone")["ok"]


def test_what_is_not_known_is_unknown(tiny, tmp_path):
    import_backbone(tiny, tmp_path / "backbone", as_=TINY_RESNET)
    card = BackboneCard.load(tmp_path / "backbone")
    assert (card.source_domain, card.method, card.licence) == ("unknown", "unknown", "unknown")


def test_public_weights_are_known_by_the_name_of_their_file(tmp_path):
    path = saved(tmp_path, resnet()[0], "RadImageNet-ResNet50_notop.pth")
    import_backbone(path, tmp_path / "known", as_=TINY_RESNET)
    assert BackboneCard.load(tmp_path / "known").source_domain == "ct + mr + ultrasound"
    import_backbone(path, tmp_path / "stated", as_=TINY_RESNET, domain="xray", method="byol")
    card = BackboneCard.load(tmp_path / "stated")
    assert (card.source_domain, card.method) == ("xray", "byol")


def test_the_same_import_is_there_already_and_another_is_refused(tiny, tmp_path):
    first = import_backbone(tiny, tmp_path / "backbone", as_=TINY_RESNET)
    again = import_backbone(tiny, tmp_path / "backbone", as_=TINY_RESNET)
    assert again == {key: value for key, value in first.items() if key != "ignored"}
    with pytest.raises(UsageError, match=r"already holds run .* Give another --out"):
        import_backbone(tiny, tmp_path / "backbone", as_=TINY_RESNET, domain="ct")


def test_counters_of_batch_norm_that_old_checkpoints_lack_are_counted(tmp_path):
    tensors, features = resnet()
    old = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    answer = import_backbone(saved(tmp_path, old), tmp_path / "backbone", as_=TINY_RESNET)
    assert answer["origin"]["missing"] == len(tensors) - len(old) > 0
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(load_backbone(tmp_path / "backbone")(images), features(images), atol=1e-5)


def test_weights_of_half_precision_become_float32(tmp_path):
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in resnet()[0].items()}
    import_backbone(saved(tmp_path, tensors), tmp_path / "backbone", as_=TINY_RESNET)
    assert load_backbone(tmp_path / "backbone").model.conv1.weight.dtype == torch.float32


def test_grey_weights_have_one_mean(tmp_path):
    tensors = dict(resnet()[0])
    tensors["conv1.weight"] = tensors["conv1.weight"].sum(1, keepdim=True)
    del tensors["bn1.num_batches_tracked"]
    answer = import_backbone(saved(tmp_path, tensors), tmp_path / "backbone", as_=TINY_RESNET)
    assert answer["in_channels"] == 1
    assert answer["intensity"]["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]


# Mean and standard deviation: who states them


def intensity(reference, tmp_path, **options):
    answer = import_backbone(reference.write(tmp_path), tmp_path / "backbone", as_=reference.as_, **options)
    return answer["intensity"]["mean"], answer["intensity"]["std"], answer["origin"]["preprocessing"]


def test_the_data_preprocessor_of_mmpretrain_is_divided_by_255(tmp_path):
    mean, std, source = intensity(programs.mmpretrain(), tmp_path)
    assert mean == pytest.approx([0.485, 0.456, 0.406]) and std == pytest.approx([0.229, 0.224, 0.225])
    assert source == "data_preprocessor of the checkpoint, divided by 255"


def test_preprocessor_config_json_counts_more_than_the_layout(tmp_path):
    reference = hf.hf_dinov2()
    stated = {"image_mean": [0.5307] * 3, "image_std": [0.2583] * 3}
    beside = {**reference.beside, "preprocessor_config.json": stated}
    assert intensity(replace(reference, beside=beside), tmp_path) == (
        [0.5307] * 3,
        [0.2583] * 3,
        "preprocessor_config.json",
    )


def test_options_count_most(tmp_path):
    mean, std, source = intensity(programs.mmpretrain(), tmp_path, mean=(0.5,), std=(0.25, 0.26, 0.27))
    assert (mean, std, source) == ([0.5] * 3, [0.25, 0.26, 0.27], "--mean and --std")


@pytest.mark.parametrize(
    ("make", "mean"),
    [(programs.simclr, [0.0] * 3), (programs.radimagenet, [0.5] * 3), (programs.swav, [0.485, 0.456, 0.406])],
)
def test_else_the_default_of_the_layout_counts_and_is_named(make, mean, tmp_path):
    reference = make()
    found, _, source = intensity(reference, tmp_path)
    assert (found, source) == (mean, f"default of the layout {reference.layout}")


def test_dinov3_of_satellite_images_is_known_by_its_file(tmp_path):
    reference = hf.dinov3()
    path = reference.write(tmp_path).rename(tmp_path / "dinov3_vitl16_pretrain_sat493m-eadcf0ff.pth")
    answer = import_backbone(path, tmp_path / "backbone", as_=reference.as_)
    assert answer["intensity"]["mean"] == [0.430, 0.411, 0.296] and answer["source_domain"] == "satellite"


# The architecture


def test_a_size_resamples_the_positions_of_a_vit(tmp_path):
    path = saved(tmp_path, vit()[0])
    answer = import_backbone(path, tmp_path / "backbone", as_=TINY_VIT, size=64)
    assert (answer["image_size"], answer["adapted"]) == (64, ["pos_embed: 5 → 17 positions"])
    assert load_backbone(tmp_path / "backbone")(torch.zeros(1, 3, 64, 64)).shape == (1, 32)


def test_a_bias_of_zeros_may_be_absent_from_dinov3(tmp_path):
    reference = hf.dinov3()
    assert reference.as_ is not None
    without = reference.as_.replace("_qkvb", "")
    with pytest.raises(BackboneError, match=r"4 left over \(blocks\.0\.attn\.q_bias"):
        import_backbone(reference.write(tmp_path), tmp_path / "backbone", as_=without)
    zero = {name: tensor * 0 if name.endswith("qkv.bias") else tensor for name, tensor in reference.tensors.items()}
    import_backbone(reference.write(tmp_path, zero), tmp_path / "without", as_=without)
    import_backbone(reference.write(tmp_path, zero), tmp_path / "with", as_=reference.as_)
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            load_backbone(tmp_path / "without")(images), load_backbone(tmp_path / "with")(images)
        )


def test_a_resnet_is_found_without_its_name(tmp_path):
    from torchvision.models import resnet18

    path = saved(tmp_path, resnet18(weights=None).state_dict())
    answer = import_backbone(path, tmp_path / "backbone")
    assert (answer["architecture"], answer["ignored"]) == ("resnet18", {"classifier": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"as_": "resnet50"},
            r"layout torchvision: \d+ tensors of resnet50 matched, 0 ignored, \d+ missing \(.*in place of resnet50",
        ),
        ({"as_": "resnet05"}, r"--as resnet05: timm has no architecture 'resnet05'. Did you mean"),
        ({"as_": f"{TINY_RESNET},dept"}, r"'dept' has no value. Write dept=VALUE"),
        ({"as_": f"{TINY_RESNET},dept=3"}, r"timm refused"),
        ({"as_": f"{TINY_RESNET},stem=huge"}, r"expected standard or small"),
        ({"layout": "moko"}, r"--layout moko: no such layout. Did you mean 'moco'"),
        (
            {"layout": "moco", "as_": TINY_RESNET},
            r"layout moco: 0 tensors .*0 ignored, \d+ missing .* left over \(conv1.weight",
        ),
        ({"state_dict": "teacher"}, r"--state-dict teacher: not there"),
    ],
)
def test_a_wrong_option_is_refused_with_what_to_type(tiny, options, message, tmp_path):
    with pytest.raises(BackboneError, match=message):
        import_backbone(tiny, tmp_path / "backbone", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"domain": "rongten"}, RecipeError, "no modality is called 'rongten'"),
        ({"window": (40, 400, 1)}, UsageError, "expected LOW,HIGH in HU"),
        ({"std": (0.5, 0, 0.5)}, UsageError, "expected values above 0"),
        ({"mean": (0.5, 0.5)}, BackboneError, "found 2 values for 3 input channels"),
    ],
)
def test_an_impossible_value_is_refused(tiny, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        import_backbone(tiny, tmp_path / "backbone", as_=TINY_RESNET, **options)


def test_a_small_stem_is_not_guessed_and_can_be_stated(tmp_path):
    tensors = {**resnet()[0], "conv1.weight": torch.randn(64, 3, 3, 3)}
    path = saved(tmp_path, tensors)
    with pytest.raises(BackboneError, match=r"A first convolution of 3 x 3 is --as resnet18,stem=small"):
        import_backbone(path, tmp_path / "backbone", as_=TINY_RESNET)
    assert import_backbone(path, tmp_path / "backbone", as_=f"{TINY_RESNET},stem=small", size=32)["image_size"] == 32


def test_the_student_is_taken_if_it_is_asked_for(tmp_path):
    path = programs.dino().write(tmp_path)
    weights = {}
    for part in ("teacher", "student"):
        answer = import_backbone(path, tmp_path / part, as_=TINY_VIT, state_dict=part)
        assert answer["origin"]["state_dict"] == part
        weights[part] = load_backbone(tmp_path / part).model.norm.weight
    assert torch.allclose(weights["student"], weights["teacher"] + 1)


def test_tensors_that_no_layout_knows_are_refused_with_their_names(tmp_path):
    path = saved(tmp_path, {"alpha.beta": torch.zeros(3), "gamma": torch.zeros(2)})
    with pytest.raises(
        BackboneError, match=r"no layout has tensors called alpha.beta, gamma, … \(2\). Give a --layout"
    ):
        import_backbone(path, tmp_path / "backbone")


@pytest.mark.parametrize(
    ("make", "key", "value"),
    [
        (hf.hf_dinov3, "rope_theta", 50.0),
        (hf.hf_vit, "hidden_act", "quick_gelu"),
        (hf.hf_dinov2, "layer_norm_eps", 0.01),
    ],
)
def test_a_config_with_other_functions_than_those_of_timm_is_refused(make, key, value, tmp_path):
    reference = make()
    config = {**reference.beside["config.json"], key: value}
    with pytest.raises(BackboneError, match=rf"config.json: {key}: found {value}, and timm's architecture has"):
        import_backbone(replace(reference, beside={"config.json": config}).write(tmp_path), tmp_path / "backbone")


# Files that would execute code, and damaged ones


class Planted:
    """A pickled object that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    path = saved(tmp_path, {"state_dict": resnet()[0], "hook": Planted(tmp_path / "executed")})
    with pytest.raises(BackboneError, match="may execute any code"):
        import_backbone(path, tmp_path / "backbone")
    assert not (tmp_path / "executed").exists()


def test_a_pickled_module_is_refused_and_the_command_in_the_message_converts_it(tmp_path, monkeypatch):
    model = randomised(TinyResNet())
    path = saved(tmp_path, {"epoch": 3, "model": model, "optimizer": {"lr": 0.1}})
    with pytest.raises(BackboneError, match=r"holds Python objects .* beside tensors") as refused:
        import_backbone(path, tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r'python -c "(.*)"', str(refused.value))[1], {})
    answer = import_backbone(tmp_path / "converted.pth", tmp_path / "backbone", as_=TINY_RESNET)
    assert answer["origin"]["state_dict"] == "model"
    assert torch.equal(load_backbone(tmp_path / "backbone").model.conv1.weight, model.conv1.weight)


def test_a_torchscript_program_is_refused_and_the_command_in_the_message_converts_it(tmp_path, monkeypatch):
    path = tmp_path / "script.pt"
    torch.jit.trace(randomised(TinyResNet()), torch.zeros(1, 3, 32, 32)).save(str(path))
    with pytest.raises(BackboneError, match="is a TorchScript program") as refused:
        import_backbone(path, tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    exec(re.search(r'python -c "(.*)"', str(refused.value))[1], {})
    assert import_backbone(tmp_path / "converted.pth", tmp_path / "backbone", as_=TINY_RESNET)["ignored"] == {
        "classifier": 2
    }


@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
def test_a_truncated_file_is_refused(name, tmp_path):
    path = tmp_path / name
    save_file(resnet()[0], path) if name.endswith("safetensors") else torch.save(resnet()[0], path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BackboneError, match="Copy it again"):
        import_backbone(path, tmp_path / "backbone")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html>not found</html>", "Copy it again"), (b"", "Copy it again"), (None, "no such file")],
)
def test_a_file_of_another_kind_is_refused(content, message, tmp_path):
    if content is not None:
        (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(BackboneError, match=message):
        import_backbone(tmp_path / "checkpoint.pth", tmp_path / "backbone")


def test_a_checkpoint_without_names_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="no tensors with names: found list"):
        import_backbone(saved(tmp_path, [torch.zeros(3)]), tmp_path / "backbone")


# Folders and the hub


def test_weights_in_several_files_are_read_by_their_index(tmp_path):
    reference = hf.hf_dinov2()
    folder = reference.write(tmp_path / "public")
    whole = read_checkpoint(folder)
    names = list(reference.tensors)
    parts = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: reference.tensors[name].contiguous() for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    split = read_checkpoint(folder)
    assert split.state_dicts[""].keys() == whole.state_dicts[""].keys() and split.sha256 != whole.sha256
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"model-2.safetensors: there is no such file"):
        read_checkpoint(folder)


def test_the_licence_is_that_of_the_model_card(tmp_path):
    reference = hf.hf_dinov2()
    folder = reference.write(tmp_path / "public")
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: msrla\ntags: [x]\n---\n# A model\nlicense: mit\n"
    )
    assert import_backbone(folder, tmp_path / "backbone")["licence"] == "msrla"


def test_a_folder_with_several_checkpoints_asks_for_one(tmp_path):
    for name in ("a.pth", "b.pth"):
        saved(tmp_path, resnet()[0], name)
    with pytest.raises(BackboneError, match=r"found a.pth, b.pth; expected one. Name the file"):
        import_backbone(tmp_path, tmp_path / "backbone")


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A repository in the cache of the hub, and no network."""
    folder = hf.hf_dinov2().write(tmp_path / "cache/models--owner--name/snapshots/abc123")
    (refs := tmp_path / "cache/models--owner--name/refs").mkdir()
    (refs / "main").write_text("abc123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


def test_a_repository_of_the_hub_is_read_from_its_cache(cached, tmp_path):
    found, file = fetch(parse_hub("hf-hub:owner/name@main"))
    assert (found, file) == (cached, None)
    answer = import_backbone("hf-hub:owner/name", tmp_path / "backbone")
    assert (answer["name"], answer["origin"]["source"]) == ("owner/name", "hf-hub:owner/name")


@pytest.mark.parametrize("spec", ["hf-hub:owner/other", "hf-hub:owner/name@main/other.pth", "hf-hub:owner/name@v2"])
def test_what_cannot_be_fetched_is_refused_with_the_manual_way(cached, spec, tmp_path):
    with pytest.raises(UnreachableError, match=r"hf download owner/\w+ .*--local-dir FOLDER`; copy FOLDER here"):
        import_backbone(spec, tmp_path / "backbone")


@pytest.mark.parametrize("spec", ["hf-hub:owner", "hf-hub:", "hf-hub:a/b@", "hf-hub:../a"])
def test_a_name_of_another_form_is_refused(spec):
    with pytest.raises(BackboneError, match="expected hf-hub:OWNER/NAME"):
        parse_hub(spec)


# The command


def test_the_command_prints_the_counts_and_the_backbone_can_be_used(tmp_path, ct_store):
    programs.moco().write(tmp_path)
    words = (
        "import",
        "checkpoint.pth",
        "--as",
        TINY_RESNET,
        "--domain",
        "ct",
        "--window=-160,240",
        "--mean",
        "0.5",
        "--std",
        "0.2",
    )
    answer = ssl_transfer(*words, "--out", "backbone", folder=tmp_path)
    assert answer.status == 0, answer.stderr
    assert re.search(
        r"tensors: \d+ matched, \d+ ignored \(4 projection head, \d+ momentum encoder, 2 queue\), 0 missing",
        answer.stdout,
    )
    assert "input: mean 0.5 0.5 0.5, std 0.2 0.2 0.2 (--mean and --std); CT window -160 240 HU" in answer.stdout
    assert ssl_transfer("features", "backbone", ct_store.path, "--json", folder=tmp_path).json["shape"][1] == 64


def test_the_command_refuses_with_one_sentence(tmp_path):
    programs.moco().write(tmp_path)
    answer = ssl_transfer("import", "checkpoint.pth", "--as", "resnet50", "--out", "backbone", folder=tmp_path)
    assert answer.status == 2 and answer.stderr.startswith("BackboneError: checkpoint.pth: layout moco of state_dict: ")
    assert "Nothing was written" in answer.stderr and not (tmp_path / "backbone").exists()
