"""MAE against a naive transcription of its paper: masks, encoder, decoder, targets."""

import math

import numpy as np
import pytest
import torch
from support.naive_methods import assert_equal_losses_and_gradients
from support.tiny_methods import FIXED_VIT, IMAGES, PATCH, RESNET, SIDE, VIT, new_backbone, new_batch, new_method

from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.registry import METHODS
from ssl_transfer.schedule import Schedule

GRID = SIDE // PATCH
PATCHES = GRID**2
MOBILENET = ("mobilenetv3_small_050", {})
CPU = torch.device("cpu")


def sines_and_cosines(dim):
    """Positions (1 + PATCHES, dim): half of the numbers for the column, half for the row, ω_k = 10000^(−4k/dim); prefix 0."""

    def of(place):
        angles = [place / 10000 ** (k / (dim / 4)) for k in range(dim // 4)]
        return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]

    rows = [[0.0] * dim] + [of(column) + of(row) for row in range(GRID) for column in range(GRID)]
    return torch.tensor(rows, dtype=torch.float64)


def layer_norm(tokens, norm):
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def block(tokens, module):
    """Dosovitskiy et al. 2021, equations 2 and 3, of one image's tokens (T, D)."""
    heads, dim = module.attn.num_heads, tokens.shape[1]
    qkv = layer_norm(tokens, module.norm1) @ module.attn.qkv.weight.T + module.attn.qkv.bias
    q, k, v = (qkv[:, part * dim : (part + 1) * dim] for part in range(3))
    width, answers = dim // heads, []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        attention = torch.softmax(q[:, own] @ k[:, own].T / math.sqrt(width), dim=1)
        answers.append(attention @ v[:, own])
    tokens = tokens + torch.cat(answers, 1) @ module.attn.proj.weight.T + module.attn.proj.bias
    hidden = layer_norm(tokens, module.norm2) @ module.mlp.fc1.weight.T + module.mlp.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return tokens + hidden @ module.mlp.fc2.weight.T + module.mlp.fc2.bias


def patches_of(image):
    """Pixels (PATCHES, PATCH²) of a one-channel image, row by row."""
    corners = [(row * PATCH, column * PATCH) for row in range(GRID) for column in range(GRID)]
    return torch.stack([image[0, y : y + PATCH, x : x + PATCH].reshape(-1) for y, x in corners])


def naive_mae_loss(naive, batch, step, normalised):
    """He et al. 2022, section 3: encode the shown patches, decode all, compare the hidden ones."""
    vit, decoder = naive.backbone.model, naive.decoder
    shown, hidden = naive.masks(batch.rows, step, CPU)
    errors = []
    for image, of_image, missing in zip(batch.views[0], shown.tolist(), hidden.tolist(), strict=True):
        pixels = patches_of(image)
        embedded = pixels @ vit.patch_embed.proj.weight.flatten(1).T + vit.patch_embed.proj.bias
        tokens = torch.cat([vit.cls_token[0], embedded]) + sines_and_cosines(16)
        tokens = torch.stack([tokens[place] for place in of_image])
        for module in vit.blocks:
            tokens = block(tokens, module)
        tokens = layer_norm(tokens, vit.norm) @ naive.decoder_embedding.weight.T + naive.decoder_embedding.bias
        everywhere = [decoder.mask_token[0, 0]] * (1 + PATCHES)
        for place, token in zip(of_image, tokens, strict=True):
            everywhere[place] = token
        tokens = torch.stack(everywhere) + sines_and_cosines(24)
        for module in decoder.blocks:
            tokens = block(tokens, module)
        drawn = layer_norm(tokens, decoder.norm) @ naive.pixel_head.weight.T + naive.pixel_head.bias
        for place in missing:
            target = pixels[place - 1]
            if normalised:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append(((drawn[place] - target) ** 2).mean())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", [VIT, FIXED_VIT], ids=["dynamic", "fixed"])
def test_mae_is_the_paper_s_reconstruction_of_hidden_patches(kind, normalised):
    method, naive = (new_method("mae", kind, normalised_patches=normalised) for _ in range(2))
    batch = new_batch(method)
    batch.views[0][:, :, :PATCH] *= 3  # patches differ in contrast
    naive_loss = naive_mae_loss(naive, batch, 0, normalised)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


def hidden_of(method, rows, step):
    _, hidden = method.masks(torch.tensor(rows), step, CPU)
    return {row: frozenset(found) for row, found in zip(rows, hidden.tolist(), strict=True)}


def test_a_mask_belongs_to_seed_epoch_and_image_and_not_to_the_batch():
    method = new_method("mae")
    method.seed, method.schedule = 3, Schedule(steps_per_epoch=5, total_steps=50)
    rows = list(range(100, 140))
    masks = hidden_of(method, rows, 7)
    for companions in (rows[::-1], rows[:20], rows[20:], rows[3:4]):
        assert hidden_of(method, companions, 7) == {row: masks[row] for row in companions}
    assert hidden_of(method, rows, 5) == masks == hidden_of(method, rows, 9)  # steps of the same epoch
    assert len(set(masks.values())) > 35
    for other in (hidden_of(method, rows, 4), hidden_of(method, rows, 10)):
        assert sum(other[row] == masks[row] for row in rows) < 5
    method.seed = 4
    assert sum(hidden_of(method, rows, 7)[row] == masks[row] for row in rows) < 5


@pytest.mark.parametrize(("share", "shown"), [(0.75, 4), (0.5, 8), (0.99, 1), (0.01, 15)])
def test_a_share_of_the_patches_is_hidden_and_the_prefix_token_is_always_shown(share, shown):
    seen, hidden = new_method("mae", mask_share=share).masks(torch.arange(IMAGES), 0, CPU)
    assert seen.shape == (IMAGES, 1 + shown) and hidden.shape == (IMAGES, PATCHES - shown)
    assert (seen[:, 0] == 0).all()
    assert (torch.cat([seen, hidden], 1).sort(1).values == torch.arange(1 + PATCHES)).all()


def test_every_patch_is_hidden_as_often_as_any_other():
    _, hidden = new_method("mae").masks(torch.arange(4000), 0, CPU)
    shares = np.bincount(hidden.flatten().numpy(), minlength=1 + PATCHES) / 4000
    assert shares[0] == 0 and np.abs(shares[1:] - 0.75).max() < 0.03


def test_register_tokens_are_shown_too():
    method = new_method("mae", (VIT[0], {**VIT[1], "reg_tokens": 3}))
    seen, hidden = method.masks(torch.arange(IMAGES), 0, CPU)
    assert (seen[:, :4] == torch.arange(4)).all() and hidden.min() >= 4
    assert torch.isfinite(method(new_batch(method), 0)["loss"])


def test_the_encoder_sees_nothing_of_the_hidden_patches_and_the_loss_nothing_of_the_others():
    method = new_method("mae")
    batch = new_batch(method, images=1)
    _, hidden = method.masks(batch.rows, 0, CPU)
    place = int(hidden[0, 0]) - 1
    y, x = place // GRID * PATCH, place % GRID * PATCH
    changed = batch.views[0].clone()
    changed[:, :, y : y + PATCH, x : x + PATCH] += torch.randn(PATCH, PATCH)
    before, after = method(batch, 0), method(ViewBatch([changed], batch.rows), 0)
    assert torch.equal(before["projections"][0], after["projections"][0])
    assert before["loss"] != after["loss"]


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_normalised_targets_do_not_depend_on_brightness_or_contrast_of_a_hidden_patch(strength):
    method = new_method("mae")
    batch = new_batch(method, images=1)
    _, hidden = method.masks(batch.rows, 0, CPU)
    changed = batch.views[0].clone()
    for place in (hidden[0] - 1).tolist():
        y, x = place // GRID * PATCH, place % GRID * PATCH
        changed[:, :, y : y + PATCH, x : x + PATCH] = strength * changed[:, :, y : y + PATCH, x : x + PATCH] + 5
    found = method(ViewBatch([changed], batch.rows), 0)["loss"].item()
    assert found == pytest.approx(method(batch, 0)["loss"].item(), rel=1e-3)


def test_positions_are_fixed_sines_and_cosines_that_no_step_moves():
    method = new_method("mae")
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    method(new_batch(method), 0)["loss"].backward()
    optimizer.step()
    assert torch.allclose(method.backbone.model.pos_embed[0], sines_and_cosines(16), atol=1e-6)
    assert torch.allclose(method.decoder.pos_embed[0], sines_and_cosines(24), atol=1e-6)


def test_a_parent_s_positions_are_kept():
    backbone = new_backbone(VIT, parents=["a parent"])
    before = backbone.model.pos_embed.detach().clone()
    METHODS["mae"](backbone, decoder_dim=24, decoder_depth=1, decoder_heads=3)
    assert torch.equal(backbone.model.pos_embed, before) and not backbone.model.pos_embed.requires_grad


def test_what_is_trained_is_the_backbone_itself():
    method = new_method("mae")
    method(new_batch(method), 0)["loss"].backward()
    assert method.backbone.model.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert method.masked_vit.vit is method.backbone.model


@pytest.mark.parametrize("kind", [RESNET, MOBILENET])
def test_mae_on_architectures_other_than_vits_is_refused(kind):
    with pytest.raises(
        RecipeError, match=rf"method: mae needs a plain ViT, and {kind[0]} is not one\. Set backbone\.name"
    ):
        new_method("mae", kind)
