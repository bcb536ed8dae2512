"""Blocks of a model from input to output, as timm groups them, and training with some of them frozen."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from timm.models import group_parameters
from torch import nn

from ssl_transfer.models.architecture import TimmModel


class Block(NamedTuple):
    """Consecutive layers that fine-tuning treats alike.

    Attributes:
        name: Name of the layer of its first parameter, such as `layer1.0.conv1`.
        parameters: Name -> parameter.
    """

    name: str
    parameters: dict[str, nn.Parameter]

    @property
    def trainable(self) -> list[nn.Parameter]:
        """Its parameters that require a gradient."""
        return [parameter for parameter in self.parameters.values() if parameter.requires_grad]


def blocks(model: TimmModel, coarse: bool = True) -> list[Block]:
    """Group a timm model's parameters into blocks, from input to output.

    timm defines the stem and the stages of every architecture (`group_matcher`). Norms that it lists separately, as in VGG and
    at the end of a DenseNet, belong to the block before them.

    Args:
        model: Any timm model.
        coarse: Stages (a ResNet has five blocks with its stem); else single layers or residual units. For some
            architectures both are the same.
    """
    named = dict(model.named_parameters())
    grouped: list[Block] = []
    for names in group_parameters(model, model.group_matcher(coarse=coarse)).values():
        parameters = {name: named[name] for name in names}
        if grouped and all(parameter.ndim <= 1 for parameter in parameters.values()):
            grouped[-1].parameters.update(parameters)
        else:
            grouped.append(Block(names[0].rpartition(".")[0] or names[0], parameters))
    return grouped


def train_all_but(module: nn.Module, frozen: Collection[nn.Parameter]) -> None:
    """Set a module to `train` mode, and every submodule whose parameters are all frozen to `eval` mode.

    A frozen BatchNorm then keeps its statistics, and a frozen block has no dropout.
    """
    module.train()
    frozen_ids = {id(parameter) for parameter in frozen}

    def settle(part: nn.Module) -> None:
        inside = [id(parameter) in frozen_ids for parameter in part.parameters()]
        if inside and all(inside):
            part.eval()
        elif any(inside):
            for child in part.children():
                settle(child)

    settle(module)
