"""The device of a computation, and settings of torch for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ssl_transfer.models.memory import keep_freed_memory


def prepare_device(device: torch.device, equal_shapes: bool = False) -> None:
    """Set up torch for computations on a device: what `fp32` means, memory, and the choice of kernels.

    `fp32` is IEEE float32, in matrix products and in convolutions. torch's default for convolutions on a GPU is TF32, with 10
    bits of mantissa, and for products it is what other code in the process has set.

    Args:
        device: Device of the computation.
        equal_shapes: Whether most batches have the same shapes, so that cuDNN may time its kernels and take the fastest.
    """
    keep_freed_memory(device)
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        if equal_shapes:
            torch.backends.cudnn.benchmark = True


@contextmanager
def on_fastest_device(module: nn.Module) -> Iterator[torch.device]:
    """Within the block, a module is on the GPU if there is one, in channels_last; afterwards it is where it was before.

    Yields:
        The device.
    """
    before = next((parameter.device for parameter in module.parameters()), None)  # None: there is nothing to move
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device=device)
    module.to(memory_format=torch.channels_last)
    try:
        yield device
    finally:
        module.to(device=before)
