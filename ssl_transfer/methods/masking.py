"""Masks of the patches of a ViT. Like views, they are functions of (seed, epoch, image) and do not depend on the batch."""

from __future__ import annotations

import math
import random

import numpy as np
import torch

from ssl_transfer.data.counters import uniforms

MASK_STREAM = 1000  # stream of random numbers that masks are drawn from; views use the streams 0, 1, …
SMALLEST_BLOCK = 4  # patches; this and the next two as in the authors' code of iBOT and DINOv2
LOG_RATIOS = (math.log(0.3), math.log(1 / 0.3))  # of height and width of a block
ATTEMPTS = 10  # to find a place for a further block


def block_masks(
    seed: int,
    epoch: int,
    rows: np.ndarray,
    view: int,
    *,
    grid: tuple[int, int],
    masked_images: float,
    mask_share: tuple[float, float],
) -> torch.Tensor:
    """Masks of rectangles of patches: blocks are added to an image until its share of masked patches is reached.

    Args:
        seed: Seed of the training.
        epoch: Epoch, counted from 0.
        rows: Rows of the images in the training set, shape (B,).
        view: Number of the view that is masked; each has masks of its own.
        grid: Number of patches in height and width.
        masked_images: Probability that an image is masked at all.
        mask_share: Smallest and largest share of masked patches in a masked image; uniform. An image may have fewer if no
            further block fits.

    Returns:
        Whether a patch is masked, bool (B, height, width).

    Source:
        Zhou et al. 2022, https://arxiv.org/abs/2111.07832, section 3.2; blocks as in Bao et al. 2022,
        https://arxiv.org/abs/2106.08254, algorithm 1.
    """
    draws = uniforms(seed, epoch, rows, MASK_STREAM + view, 3)
    low, high = mask_share
    counts = (grid[0] * grid[1] * (low + (high - low) * draws[:, 1])).astype(int)
    masks = np.zeros((len(draws), -(-grid[0] * grid[1] // 8)), np.uint8)  # a bit per patch
    for image in np.flatnonzero((draws[:, 0] < masked_images) & (counts > 0)):
        bits = _blocks(random.Random(int(draws[image, 2] * 2**53)), *grid, int(counts[image]))
        masks[image] = np.frombuffer(bits.to_bytes(masks.shape[1], "little"), np.uint8)
    patches = np.unpackbits(masks, axis=1, count=grid[0] * grid[1], bitorder="little")
    return torch.from_numpy(patches.astype(bool)).unflatten(1, grid)


def _blocks(draw: random.Random, height: int, width: int, count: int) -> int:
    """Blocks that together cover `count` patches, or fewer if no further block fits, as a number with a bit for each patch.

    lightly's `random_block_mask_image` draws the same blocks from the same numbers, on tensors, in ten times the time.
    """
    smallest, covered, mask = min(SMALLEST_BLOCK, count), 0, 0
    while covered < count:
        for _ in range(ATTEMPTS):
            area, ratio = draw.uniform(smallest, count - covered), math.exp(draw.uniform(*LOG_RATIOS))
            high, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if high >= height or wide >= width:
                continue
            top, left = draw.randint(0, height - high), draw.randint(0, width - wide)
            one_of_each_row = ((1 << width * high) - 1) // ((1 << width) - 1)  # a geometric series
            block = (((1 << wide) - 1) * one_of_each_row) << (top * width + left)
            new = (block & ~mask).bit_count()
            if 0 < new <= count - covered:
                mask, covered = mask | block, covered + new
                break
        else:
            break
    return mask
