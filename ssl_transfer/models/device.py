"""The device of a computation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def fastest_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def on_fastest_device(module: nn.Module) -> Iterator[torch.device]:
    """Within the block, a module is on the GPU if there is one, in channels_last; afterwards it is where it was before.

    Yields:
        The device.
    """
    before = next((parameter.device for parameter in module.parameters()), None)  # None: there is nothing to move
    device = fastest_device()
    module.to(device=device)
    module.to(memory_format=torch.channels_last)
    try:
        yield device
    finally:
        module.to(device=before)
