"""Features of a store's images: one pass, no gradients, the backbone in `eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ssl_transfer.cost import Cost, is_metered, spend
from ssl_transfer.data.images import Images
from ssl_transfer.data.intensity import Scale, match_channels
from ssl_transfer.data.transfer import to_device, to_host
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.flops import counted_flops
from ssl_transfer.models.layers import layer_names, outputs, pooled
from ssl_transfer.models.memory import keep_freed_memory
from ssl_transfer.numerics import numerics

Features = dict[str, torch.Tensor]  # of a batch, by name


def embed(
    backbone: Backbone,
    store: Images,
    rows: np.ndarray,
    size: int | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> np.ndarray:
    """Compute features.

    Args:
        backbone: The backbone, in `eval` mode during the pass; its mode is restored.
        store: The store of the images.
        rows: Positions of the images, shape (n,).
        size: Height and width of the input of the backbone; None: its pretraining size.
        device: Device of the computation.
        bf16: Compute under bfloat16 autocast.
        on_batch: Called with the number of images after each batch.

    Returns:
        Float32, shape (n, feature_dim).
    """
    empty = {"": np.empty((0, backbone.feature_dim), np.float32)}  # without rows
    computed = _embedded(
        backbone, store, rows, lambda inputs: {"": backbone(inputs)}, size, batch_size, device, bf16, on_batch
    )
    return (computed or empty)[""]


def embed_poolings(
    backbone: Backbone,
    store: Images,
    rows: np.ndarray,
    poolings: Sequence[str],
    size: int | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    on_batch: Callable[[int], None] = lambda images: None,
) -> dict[str, np.ndarray]:
    """Compute features of a ViT in several poolings in one pass, as `embed` does: pooling -> float32 (n, D)."""
    return _embedded(
        backbone,
        store,
        rows,
        lambda inputs: backbone.poolings(inputs, poolings),
        size,
        batch_size,
        device,
        bf16,
        on_batch,
    )


def _embedded(
    backbone: Backbone,
    store: Images,
    rows: np.ndarray,
    compute: Callable[[torch.Tensor], Features],
    size: int | None,
    batch_size: int,
    device: torch.device | str,
    bf16: bool,
    on_batch: Callable[[int], None] = lambda images: None,
) -> dict[str, np.ndarray]:
    """What `compute` gives for every batch, by name, float32 (n, …)."""
    device = torch.device(device)
    keep_freed_memory(device)
    size = size or backbone.card.image_size
    features: dict[str, np.ndarray] = {}
    compute = _reporting(compute, len(rows)) if is_metered() else compute
    with evaluating(backbone, device, torch.bfloat16 if bf16 else None):
        earlier: list[tuple[slice, Callable[[], dict[str, np.ndarray]]]] = []  # a batch that is still being computed
        for chosen, inputs in prepared(backbone, store, rows, size, batch_size, device):
            earlier.append((chosen, to_host(compute(inputs))))
            on_batch(len(inputs))
            if len(earlier) > 1:
                _keep(features, len(rows), *earlier.pop(0))
        for batch in earlier:
            _keep(features, len(rows), *batch)
    return features


def _reporting(compute: Callable[[torch.Tensor], Features], count: int) -> Callable[[torch.Tensor], Features]:
    """`compute`, which counts its operations in the first batch, and reports the cost of `count` images."""
    reported = False

    def counted(inputs: torch.Tensor) -> Features:
        nonlocal reported
        if reported:
            return compute(inputs)
        with counted_flops() as flops:
            computed = compute(inputs)
        spend(Cost(images=count, flops=count * flops.count // len(inputs)))
        reported = True
        return computed

    return counted


def _keep(
    features: dict[str, np.ndarray], count: int, chosen: slice, arrays: Callable[[], dict[str, np.ndarray]]
) -> None:
    """Write the vectors of a batch to their rows, of `count`."""
    for name, vectors in arrays().items():
        if name not in features:
            features[name] = np.empty((count, vectors.shape[1]), np.float32)
        features[name][chosen] = vectors


def embed_layers(
    backbone: Backbone,
    store: Images,
    rows: np.ndarray,
    size: int | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> dict[str, np.ndarray]:
    """Compute pooled outputs of every layer that `layer_names` lists, as `embed` does: layer -> float32 (n, C)."""
    names = layer_names(backbone)
    with outputs(backbone.model, names) as captured:

        def compute(inputs: torch.Tensor) -> Features:
            backbone(inputs)
            return {name: pooled(captured[name], backbone.model) for name in names}

        return _embedded(backbone, store, rows, compute, size, batch_size, device, bf16)


@contextmanager
def evaluating(module: nn.Module, device: torch.device, lower: torch.dtype | None = None) -> Iterator[None]:
    """Context in which `module` is in `eval` mode, without gradients, in IEEE float32, or under autocast to `lower` if given."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with numerics(), torch.inference_mode(), torch.autocast(device.type, lower, enabled=lower is not None):
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def prepared(
    backbone: Backbone, store: Images, rows: np.ndarray, size: int, batch_size: int, device: torch.device
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield batches of a store's images as input of the backbone: positions within `rows`, and images (B, C, size, size)."""
    store = backbone.inputs(store)
    scale, start = backbone.scale(store), 0
    for images in _read(store, [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)], device):
        yield slice(start, start + len(images)), prepare(to_device(images, device), scale, size, backbone)
        start += len(images)


def _read(store: Images, parts: list[np.ndarray], device: torch.device) -> Iterator[torch.Tensor]:
    """Read images part by part; for a GPU, the next part is read while it computes."""
    if device.type != "cuda" or not parts:
        yield from (torch.from_numpy(store.read(part)) for part in parts)
        return
    with ThreadPoolExecutor(1, "reader") as reader:
        following = reader.submit(store.read, parts[0])
        for part in [*parts[1:], None]:
            images = following.result()
            if part is not None:
                following = reader.submit(store.read, part)
            yield torch.from_numpy(images)


def prepare(images: torch.Tensor, scale: Scale, size: int, backbone: Backbone) -> torch.Tensor:
    """Scale, square, resize and normalise a store's values (B, C, H, W) into the input of the backbone."""
    unit = scale.unit(images).clamp_(0, 1)
    height, width = unit.shape[-2:]
    if height != width:  # keep the aspect: pad the short side with the window's lower end
        missing = max(height, width) - torch.tensor([width, height])
        left, top = (missing // 2).tolist()
        unit = functional.pad(unit, (left, int(missing[0]) - left, top, int(missing[1]) - top))
    if unit.shape[-1] != size:
        unit = functional.interpolate(unit, (size, size), mode="bilinear", antialias=True, align_corners=False)
    inputs = backbone.intensity.normalise(match_channels(unit, backbone.card.in_channels))
    return inputs.contiguous(memory_format=torch.channels_last)
