"""Exports load in their home library, strictly, and compute the same features there."""

import json
import runpy

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from support.exported import features_of, images_for, randomised

from ssl_transfer.errors import BackboneError
from ssl_transfer.export import torchvision_weights
from ssl_transfer.export.stage import export_backbone
from ssl_transfer.models.backbone import load_backbone

SMALL = "resnet18,in_channels=1,size=16,stem=small"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
pytestmark = pytest.mark.usefixtures("one_thread")


def without_gradients(model, images):
    with torch.no_grad():
        return model.eval()(images)


def in_torchvision(name, head, folder):
    """torchvision's own model with the exported tensors, the classifier replaced."""
    model = getattr(torchvision.models, name)()
    parent, _, last = head.rpartition(".")
    setattr(model.get_submodule(parent), last, torch.nn.Identity())
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model


@pytest.mark.parametrize(
    ("architecture", "name", "head", "size"),
    [
        ("resnet18", "resnet18", "fc", 32),
        ("densenet121", "densenet121", "classifier", 32),
        ("mobilenetv2_100", "mobilenet_v2", "classifier.1", 32),
        pytest.param("efficientnet_b0", "efficientnet_b0", "classifier.1", 64, marks=pytest.mark.long),
        pytest.param("convnext_tiny", "convnext_tiny", "classifier.2", 32, marks=pytest.mark.long),
        pytest.param("resnext50_32x4d", "resnext50_32x4d", "fc", 32, marks=pytest.mark.long),
        pytest.param("vgg11", "vgg11", "classifier.6", 32, marks=pytest.mark.long),
        pytest.param("vgg11_bn", "vgg11_bn", "classifier.6", 64, marks=pytest.mark.long),
        pytest.param("vit_base_patch32_224", "vit_b_32", "heads.head", 224, marks=pytest.mark.long),
    ],
)
def test_torchvision_s_own_model_takes_every_tensor_and_gives_equal_features(architecture, name, head, size, tmp_path):
    backbone = randomised(f"{architecture},in_channels=3,size={size}")
    answer = export_backbone(backbone, "torchvision", tmp_path / "out")
    images = images_for(backbone)
    found = without_gradients(in_torchvision(name, head, tmp_path / "out"), images)
    assert torch.allclose(found, features_of(backbone, images), **CLOSE)
    assert answer["largest_difference"] < 1e-4 * max(1, float(found.abs().max()))


@pytest.mark.parametrize(
    ("spec", "to"),
    [
        (SMALL, "torchvision"),
        (SMALL, "monai"),
        ("densenet121,in_channels=2,size=32,stem=small", "torchvision"),
        pytest.param("vit_base_patch32_224,in_channels=1,size=64", "torchvision", marks=pytest.mark.long),
    ],
)
def test_small_stems_and_other_channels_are_built_by_the_script_of_the_export(spec, to, tmp_path):
    backbone = randomised(spec)
    export_backbone(backbone, to, tmp_path / "out")
    images = images_for(backbone)
    found = without_gradients(runpy.run_path(str(tmp_path / "out/load.py"))["load"](), images)
    found = found[-1].mean((2, 3)) if to == "monai" else found
    assert torch.allclose(found, features_of(backbone, images), **CLOSE)


@pytest.mark.parametrize("change", ["renamed", "dropped"])
def test_a_renamed_or_dropped_tensor_is_an_error_in_torchvision(change, tmp_path):
    export_backbone(randomised("resnet18,in_channels=3,size=32"), "torchvision", tmp_path / "out")
    tensors = load_file(tmp_path / "out/model.safetensors")
    tensor = tensors.pop("layer2.0.conv1.weight")
    save_file(
        tensors | ({"layer2.0.conv9.weight": tensor} if change == "renamed" else {}), tmp_path / "out/model.safetensors"
    )
    with pytest.raises(RuntimeError, match=r"layer2\.0\.conv1\.weight"):
        in_torchvision("resnet18", "fc", tmp_path / "out")


