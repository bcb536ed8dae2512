"""Low-rank adapters."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from ssl_transfer.errors import RecipeError
from ssl_transfer.evaluation.strategies.strategy import Strategy
from ssl_transfer.methods.objective import Group
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.schedule import Schedule


class LoRA(Strategy):
    """Low-rank updates of a ViT's attention layers (by peft) are trained with the head; pretrained weights are frozen.

    Args:
        rank: Rank of each update. Paper: 8 is enough for most tasks (section 7.2, Table 6).
        alpha: Scale: an update is multiplied by alpha / rank (section 4.1).
        dropout: Probability of dropping an input of an update, in [0, 1); 0 here.
        layers: Linear layers that get an update, by the ends of their names in timm. Paper: attention only (section
            4.2).

    Raises:
        RecipeError: If the backbone has no such layers.

    References:
        Hu et al. 2022, https://arxiv.org/abs/2106.09685.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        schedule: Schedule,
        *,
        rank: PositiveInt = 8,
        alpha: PositiveFloat = 16.0,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        layers: tuple[str, ...] = ("qkv", "proj"),
    ):
        super().__init__(backbone, head, schedule)
        from peft import LoraConfig, inject_adapter_in_model

        names = [
            name
            for name, layer in backbone.model.named_modules()
            if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in layers
        ]
        if not names:
            raise RecipeError(
                f"strategy lora: {backbone.card.architecture} has no linear layers called {' or '.join(layers)}: it adapts "
                "the attention of ViTs. Take a ViT, name strategy.layers, or take another strategy."
            )
        backbone.requires_grad_(False)
        factor: Any = alpha  # peft declares an int, and computes with any number
        config = LoraConfig(r=rank, lora_alpha=factor, lora_dropout=dropout, target_modules=names)
        inject_adapter_in_model(config, backbone.model)
        self.adapters = {
            name: parameter for name, parameter in backbone.model.named_parameters() if parameter.requires_grad
        }

    @property
    def backbone_parameters(self) -> dict[str, nn.Parameter]:
        """The adapters."""
        return self.adapters

    def groups(self) -> list[Group]:
        """Adapters and head."""
        return [Group("adapters", list(self.adapters.values())), Group("head", list(self.head_parameters.values()))]

    def finish(self, backbone: Backbone) -> None:
        """Merge the updates into the pretrained weights, and restore the original layers."""
        from peft.tuners.lora import LoraLayer

        for name, layer in list(backbone.model.named_modules()):
            if isinstance(layer, LoraLayer):
                layer.merge(safe_merge=True)
                parent, _, child = name.rpartition(".")
                setattr(backbone.model.get_submodule(parent), child, layer.get_base_layer())
