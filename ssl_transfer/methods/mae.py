"""MAE."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
from lightly.models.utils import get_at_index, initialize_2d_sine_cosine_positional_embedding, patchify, set_at_index
from pydantic import Field, PositiveInt
from torch import nn

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.transfer import to_device
from ssl_transfer.data.views import ViewBatch, Views
from ssl_transfer.methods.masking import MASK_STREAM
from ssl_transfer.methods.objective import Losses, Objective
from ssl_transfer.methods.vit import plain_vit
from ssl_transfer.models.backbone import Backbone


class MAE(Objective):
    """A ViT encodes the visible patches of an image, and a small decoder reconstructs the masked ones.

    Masks, like views, are functions of (seed, epoch, image). Position embeddings are fixed sines and cosines. The targets are
    pixels, standardised within each patch if `normalised_patches`.

    Args:
        mask_share: Share of the patches that are masked, in (0, 1). Paper: 0.75 (section 4.1).
        normalised_patches: Whether targets are standardised within each patch. Paper: yes (section 3, Table 1d).
        decoder_dim: Width of the decoder. Paper: 512 (Table 1b).
        decoder_depth: Number of transformer blocks of the decoder. Paper: 8 (Table 1a).
        decoder_heads: Number of attention heads of each block, a divisor of `decoder_dim`. Authors' code: 16.

    References:
        He et al. 2022, https://arxiv.org/abs/2111.06377, section 3.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.75,
        normalised_patches: bool = True,
        decoder_dim: PositiveInt = 512,
        decoder_depth: PositiveInt = 8,
        decoder_heads: PositiveInt = 16,
    ):
        super().__init__()
        vit = plain_vit(backbone, "mae")
        self.backbone = backbone
        if not backbone.card.parents:
            prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
            initialize_2d_sine_cosine_positional_embedding(vit.pos_embed, num_prefix_tokens=prefix)
        vit.pos_embed.requires_grad_(False)
        self.masked_vit: Any = MaskedVisionTransformerTIMM(
            vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        self.masked_vit.mask_token = None  # masked patches are left out, not replaced
        for pooling in (vit.fc_norm, vit.attn_pool):  # of pooled features; the decoder reads tokens
            if pooling is not None:
                pooling.requires_grad_(False)
        self.patch_size = vit.patch_embed.patch_size[0]
        self.decoder_embedding = nn.Linear(vit.embed_dim, decoder_dim)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            vit.patch_embed.num_patches, decoder_dim, decoder_depth, decoder_heads, vit.num_prefix_tokens
        )
        self.pixel_head = nn.Linear(decoder_dim, self.patch_size**2 * backbone.card.in_channels)
        self.mask_share, self.normalised_patches = mask_share, normalised_patches

    def view_presets(self, preset: Views) -> list[Views]:
        """One view is enough."""
        return [preset]

    def forward(self, batch: ViewBatch, step: int) -> Losses:
        """Mean squared error of the masked patches."""
        images, prefix = batch.views[0], self.masked_vit.vit.num_prefix_tokens
        shown, hidden = self.masks(batch.rows, step, images.device)
        encoded = self.masked_vit.encode(images, idx_keep=shown)
        tokens = self.decoder_embedding(encoded)
        decoder_tokens = self.decoder.mask_token.to(tokens.dtype).expand(len(images), self.decoder.sequence_length, -1)
        predictions = self.pixel_head(
            get_at_index(self.decoder(set_at_index(decoder_tokens, shown, tokens)), hidden)
        ).float()
        targets = get_at_index(patchify(images, self.patch_size), hidden - prefix).float()
        if self.normalised_patches:
            variance, mean = torch.var_mean(targets, dim=-1, keepdim=True)
            targets = (targets - mean) / (variance + 1e-6).sqrt()
        loss = (predictions - targets).square().mean()
        return {"loss": loss, "projections": [encoded.detach().float().mean(1)]}

    def compiled_parts(self) -> list[nn.Module]:
        """The transformer blocks, since `forward` of the ViT is never called."""
        return [self.masked_vit.vit.blocks, self.decoder.blocks]

    def masks(self, rows: torch.Tensor, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the visible tokens (prefix tokens first) and of the masked tokens of each image, (B, …)."""
        vit, epoch = self.masked_vit.vit, step // self.schedule.steps_per_epoch
        patches, prefix = vit.patch_embed.num_patches, vit.num_prefix_tokens
        draws = uniforms(self.seed, epoch, rows.cpu().numpy(), MASK_STREAM, patches)
        order = torch.from_numpy(np.argsort(draws, axis=1)) + prefix
        kept = max(1, int(patches * (1 - self.mask_share)))
        prefix_tokens = torch.arange(prefix).expand(len(order), -1)
        order = to_device(torch.cat([prefix_tokens, order], 1), device)
        return order[:, : prefix + kept], order[:, prefix + kept :]
