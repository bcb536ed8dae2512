"""Features of a store's images: one pass, no gradients, the backbone in `eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from ssl_transfer.data.images import Images
from ssl_transfer.data.intensity import Scale, match_channels
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.layers import layer_names, outputs, pooled
from ssl_transfer.models.memory import keep_freed_memory


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
    compute: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    size: int | None,
    batch_size: int,
    device: torch.device | str,
    bf16: bool,
    on_batch: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """What `compute` gives for every batch, by name, float32 (n, …)."""
    device = torch.device(device)
    keep_freed_memory(device)
    size = size or backbone.card.image_size
    features: dict[str, np.ndarray] = {}
    with evaluating(backbone, device, torch.bfloat16 if bf16 else None):
        for chosen, inputs in prepared(backbone, store, rows, size, batch_size, device):
            for name, vectors in compute(inputs).items():
                if name not in features:
                    features[name] = np.empty((len(rows), vectors.shape[1]), np.float32)
                features[name][chosen] = vectors.float().cpu().numpy()
            on_batch(len(inputs))
    return features


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
    device, names = torch.device(device), layer_names(backbone)
    size = size or backbone.card.image_size
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    with evaluating(backbone, device, torch.bfloat16 if bf16 else None), outputs(backbone.model, names) as captured:
        for _, inputs in prepared(backbone, store, rows, size, batch_size, device):
            backbone(inputs)
            for name in names:
                parts[name].append(pooled(captured[name], backbone.model).float().cpu().numpy())
    return {name: np.concatenate(batches) for name, batches in parts.items()}


@contextmanager
def evaluating(module: nn.Module, device: torch.device, lower: torch.dtype | None = None) -> Iterator[None]:
    """Context in which `module` is in `eval` mode, without gradients, under autocast to `lower` if given."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, lower, enabled=lower is not None):
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def prepared(
    backbone: Backbone, store: Images, rows: np.ndarray, size: int, batch_size: int, device: torch.device
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield batches of a store's images as input of the backbone: positions within `rows`, and images (B, C, size, size)."""
    scale = Scale.of_store(store.card, backbone.intensity.window_hu)
    for start in range(0, len(rows), batch_size):
        images = torch.from_numpy(store.read(rows[start : start + batch_size])).to(device)
        yield slice(start, start + len(images)), prepare(images, scale, size, backbone)


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
