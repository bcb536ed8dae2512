"""What float32 means, and which kernels are taken: settings of torch that hold for a computation, and not for the process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import torch

from ssl_transfer.environment import FLOAT32

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED_WORKSPACE = ":4096:8"  # https://docs.nvidia.com/cuda/cublas/#results-reproducibility
PRODUCTS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv")  # that may be less than float32


@contextmanager
def numerics(equal_shapes: bool = False, deterministic: bool = False) -> Iterator[None]:
    """Within the block, `fp32` is IEEE float32, in matrix products and convolutions; then all settings are as they were before.

    torch's default for convolutions on a GPU is TF32, with 10 bits of mantissa, and for products it is what other code in the
    process has set.

    Args:
        equal_shapes: Whether most batches have the same shapes, so that cuDNN may time its kernels and take the fastest.
        deterministic: Take the same kernels in every run, and those that add in a fixed order; torch warns of operations that
            have none. False: as around the block.
    """
    with ExitStack() as stack:
        for read, write in _settings():
            with suppress(RuntimeError):  # torch refuses to read an older name where newer ones of it differ
                stack.callback(write, read())
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        for operation in _products():
            operation.fp32_precision = FLOAT32
        if deterministic:
            stack.enter_context(_fixed_workspace())
            stack.callback(torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode())
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
            torch.use_deterministic_algorithms(True, warn_only=True)
        elif equal_shapes:
            torch.backends.cudnn.benchmark = True
        yield


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Context of computations in the precision of their tensors; tensors without memory (`meta`) know no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def _settings() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Yield what reads and what writes each setting; the older names of one last, since they are restored first."""
    for operation in _products():
        yield partial(getattr, operation, "fp32_precision"), partial(setattr, operation, "fp32_precision")
    for name in ("allow_tf32", "benchmark", "deterministic"):
        yield partial(getattr, torch.backends.cudnn, name), partial(setattr, torch.backends.cudnn, name)
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision


def _products() -> list[Any]:
    """Torch's settings of each kind of product; none before torch 2.9, where two settings held for all of them."""
    parts = [name.split(".") for name in PRODUCTS]
    found = [getattr(getattr(torch.backends, library), kind, None) for library, kind in parts]
    return [operation for operation in found if hasattr(operation, "fp32_precision")]


@contextmanager
def _fixed_workspace() -> Iterator[None]:
    """Within the block, cuBLAS has a workspace of its own for each stream, unless it is in use already."""
    with ExitStack() as stack:
        if WORKSPACE not in os.environ:
            os.environ[WORKSPACE] = FIXED_WORKSPACE
            stack.callback(os.environ.pop, WORKSPACE)
        yield
