"""Batch normalisation over the global batch, on any device and any number of processes.

`torch.nn.SyncBatchNorm` refuses CPU tensors, its statistics always cover the whole batch, and the host waits three times for
each layer, to find out which ranks hold images. Here all ranks hold equally many, and MoCo needs statistics over parts of the
batch: `GlobalBatchNorm` cuts the global batch into `groups` equal runs of images, on whichever ranks, and each group has its own
statistics. Parameter names are those of BatchNorm, so weights are interchangeable.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
import torch.nn.functional as functional
from torch import nn

from ssl_transfer.models.ranks import gather, rank, sum_over_ranks, world_size


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over `groups` equal parts of the global batch (1: all of it).

    Ranks must hold equal, consecutive parts of the global batch. Running statistics are the mean over groups.
    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167; groups as in He et al. 2020, section 3.3.
    """

    groups: int = 1
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def _check_input_dim(self, images: torch.Tensor) -> None:
        pass  # takes (B, C) and (B, C, H, W) alike

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, …)."""
        if not self.training:
            return functional.batch_norm(
                images, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        world = world_size()
        if self.groups % world == 0:
            return self._local_groups(images, self.groups // world)
        if self.groups == 1 and images.is_cuda:
            return self._whole_batch(images)
        return self._spread_groups(images)

    def _local_groups(self, images: torch.Tensor, groups: int) -> torch.Tensor:
        """Normalise groups that each lie on one rank; only running statistics are communicated.

        Groups as channels of one call would need half of the kernels, but the copies to and fro double the memory traffic.
        """
        statistics = self.running_mean.new_zeros(2, groups, self.num_features)  # means and variances of the groups
        outputs = [
            functional.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps)
            for part, mean, variance in zip(images.chunk(groups), *statistics.unbind(), strict=True)
        ]
        self._remember(*statistics.mean(1), reduce=True)
        return torch.cat(outputs)

    def _spread_groups(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise groups that span ranks, with sums over ranks; in two passes, since E[x²] − E[x]² loses precision."""
        batch, channels = images.shape[:2]
        values = images.to(torch.promote_types(images.dtype, torch.float32)).reshape(batch, channels, -1)
        position = rank() * batch + torch.arange(batch, device=images.device)
        group = position * self.groups // (batch * world_size())
        count = batch * world_size() // self.groups * values.shape[2]

        def mean_of(per_image: torch.Tensor) -> torch.Tensor:
            sums = per_image.new_zeros(self.groups, channels).index_add(0, group, per_image)
            return sum_over_ranks(sums) / count

        mean = mean_of(values.sum(2))
        centred = values - mean[group][:, :, None]
        variance = mean_of(centred.square().sum(2))
        self._remember(mean.detach().mean(0), variance.detach().mean(0) * count / max(count - 1, 1), reduce=False)
        scaled = centred * (variance + self.eps).rsqrt()[group][:, :, None]
        if self.affine:
            scaled = scaled * self.weight[:, None] + self.bias[:, None]
        output = scaled.to(images.dtype).reshape(images.shape)
        if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last):
            output = output.contiguous(memory_format=torch.channels_last)
        return output

    def _whole_batch(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise one group that spans GPUs, with the kernels of torch's SyncBatchNorm."""
        running = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
        return _WholeBatch.apply(images, self.weight, self.bias, *running, self.momentum, self.eps)

    def _remember(self, mean: torch.Tensor, variance: torch.Tensor, reduce: bool) -> None:
        if not self.track_running_stats:
            return
        if reduce and world_size() > 1:
            both = torch.stack([mean, variance])
            distributed.all_reduce(both)
            mean, variance = both / world_size()
        self.num_batches_tracked.add_(1)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def globalise_batchnorm(module: nn.Module, groups: int) -> nn.Module:
    """Make every BatchNorm of `module` one over the global batch; layers change their class and keep their tensors.

    One process and one group need no change.
    """
    if groups == 1 and world_size() == 1:
        return module
    for old in module.modules():
        if isinstance(old, nn.modules.batchnorm._BatchNorm) and not isinstance(old, GlobalBatchNorm):
            layer: Any = old  # Any: its class changes
            if type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d):
                layer.__class__ = GlobalBatchNorm
            else:  # timm's BatchNormAct2d and others normalise in a forward of their own
                layer.__class__ = type(f"Global{type(layer).__name__}", (_GlobalThenAct, type(layer)), {})
            layer.groups = groups
    return module


class _WholeBatch(torch.autograd.Function):
    """BatchNorm over ranks that hold equally many images, on GPUs; running statistics are updated in place.

    The gradients of weight and bias are those of this rank's images, as DistributedDataParallel expects them.
    """

    @staticmethod
    def forward(context, images, weight, bias, running_mean, running_var, momentum, eps):
        images = _dense(images)
        statistics = torch.stack(torch.batch_norm_stats(images, eps))  # means and 1 / standard deviations, (2, C)
        means, inverses = gather(statistics[None]).unbind(1)
        counts = means.new_full((len(means),), images.numel() // images.shape[1])
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            images, means, inverses, running_mean, running_var, momentum, eps, counts
        )
        context.save_for_backward(images, weight, mean, inverse, counts.int())
        return torch.batch_norm_elemt(images, weight, bias, mean, inverse, eps)

    @staticmethod
    def backward(context, gradient):
        images, weight, mean, inverse, counts = context.saved_tensors
        gradient = _dense(gradient)
        *sums, of_weight, of_bias = torch.batch_norm_backward_reduce(
            gradient, images, mean, inverse, weight, True, *context.needs_input_grad[1:3]
        )
        sums = torch.stack(sums)
        distributed.all_reduce(sums)
        weight = weight if weight is None else weight.to(mean.dtype)
        of_images = torch.batch_norm_backward_elemt(gradient, images, mean, inverse, weight, *sums, counts)
        return of_images, of_weight, of_bias, None, None, None, None


def _dense(images: torch.Tensor) -> torch.Tensor:
    """Images in channels_last as they are, others contiguous: what the kernels take."""
    return (
        images if images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last) else images.contiguous()
    )


class _GlobalThenAct(GlobalBatchNorm):
    """timm's BatchNorm with activation: normalise globally, then its own drop and activation."""

    act: nn.Module
    drop: nn.Module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, …), then activate."""
        return self.act(self.drop(super().forward(images)))
