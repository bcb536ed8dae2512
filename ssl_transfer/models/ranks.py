"""Collective operations over processes. With a single process each of them is the identity."""

from __future__ import annotations

import torch
import torch.distributed as distributed


def world_size() -> int:
    """Number of processes in the group; 1 without a group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Rank of this process in the group; 0 without a group."""
    return distributed.get_rank() if world_size() > 1 else 0


def gpu_count(device: torch.device) -> int:
    """Number of GPUs of all processes, each of which computes on a device of this kind."""
    return 0 if device.type == "cpu" else world_size()


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor (B, …) over ranks, in their order; no gradient."""
    if world_size() == 1:
        return tensor
    tensor = tensor.contiguous()  # also of channels_last, so that the parts have the same order of elements
    whole = tensor.new_empty(world_size() * len(tensor), *tensor.shape[1:])
    single = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor  # before torch 2.14
    single(whole, tensor)
    return whole


def gather_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """Concatenate a tensor (B, …) over ranks; a loss that is equal on every rank has the gradient of a single process."""
    return tensor if world_size() == 1 else _Gather.apply(tensor)


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Add up a tensor over ranks; so is the gradient, since every rank's loss depends on the tensors of all ranks."""
    return tensor if world_size() == 1 else _Sum.apply(tensor)


def max_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Element-wise maximum of a tensor over ranks; no gradient."""
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().clone()
    distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
    return tensor


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        distributed.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context, tensor: torch.Tensor) -> torch.Tensor:
        return gather(tensor)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient.chunk(world_size())[rank()]
