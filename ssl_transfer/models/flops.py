"""Floating-point operations of a computation, counted from the shapes of its matrix products and convolutions while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

ATEN = torch.ops.aten
COMPOSITE = {  # made of operations with a formula; without gradients torch does not take them apart itself
    *(ATEN.linear, ATEN.matmul, ATEN.einsum, ATEN.tensordot, ATEN.scaled_dot_product_attention),
    *(ATEN.conv1d, ATEN.conv2d, ATEN.conv3d, ATEN.conv_transpose1d, ATEN.conv_transpose2d, ATEN.conv_transpose3d),
}


@contextmanager
def counted_flops() -> Iterator[Flops]:
    """Count the operations of a block, which computes what it computes without it; `torch.compile` pauses within it.

    A multiplication and an addition are two operations. The formulas are those of `torch.utils.flop_counter`, which has none for
    normalisation, activations and other element-wise operations, pooling, resampling, and optimisers: they are left out.
    (Its `FlopCounterMode` would compute some gradients in another order, and so change their last bits.)
    """
    flops = Flops()
    with torch.compiler.set_stance("force_eager"), flops:
        yield flops


def drop_weights(module: nn.Module) -> None:
    """Keep the shapes alone of a module's floats, so that its operations are counted without being computed.

    Whole numbers, such as the place in a queue, keep their values. Attention is then counted as plain products, four of which
    are backwards, where fused kernels have five.
    """
    module._apply(lambda tensor: tensor.to("meta") if tensor.is_floating_point() else tensor)


class Flops(TorchDispatchMode):
    """Adds up the operations of what runs within it.

    Attributes:
        count: Operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run an operation and count it."""
        options = kwargs or {}
        if func._overloadpacket in COMPOSITE:
            with self:
                return func.decompose(*args, **options)
        result = func(*args, **options)
        if formula := FORMULAS.get(func._overloadpacket):
            self.count += formula(*args, **options, out_val=result)
        return result


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(
    gradient: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **options: Any
) -> int:
    return sdpa_backward_flop_count(gradient.shape, query.shape, key.shape, value.shape)


def _convolution_backward(
    gradient: torch.Tensor, images: torch.Tensor, weight: torch.Tensor, *rest: Any, **options: Any
) -> int:
    """The gradients of images and of weights cost as much as the forward pass each, with any number of groups."""
    *_, transposed, _, _, wanted = rest
    positions = images if transposed else gradient
    return 2 * sum(wanted[:2]) * len(images) * prod(positions.shape[2:]) * weight.numel()


FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {
    ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,  # torch has none for a CPU
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    ATEN.convolution_backward: _convolution_backward,  # torch's holds without groups only
}
