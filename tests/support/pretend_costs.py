"""What the pretend GPU counts: kernel launches, bytes that they read and write, and waits of the host for the device."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from support.pretend_streams import host_waits
from torch.utils import _pytree as pytree

aten = torch.ops.aten
PACKAGE = "/ssl_transfer/"
OWN_FILES = ("pretend_gpu.py", "pretend_costs.py")

WAITING = {  # the host needs the answer, or its size
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.unique_consecutive.default,
    aten.equal.default,
    aten.bincount.default,
    aten.is_nonzero.default,
    aten._linalg_check_errors.default,
}
WITHOUT_KERNEL = {
    aten.detach.default,
    aten.alias.default,
    aten._unsafe_view.default,
    aten.lift_fresh.default,
    aten.lift.default,
    aten.empty.memory_format,
    aten.empty_like.default,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._reshape_alias.default,
    aten.set_.source_Tensor,
    aten.is_same_size.default,
    aten._linalg_check_errors.default,
    aten._local_scalar_dense.default,
}
OVERWRITING = ("fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_")  # they do not read what they write


@dataclass
class Counts:
    """What a GPU would have paid.

    Attributes:
        launches: Number of kernels.
        bytes: Bytes that kernels read and write.
        waits: Waits of the host by cause and line.
    """

    launches: int = 0
    bytes: int = 0
    waits: Counter[str] = field(default_factory=Counter)


_open: list[Counts] = []  # of all contexts of `counting` that are entered


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what happens meanwhile."""
    counts = Counts()
    _open.append(counts)
    try:
        yield counts
    finally:
        _open[:] = [each for each in _open if each is not counts]


def count(launches: int, moved: int) -> None:
    for counts in _open:
        counts.launches += launches
        counts.bytes += moved


def waited(cause: str) -> None:
    host_waits()
    if _open:
        place = f"{cause}: {line()}"
        for counts in _open:
            counts.waits[place] += 1


def count_wait(operation, kwargs) -> None:
    if operation in WAITING:
        waited(operation._schema.name.removeprefix("aten::"))
    if operation is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        waited("repeat_interleave")


def count_transfer(to_gpu: bool, asynchronous: bool) -> None:
    if not asynchronous:
        waited(f"copy to the {'GPU' if to_gpu else 'CPU'}")


def count_kernel(operation, operands, result) -> None:
    """Count a kernel that reads each operand once, and writes each result once."""
    if not _open or operation in WITHOUT_KERNEL or operation.is_view:
        return
    tensors = [leaf for leaf in pytree.tree_leaves((operands, result)) if isinstance(leaf, torch.Tensor)]
    unique = {(tensor.data_ptr(), tensor.numel()): tensor for tensor in tensors}
    moved = sum(min(tensor.nbytes, tensor.untyped_storage().nbytes()) for tensor in unique.values())
    in_place = any(each.alias_info is not None and each.alias_info.is_write for each in operation._schema.returns)
    overwrites = operation.__name__.startswith(OVERWRITING) or "out" in operation._overloadname
    if in_place and not overwrites and operation is not aten.copy_.default:
        written = next((leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)), None)
        moved += 0 if written is None else written.nbytes
    count(1, moved)


def line() -> str:
    """The innermost line of the package on the stack, and the line of another package that it called, if any."""
    frame, inner = sys._getframe(1), ""
    while frame is not None:
        name = frame.f_code.co_filename
        if PACKAGE in name and "site-packages" not in name:
            return f"{name.rpartition(PACKAGE)[2]}:{frame.f_lineno}{inner}"
        if not inner and "/torch/" not in name and Path(name).name not in OWN_FILES:
            inner = f" (in {name.rpartition('site-packages/')[2]}:{frame.f_lineno})"
        frame = frame.f_back
    return f"?{inner}"
