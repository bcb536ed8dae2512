"""Tensors under the names of another library, which defines the same layers in the same order."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]


class Mismatch(Exception):
    """Two sets of tensors that do not belong to the same layers; the message says where they differ."""


def in_order(given: Tensors, expected: Tensors, moved: Mapping[str, str] | None = None) -> dict[str, torch.Tensor]:
    """Rename tensors, the first to the first name and so on.

    Every tensor is used and every name is filled. Shapes must be equal, but for dimensions of length 1 (a scale per channel) and
    for convolutions over a whole map that the other library has as linear layers.

    Args:
        given: The tensors of a model.
        expected: Those of the model of the other library.
        moved: Tensor -> the tensor behind which the other library has it.

    Raises:
        Mismatch: If there are more or fewer tensors, or one has another shape.
    """
    names = list(given)
    for name, predecessor in (moved or {}).items():
        if name in names and predecessor in names:
            names.remove(name)
            names.insert(names.index(predecessor) + 1, name)
    renamed = {}
    for name, target in zip(names, expected, strict=False):
        tensor, shape = given[name], expected[target].shape
        if not _same_layer(tuple(tensor.shape), tuple(shape)):
            raise Mismatch(f"{name} is of shape {tuple(tensor.shape)}, {target} of shape {tuple(shape)}")
        renamed[target] = tensor.reshape(shape)
    if len(given) != len(expected):
        raise Mismatch(f"{len(given)} tensors, expected {len(expected)}")
    return renamed


def _same_layer(given: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    def without_ones(shape: tuple[int, ...]) -> list[int]:
        return [length for length in shape if length != 1]

    flattened = len(given) == 4 and len(expected) == 2 and given[0] == expected[0]
    if flattened:
        return given[1] * given[2] * given[3] == expected[1]
    return given == expected or without_ones(given) == without_ones(expected)
