"""Autocast on the pretend GPU: operations are cast as `torch.autocast("cuda")` casts them, to bf16 or fp16, or to float32.

https://docs.pytorch.org/docs/stable/amp.html lists them; those that the package does not use are left out.
"""

from __future__ import annotations

import functools

import torch
from torch.utils import _pytree as pytree

aten = torch.ops.aten
KEY = "AutocastPrivateUse1"
LOWER = (
    aten.addmm.default,
    aten.baddbmm.default,
    aten.bmm.default,
    aten.conv2d.default,
    aten.conv_transpose2d.input,
    aten.convolution.default,
    aten.einsum.default,
    aten.linear.default,
    aten.matmul.default,
    aten.mm.default,
    aten.mv.default,
    aten.scaled_dot_product_attention.default,
)
FULL = (
    aten.binary_cross_entropy_with_logits.default,
    aten.cosine_similarity.default,
    aten.cumsum.default,
    aten.exp.default,
    aten.group_norm.default,
    aten.layer_norm.default,
    aten.log.default,
    aten.log_softmax.int,
    aten.logsumexp.default,
    aten.mse_loss.default,
    aten.nll_loss.default,
    aten.norm.ScalarOpt_dim,
    aten.pow.Tensor_Scalar,
    aten.rsqrt.default,
    aten.smooth_l1_loss.default,
    aten.softmax.int,
    aten.sum.default,
    aten.sum.dim_IntList,
)


@functools.cache
def register(backend: str) -> list[torch.library.Library]:
    """Register the casts for a backend. They stay until the process ends."""
    others, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    others.fallback(torch.library.fallthrough_kernel, KEY)
    for operations, lowers in ((LOWER, True), (FULL, False)):
        for operation in operations:
            library.impl(operation, _casting(operation, backend, lowers), KEY)
    return [others, library]  # kept by the cache: without them, torch forgets the casts


def switch(original, backend: str):
    """A function of torch that sets something of autocast, which sets it for the backend when it is set for CUDA."""

    def both(*arguments):
        original(*arguments)
        if arguments[0] == "cuda":
            original(backend, *arguments[1:])

    return both


def _casting(operation, backend: str, lowers: bool):
    without = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))

    def cast(*args, **kwargs):
        dtype = torch.get_autocast_dtype(backend) if lowers else torch.float32

        def converted(value):
            floating = isinstance(value, torch.Tensor) and value.device.type == "cuda" and value.is_floating_point()
            return value.to(dtype) if floating and value.dtype != torch.float64 else value

        with torch._C._ExcludeDispatchKeyGuard(without):
            args, kwargs = pytree.tree_map(converted, (args, kwargs))
            return operation(*args, **kwargs)

    return cast