def test_an_export_that_computes_other_features_is_refused_and_not_written(tmp_path, monkeypatch):
    def exchanged(*arguments):
        tensors = dict(in_order(*arguments))
        first, second = "layer1.0.bn1.weight", "layer1.0.bn2.weight"
        tensors[first], tensors[second] = tensors[second], tensors[first]
        return tensors

    in_order = torchvision_weights.in_order
    monkeypatch.setattr(torchvision_weights, "in_order", exchanged)
    with pytest.raises(BackboneError, match="torchvision computes other features"):
        export_backbone(randomised("resnet18,in_channels=1,size=32"), "torchvision", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "to", "message"),
    [
        ("test_vit,in_channels=1,size=160", "torchvision", "no model with the layers of test_vit. It has resnet18"),
        ("test_vit,in_channels=1,size=160", "monai", "MONAI has no model with the layers of test_vit"),
        ("efficientnet_b0,in_channels=1,size=32", "monai", "pads as tf_efficientnet_b0 does"),
        ("densenet121,in_channels=1,size=32,stem=small", "monai", "small-image stem.*--to torchvision"),
        (SMALL, "timm", "timm cannot build the small-image stem"),
        (SMALL, "hf", "timm cannot build the small-image stem"),
    ],
)
def test_what_a_library_does_not_have_is_refused_with_what_has_it(spec, to, message, tmp_path):
    with pytest.raises(BackboneError, match=message):
        export_backbone(f"scratch:{spec}", to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("spec", ["test_resnet,in_channels=1,size=32", "test_vit,in_channels=2,size=160"])
@pytest.mark.parametrize("to", ["timm", "hf"])
def test_plain_timm_loads_the_folder(spec, to, tmp_path):
    backbone = randomised(spec)
    export_backbone(backbone, to, tmp_path / "out")
    images = images_for(backbone)
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert torch.allclose(without_gradients(model, images), features_of(backbone, images), **CLOSE)
    assert load_backbone(tmp_path / "out").id == backbone.id


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        "test_vit,in_channels=3,size=160",
        "test_convnext,in_channels=1,size=64",
        pytest.param("vgg11,in_channels=1,size=32", marks=pytest.mark.long),  # by the second exporter
    ],
)
def test_onnxruntime_gives_equal_features_for_any_number_of_images(spec, tmp_path):
    import onnx
    import onnxruntime

    backbone = randomised(spec)
    export_backbone(backbone, "onnx", tmp_path / "out")
    graph = str(tmp_path / "out/model.onnx")
    onnx.checker.check_model(onnx.load(graph), full_check=True)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        images = images_for(backbone, count)
        (found,) = session.run(None, {"images": images.numpy()})
        assert np.allclose(found, features_of(backbone, images).numpy(), **CLOSE)


@pytest.mark.parametrize(
    "spec",
    [
        "resnet18,in_channels=1,size=64",
        pytest.param("resnet50,in_channels=1,size=64", marks=pytest.mark.long),
        pytest.param("tf_efficientnet_b0,in_channels=1,size=64", marks=pytest.mark.long),
    ],
)
def test_monai_s_flexible_unet_has_the_encoder(spec, tmp_path):
    backbone = randomised(spec)
    export_backbone(backbone, "monai", tmp_path / "out")
    script = runpy.run_path(str(tmp_path / "out/load.py"))
    unet, images = script["flexible_unet"](out_channels=2).eval(), images_for(backbone, 2)
    assert without_gradients(unet, images).shape == (2, 2, 64, 64)
    maps, expected = without_gradients(unet.encoder, images), backbone.model.eval()
    with torch.no_grad():
        last = expected.forward_features(images)
    if spec.startswith("resnet"):
        assert torch.allclose(maps[-1], last, **CLOSE)
    else:  # MONAI's maps are those before the last convolution, which only its classifier uses
        assert torch.allclose(without_gradients(script["load"](), images), features_of(backbone, images), **CLOSE)
    assert len(maps) == 5


@pytest.mark.long
def test_monai_s_own_resnet50_encoder_takes_every_tensor(tmp_path):
    from monai.networks.nets import FlexibleUNet

    backbone = randomised("resnet50,in_channels=1,size=64")
    export_backbone(backbone, "monai", tmp_path / "out")
    unet = FlexibleUNet(1, 2, "resnet50", pretrained=False, spatial_dims=2)
    unet.encoder.load_state_dict(load_file(tmp_path / "out/model.safetensors"), strict=True)
    images = images_for(backbone)
    found = without_gradients(unet.encoder, images)[-1].mean((2, 3))
    assert torch.allclose(found, features_of(backbone, images), **CLOSE)


def test_monai_s_densenet_takes_every_tensor(tmp_path):
    from monai.networks.nets import DenseNet121

    backbone = randomised("densenet121,in_channels=1,size=32")
    export_backbone(backbone, "monai", tmp_path / "out")
    model = DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)
    model.class_layers.out = torch.nn.Identity()
    model.load_state_dict(load_file(tmp_path / "out/model.safetensors"), strict=True)
    images = images_for(backbone)
    assert torch.allclose(without_gradients(model, images), features_of(backbone, images), **CLOSE)


def test_every_export_has_its_preprocessing_as_json_and_in_words(exported, licensed):
    _, folder, answer = exported
    plan, intensity = json.loads((folder / "preprocessing.json").read_text()), licensed.card.intensity
    assert (plan["channels"], plan["size"], plan["features"]) == (1, [32, 32], 512)
    assert plan["intensity"]["hu"] == list(intensity.window_hu)
    assert (plan["mean"], plan["std"]) == (list(intensity.mean), list(intensity.std))
    assert plan["pooling"] == "avg" and "not resampled" in plan["spacing"] and "canonical" in plan["orientation"]
    readme = (folder / "README.md").read_text()
    for sentence in (
        "from -160 (0) to 240 (1)",
        "resize to 32 × 32",
        "Subtract 0.5 and divide by 0.25",
        "pooling `avg`",
    ):
        assert sentence in readme
    assert {"README.md", "preprocessing.json", "export.json"} < set(answer["files"])


def test_the_python_of_the_readme_runs(exported):
    code = (exported[1] / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert "session" in names or isinstance(names["backbone"], torch.nn.Module)
