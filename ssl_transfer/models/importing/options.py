"""The options of an import, read without torch: the command line has a flag for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssl_transfer.domains import UNKNOWN, Domain
from ssl_transfer.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What is known of a checkpoint, where it does not say so itself.

    Args:
        as_: architecture in timm, with options where they differ, such as vit_small_patch16_224,num_heads=12 or
            resnet18,stem=small (default: that of the config beside the file, else the first one of the layout that fits)
        layout: name of the layout (default: recognised by the names of the tensors)
        state_dict: path of the state dict in the checkpoint, such as student (default: the one that the layout prefers)
        size: image size; the position embedding of a ViT is resampled to it (default: that of the weights)
        name: name in tables and figures (default: that of the file or repository)
        domain: domain of its training images, several joined by ' + ', such as xray (default: that of public weights by their
            name, else unknown)
        method: pretraining method, such as simclr or supervised (default: likewise, else that of the layout)
        licence: licence of the weights (default: that of the model card beside the file, else by their name)
        window: HU that become 0 and 1 in CT, written --window=-160,240 (default: soft tissue)
        mean: mean of each channel, with images scaled to 0 to 1 (default: that of the checkpoint, else of the layout)
        std: standard deviation of each channel, likewise

    Raises:
        RecipeError: If there is no such domain.
        UsageError: If a value is impossible.
    """

    as_: str | None = None
    layout: str | None = None
    state_dict: str | None = None
    size: int | None = None
    name: str | None = None
    domain: str | None = None
    method: str | None = None
    licence: str | None = None
    window: Sequence[float] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for part in (self.domain or UNKNOWN).split(" + "):
            Domain.parse(part)
        if self.window is not None and (len(self.window) != 2 or self.window[0] >= self.window[1]):
            raise UsageError(
                f"--window: found {_listed(self.window)}, expected LOW,HIGH in HU, such as --window=-160,240."
            )
        if self.std is not None and (not self.std or min(self.std) <= 0):
            raise UsageError(f"--std: found {_listed(self.std)}, expected values above 0.")
        if self.size is not None and self.size < 1:
            raise UsageError(f"--size: found {self.size}, expected pixels.")


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
