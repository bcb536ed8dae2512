"""Copies to a device during which the host does not wait for what the device still computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`; a copy to a GPU is from pinned memory, and the host goes on meanwhile."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_device_together(tensors: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """Float32 and bool tensors (B, …) on `device`, in one copy to a GPU, where bool becomes 0 and 1."""
    if device.type != "cuda":
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    flat = [tensor.reshape(len(tensor), -1).float() for tensor in tensors.values()]
    parts = to_device(torch.cat(flat, 1), device).split([part.shape[1] for part in flat], 1)
    return {name: part.view(tensors[name].shape) for name, part in zip(tensors, parts, strict=True)}


def to_host(tensors: Mapping[str, torch.Tensor]) -> Callable[[], dict[str, np.ndarray]]:
    """Start to copy tensors to the host, floats as float32; the result waits for them, and not for later work of the device."""
    exact = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    copies = {name: tensor.to("cpu", non_blocking=True) for name, tensor in exact.items()}
    arrived = torch.cuda.Event() if any(tensor.is_cuda for tensor in tensors.values()) else None
    if arrived:
        arrived.record()

    def arrays() -> dict[str, np.ndarray]:
        if arrived:
            arrived.synchronize()
        return {name: copy.numpy() for name, copy in copies.items()}

    return arrays


@cache
def constant(
    values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32, channels: bool = False
) -> torch.Tensor:
    """A tensor of constants, made once for each device: a copy of new ones would wait for the device.

    Args:
        channels: Whether the shape is (1, n, 1, 1), to broadcast over images (B, n, H, W), and not (n,).
    """
    with torch.inference_mode(False):  # it may be used in a computation with gradients later
        made = torch.tensor(values, dtype=dtype)
        return (made.view(1, -1, 1, 1) if channels else made).to(device)
