"""The kernels of torch's SyncBatchNorm, which it has for CUDA only, for tensors of the CPU: by their formulas, in float32.

https://docs.pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html; names and arguments are those of torch's schemas.
"""

from __future__ import annotations

import functools

import torch


@functools.cache
def register() -> torch.library.Library:
    """Register them. They stay until the process ends."""
    library = torch.library.Library("aten", "IMPL")
    for name in ("stats", "gather_stats_with_counts", "elemt", "backward_reduce", "backward_elemt"):
        library.impl(f"batch_norm_{name}", globals()[f"_{name}"], "CPU")
    return library  # kept by the cache: without it, torch forgets them


def _stats(images, eps):
    variance, mean = torch.var_mean(images.float(), _all_but_channels(images), correction=0)
    return mean, (variance + eps).rsqrt()


def _gather_stats_with_counts(images, means, inverses, running_mean, running_var, momentum, eps, counts):
    total = counts.sum()
    mean = (means * counts[:, None]).sum(0) / total
    variance = ((inverses**-2 - eps + (means - mean) ** 2) * counts[:, None]).sum(0) / total
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * total / (total - 1), momentum)
    return mean, (variance + eps).rsqrt()


def _elemt(images, weight, bias, mean, inverse, eps):
    normalised = (images.float() - _channels(mean, images)) * _channels(inverse, images)
    if weight is not None:
        normalised = normalised * _channels(weight, images) + _channels(bias, images)
    return normalised.to(images.dtype)


def _backward_reduce(gradient, images, mean, inverse, weight, input_g, weight_g, bias_g):
    total = gradient.float().sum(_all_but_channels(images))
    with_images = (gradient.float() * (images.float() - _channels(mean, images))).sum(_all_but_channels(images))
    return total, with_images, with_images * inverse if weight_g else None, total if bias_g else None


def _backward_elemt(gradient, images, mean, inverse, weight, sum_dy, sum_dy_xmu, counts):
    scale = inverse if weight is None else inverse * weight
    centred = images.float() - _channels(mean, images)
    slope = _channels(inverse**2 * sum_dy_xmu / counts.sum(), images)
    of_images = (gradient.float() - _channels(sum_dy / counts.sum(), images) - centred * slope) * _channels(
        scale, images
    )
    return of_images.to(images.dtype)


def _all_but_channels(images):
    return [0, *range(2, images.ndim)]


def _channels(values, images):
    return values.view(-1, *[1] * (images.ndim - 2))
