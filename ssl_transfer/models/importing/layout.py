"""The type of checkpoint layouts, and the renaming of tensors that it describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ssl_transfer.errors import BackboneError

Tensors = dict[str, torch.Tensor]
WRAPPERS = (
    "module.",
    "_orig_mod.",
    "_forward_module.",
    "model.module.",
)  # of DistributedDataParallel, torch.compile, …
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names that a program gives to the tensors of its checkpoints, and how they become those of timm.

    Names are those without the prefixes of wrappers such as DistributedDataParallel. Patterns are regular expressions.

    Attributes:
        name: Name on the command line.
        title: Programs that write it.
        recognised: Patterns, each of which matches the beginning of the name of at least one tensor.
        prefix: Pattern of the beginning of the names of the backbone's tensors, which is removed.
        ignored: Pattern of whole names -> what these tensors are. They are no part of the backbone.
        renames: Pairs of pattern and replacement for `re.sub`, applied in this order after the prefix is removed.
        transforms: Functions of all renamed tensors, applied in this order.
        architectures: Specs of architectures that are tried, see `architectures.parse_spec`. The first that fits is taken.
        state_dicts: Patterns of the paths of its state dict in a checkpoint, the preferred one first.
        zero_biases: Pattern of biases, by names of timm, that an architecture may lack if they are 0.
        intensity: Mean and standard deviation of the input, if the checkpoint states none.
        intensity_of_files: Pattern of file names -> mean and standard deviation of the input.
        method: Pretraining method, if the layout belongs to one.
        spec: Function of the `config.json` beside the checkpoint: the spec of the architecture, None: it cannot tell.
    """

    name: str
    title: str
    recognised: tuple[str, ...]
    architectures: tuple[str, ...]
    prefix: str = ""
    ignored: Mapping[str, str] = field(default_factory=dict)
    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = ()
    transforms: tuple[Callable[[Tensors], Tensors], ...] = ()
    state_dicts: tuple[str, ...] = (r"", r"state_dict", r"model", r".*")
    zero_biases: str = r"(?!)"
    intensity: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    intensity_of_files: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = field(default_factory=dict)
    method: str | None = None
    spec: Callable[[dict[str, Any]], str | None] = lambda config: None

    def recognises(self, names: Iterable[str]) -> bool:
        """Whether tensors with these names are in this layout."""
        names = list(names)
        return all(any(re.match(pattern, name) for name in names) for pattern in self.recognised)

    def preference(self, path: str) -> int:
        """Rank of a state dict by its path in the checkpoint, 0 the most preferred."""
        fits = (number for number, pattern in enumerate(self.state_dicts) if re.fullmatch(pattern, path))
        return next(fits, len(self.state_dicts))


@dataclass(frozen=True)
class Renamed:
    """The tensors of a checkpoint under timm's names.

    Attributes:
        tensors: Tensors of the backbone, by timm's name.
        sources: Number of tensors of the checkpoint that they come from.
        ignored: What is ignored -> names of these tensors in the checkpoint.
        unnamed: Names of tensors that are neither.
    """

    tensors: Tensors
    sources: int
    ignored: dict[str, list[str]]
    unnamed: list[str]


def unwrapped(tensors: Tensors) -> Tensors:
    """Tensors without the prefixes that wrappers such as DistributedDataParallel give to all names."""
    while prefix := next((wrapper for wrapper in WRAPPERS if all(name.startswith(wrapper) for name in tensors)), None):
        if not tensors:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def renamed(layout: Layout, tensors: Tensors, where: str) -> Renamed:
    """Rename the tensors of a checkpoint as its layout says.

    Args:
        layout: The layout.
        tensors: Tensors of the checkpoint, without the prefixes of wrappers.
        where: Path of the checkpoint, for messages.

    Raises:
        BackboneError: If two tensors get one name.
    """
    kept: Tensors = {}
    ignored: dict[str, list[str]] = {}
    unnamed: list[str] = []
    origins: dict[str, str] = {}
    for name, tensor in tensors.items():
        reason = next((what for pattern, what in layout.ignored.items() if re.fullmatch(pattern, name)), None)
        start = re.match(layout.prefix, name)
        if reason is not None:
            ignored.setdefault(reason, []).append(name)
        elif start is None:
            unnamed.append(name)
        else:
            new = name[start.end() :]
            for pattern, replacement in layout.renames:
                new = re.sub(pattern, replacement, new)
            if new in kept:
                raise BackboneError(
                    f"{where}: in the layout '{layout.name}', {origins[new]} and {name} are the same tensor, {new}. "
                    "Give another --layout."
                )
            kept[new], origins[new] = tensor, name
    sources = len(kept)
    for transform in layout.transforms:
        kept = transform(kept)
    return Renamed(kept, sources, ignored, unnamed)
