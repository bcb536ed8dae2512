"""Every layout: features equal those of the program that wrote the checkpoint, and no tensor may be missing or left over."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from support import reference_hf as hf
from support import reference_programs as programs
from support import reference_torchvision as torchvision
from support.command_line import ROOT
from timm.models import eva, vision_transformer

from ssl_transfer.errors import BackboneError
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.importing.architectures import best_fit, parse_spec
from ssl_transfer.models.importing.layouts import LAYOUTS
from ssl_transfer.models.importing.stage import import_backbone

REFERENCES = {
    "hf_dinov2 (transformers 4)": lambda: hf.hf_dinov2(),
    "hf_dinov2 (transformers 5)": lambda: hf.hf_dinov2(original=False),
    "hf_dinov2 with registers": lambda: hf.hf_dinov2(registers=True),
    "hf_dinov2 with gates (transformers 4)": lambda: hf.hf_dinov2(gated=True),
    "hf_dinov2 with gates (transformers 5)": lambda: hf.hf_dinov2(gated=True, original=False),
    "hf_dinov3 (transformers 4)": lambda: hf.hf_dinov3(),
    "hf_dinov3 (transformers 5)": lambda: hf.hf_dinov3(original=False),
    "hf_dinov3 with gates": lambda: hf.hf_dinov3(gated=True),
    "hf_vit (transformers 4)": lambda: hf.hf_vit(),
    "hf_vit (transformers 5)": lambda: hf.hf_vit(original=False),
    "hf_vit, MAE (transformers 4)": lambda: hf.hf_mae(),
    "hf_vit, MAE (transformers 5)": lambda: hf.hf_mae(original=False),
    "hf_resnet": hf.hf_resnet,
    "dinov2 hub": lambda: hf.dinov2(),
    "dinov2 hub with registers": lambda: hf.dinov2(registers=True),
    "dinov2 hub with gates": lambda: hf.dinov2(gated=True),
    "dinov2 training": lambda: hf.dinov2(training=True),
    "dinov2 training with registers": lambda: hf.dinov2(training=True, registers=True),
    "dinov3 hub": lambda: hf.dinov3(),
    "dinov3 hub with gates": lambda: hf.dinov3(gated=True),
    "dinov3 training": lambda: hf.dinov3(training=True),
    "open_clip": programs.open_clip,
    "vissl": programs.vissl,
    "moco": programs.moco,
    "moco_v3, ViT": programs.moco_v3,
    "moco_v3, ResNet": programs.moco_v3_resnet,
    "lightly_train_dino": programs.lightly_train_dino,
    "lightly_train": programs.lightly_train,
    "mmpretrain_vit": programs.mmpretrain_vit,
    "mmpretrain": programs.mmpretrain,
    "dino": programs.dino,
    "solo_learn": programs.solo_learn,
    "barlow_vicreg": programs.barlow,
    "simclr": programs.simclr,
    "simsiam": programs.simsiam,
    "swav": programs.swav,
    "mae": programs.mae,
    "lightly": programs.lightly,
    "lightly, MAE": programs.lightly_mae,
    "radimagenet": programs.radimagenet,
    "radimagenet, DenseNet": programs.radimagenet_densenet,
    "sequential": programs.sequential_backbone,
    "torchvision_vit": torchvision.vit,
    "torchvision_convnext": torchvision.convnext,
    "torchvision_vgg": torchvision.vgg,
    "torchvision, ResNet": torchvision.resnet_with_classifier,
    "torchvision, DenseNet": torchvision.densenet,
    "torchvision, old DenseNet": lambda: torchvision.densenet(old=True),
    "timm": programs.timm_checkpoint,
    "prefixed": programs.prefixed,
}


def test_every_layout_has_a_reference():
    assert {name.partition(" ")[0].rstrip(",") for name in REFERENCES} == {layout.name for layout in LAYOUTS}


@pytest.fixture(scope="module", params=REFERENCES)
def reference(request):
    return REFERENCES[request.param]()


def test_features_equal_those_of_the_model_that_was_saved(reference, tmp_path):
    answer = import_backbone(reference.write(tmp_path), tmp_path / "backbone", as_=reference.as_)
    assert answer["origin"]["layout"] == reference.layout
    images = torch.randn(2, 3, reference.size, reference.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = load_backbone(tmp_path / "backbone")(images)
        expected = reference.features(images).flatten(1)
    assert features.shape == expected.shape and expected.std() > 1e-3
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fault", ["renamed", "dropped"])
def test_a_checkpoint_with_a_tensor_renamed_or_dropped_is_refused_with_the_counts(reference, fault, tmp_path):
    tensors = dict(reference.tensors)
    tensor = tensors.pop(reference.tensor)
    if fault == "renamed":
        tensors[f"{reference.tensor.rpartition('.')[0]}.kernel"] = tensor
    path = reference.write(tmp_path, tensors)
    with pytest.raises(BackboneError, match=r"\d+ tensors of \w+ matched, \d+ ignored") as refused:
        import_backbone(path, tmp_path / "backbone", as_=reference.as_)
    missing, left = re.search(r"(\d+) missing.*? (\d+) left over", str(refused.value)).groups()
    assert (
        int(missing) == 1
        and (fault == "dropped" or "kernel" in str(refused.value))
        and int(left) >= (fault == "renamed")
    )
    assert "of another shape (" not in str(refused.value)
    assert not (tmp_path / "backbone").exists()


@pytest.mark.parametrize(
    ("make", "filtered"),
    [
        (lambda: hf.dinov2(registers=True), vision_transformer.checkpoint_filter_fn),
        (lambda: hf.dinov2(gated=True), vision_transformer.checkpoint_filter_fn),
        (lambda: hf.dinov3(), eva.checkpoint_filter_fn),
        (lambda: hf.dinov3(gated=True), eva.checkpoint_filter_fn),
    ],
)
def test_weights_of_dinov2_and_dinov3_become_those_that_timm_makes_of_them(make, filtered, tmp_path):
    reference = make()
    import_backbone(reference.write(tmp_path), tmp_path / "backbone", as_=reference.as_)
    ours = load_backbone(tmp_path / "backbone").model
    theirs = filtered(dict(reference.tensors), ours)
    assert set(theirs) == set(ours.state_dict())
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in theirs.items())


def test_all_architectures_of_the_table_are_timm_s():
    specs = {spec for layout in LAYOUTS for spec in layout.architectures}
    assert len(specs) > 60
    assert all(timm.is_model(parse_spec(spec).name) for spec in specs)


def test_a_layout_is_named_once_and_is_in_the_documentation():
    names = [layout.name for layout in LAYOUTS]
    assert len(names) == len(set(names)) == 30
    page = (ROOT / "docs/weights.md").read_text()
    assert [
        f"| `{layout.name}` | {layout.title} |"
        for layout in LAYOUTS
        if f"| `{layout.name}` | {layout.title} |" not in page
    ] == []


def without_memory(name, **options):
    """Tensors of ones with the names and shapes of an architecture."""
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=0, **options).state_dict()
    return {key: torch.ones(()).expand(tensor.shape) for key, tensor in shapes.items()}


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("moco", "resnet50"),
        ("dino", "vit_base_patch16_224"),
        ("hf_dinov2", "vit_base_patch14_dinov2"),
        *(
            pytest.param(*names, marks=pytest.mark.long)
            for names in (
                ("torchvision", "wide_resnet50_2"),
                ("torchvision", "densenet161"),
                ("torchvision_convnext", "convnext_small"),
                ("mae", "vit_large_patch16_224"),
                ("dino", "vit_small_patch8_224"),
                ("dinov2", "vit_large_patch14_reg4_dinov2"),
                ("dinov3", "vit_small_plus_patch16_dinov3_qkvb"),
            )
        ),
    ],
)
def test_the_architecture_is_found_by_the_shapes_of_its_tensors(layout, name):
    row = next(row for row in LAYOUTS if row.name == layout)
    size = 112 if "patch14" in name or "dinov3" in name else 224
    tensors = without_memory(name, in_chans=1, **({"img_size": size} if "vit" in name else {}))
    fit = best_fit(row.architectures, tensors, None, row.zero_biases)
    assert fit.complete and fit.architecture.name == name and fit.architecture.in_channels == 1
    assert fit.architecture.size == size or "vit" not in name or "dinov3" in name


def test_the_small_vit_of_moco_v3_has_12_heads():
    row = next(row for row in LAYOUTS if row.name == "moco_v3")
    vits = [spec for spec in row.architectures if spec.startswith("vit")]
    fit = best_fit(vits, without_memory("vit_small_patch16_224"), None, row.zero_biases)
    assert fit.architecture.options == {"num_heads": 12}
