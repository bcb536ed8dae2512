"""The architecture that the tensors of a checkpoint fit, and how well."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import yaml

from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.models.architecture import Architecture, TimmModel, has_fixed_size, input_convolutions
from ssl_transfer.models.importing.layout import Tensors
from ssl_transfer.models.tensor_files import Shape

COUNTER = ".num_batches_tracked"  # of BatchNorm: features do not depend on it, and old checkpoints lack it
DEFAULT_SIZE = 224


@dataclass(frozen=True)
class Fit:
    """How the tensors of a checkpoint fit an architecture.

    Attributes:
        architecture: The architecture.
        matched: Names of tensors that are equal in name and shape.
        missing: Names of tensors that the checkpoint lacks, but counters of BatchNorm.
        counters: Names of the counters that it lacks.
        left: Names of tensors that the architecture lacks.
        reshaped: Tensors of other shapes, in words.
        zeros: Names of biases of 0 that the architecture lacks.
    """

    architecture: Architecture
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    counters: tuple[str, ...]
    left: tuple[str, ...]
    reshaped: tuple[str, ...]
    zeros: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every tensor of one has its tensor in the other."""
        return not (self.missing or self.left or self.reshaped)


def parse_spec(spec: str) -> Architecture:
    """Parse `NAME[,option=value…]`: an architecture of timm, with `stem` or options of its constructor.

    Example:
        >>> parse_spec("vit_small_patch16_224,num_heads=12").options
        {'num_heads': 12}

    Raises:
        BackboneError: If timm has no such architecture, or an option has no value.
    """
    name, *settings = re.split(r",(?![^\[]*\])", spec)
    name = name.partition(".")[0]
    if not timm.is_model(name):
        raise BackboneError(f"--as {spec}: timm has no architecture '{name}'.{nearest(name, timm.list_models())}")
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BackboneError(f"--as {spec}: '{setting}' has no value. Write {setting}=VALUE.")
        options[key.strip()] = yaml.safe_load(text)
    stem = options.pop("stem", "standard")
    if stem not in ("standard", "small"):
        raise BackboneError(f"--as {spec}: stem={stem}: expected standard or small.")
    return Architecture(name, 3, DEFAULT_SIZE, stem, options)


def best_fit(specs: Iterable[str], tensors: Tensors, size: int | None, zero_biases: str) -> Fit:
    """The first architecture that the tensors fit; if there is none, the one that most of them fit.

    Args:
        specs: Architectures to try, see `parse_spec`.
        tensors: Tensors of the checkpoint by timm's names.
        size: Image size of architectures without a fixed one; None: that of timm's public weights.
        zero_biases: Pattern of biases that an architecture may lack if they are 0.

    Raises:
        BackboneError: If an architecture of `specs` cannot be built.
    """
    best: Fit | None = None
    for spec in specs:
        fit = _fit(parse_spec(spec), tensors, size, zero_biases)
        if fit.complete:
            return fit
        if best is None or len(fit.matched) > len(best.matched):
            best = fit
    assert best is not None, "a layout has architectures"
    return _compared(best.architecture, _shapes(_without_memory(best.architecture).state_dict()), tensors, zero_biases)


def _fit(architecture: Architecture, tensors: Tensors, size: int | None, zero_biases: str) -> Fit:
    model = _without_memory(architecture)
    adapted = _adapted(architecture, model, tensors, size)
    expected = _shapes(model.state_dict())
    needed = {name for name in expected if not name.endswith(COUNTER)}
    if needed <= tensors.keys() and _build_arguments(adapted) != _build_arguments(architecture):
        expected = _shapes(_without_memory(adapted).state_dict())
    return _compared(adapted, expected, tensors, zero_biases)


def _compared(architecture: Architecture, expected: dict[str, Shape], tensors: Tensors, zero_biases: str) -> Fit:
    """How tensors fit the shapes that an architecture has."""
    given = _shapes(tensors)
    absent = [name for name in expected if name not in given]
    left = [name for name in given if name not in expected]
    zeros = tuple(name for name in left if re.fullmatch(zero_biases, name) and not bool(tensors[name].any()))
    shared = [name for name in given if name in expected]
    return Fit(
        architecture,
        matched=tuple(name for name in shared if given[name] == expected[name]),
        missing=tuple(name for name in absent if not name.endswith(COUNTER)),
        counters=tuple(name for name in absent if name.endswith(COUNTER)),
        left=tuple(name for name in left if name not in zeros),
        reshaped=tuple(
            f"{name} of shape {given[name]} in place of {expected[name]}"
            for name in shared
            if given[name] != expected[name]
        ),
        zeros=zeros,
    )


def _adapted(architecture: Architecture, model: TimmModel, tensors: Tensors, size: int | None) -> Architecture:
    """An architecture with the input channels and the image size that the tensors have.

    Args:
        architecture: The architecture.
        model: Its model.
        tensors: Tensors of the checkpoint.
        size: Image size of architectures without a fixed one.
    """
    first = [tensors[f"{name}.weight"] for name in input_convolutions(model) if f"{name}.weight" in tensors]
    if first and first[0].ndim == 4:
        architecture = replace(architecture, in_channels=first[0].shape[1])
    config = timm.get_pretrained_cfg(architecture.name)
    default = config.input_size[-1] if config else DEFAULT_SIZE
    positions = tensors.get("pos_embed")
    if positions is None or not has_fixed_size(architecture.name) or not first:
        return replace(architecture, size=size or default)
    prefix = 0 if getattr(model, "no_embed_class", False) else getattr(model, "num_prefix_tokens", 0)
    side = math.isqrt(max(positions.shape[1] - prefix, 0)) if positions.ndim == 3 else 0
    if not side or side**2 != positions.shape[1] - prefix:
        return replace(architecture, size=default)  # its position embedding is of another shape, which is refused
    return replace(architecture, size=side * first[0].shape[-1])


def _build_arguments(architecture: Architecture) -> tuple[int, int | None]:
    """What shapes depend on besides name and options."""
    return architecture.in_channels, architecture.size if has_fixed_size(architecture.name) else None


def _without_memory(architecture: Architecture) -> TimmModel:
    """The model of an architecture without values in its tensors, if timm can build it so.

    Raises:
        BackboneError: If timm cannot build it.
    """
    try:
        with torch.device("meta"):
            return architecture.build(0)
    except BackboneError as error:
        if "meta" in str(error).lower():
            return architecture.build(0)
        raise


def _shapes(tensors: Tensors) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
