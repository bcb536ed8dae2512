"""DINOv2 against a naive transcription of its three losses; its masks, targets, schedules and options."""

import random

import numpy as np
import pytest
import torch
from lightly.models.utils import random_block_mask_image
from support.method_steps import differ, step_of, trace
from support.naive_methods import assert_equal_losses_and_gradients, perturb, twin, unit
from support.tiny_methods import FIXED_VIT, IMAGES, PATCH, PRESET, RESNET, SIDE, VIT, new_batch, new_method

from ssl_transfer.data.counters import uniforms
from ssl_transfer.data.views import ViewBatch
from ssl_transfer.errors import RecipeError
from ssl_transfer.methods.centering import TokenCenter, balanced_log_assignments
from ssl_transfer.methods.masking import block_masks
from ssl_transfer.recipe import options_model
from ssl_transfer.schedule import Schedule

GRID = SIDE // PATCH
AVERAGED = (VIT[0], {**VIT[1], "global_pool": "avg", "class_token": False})
REGISTERS = (VIT[0], {**VIT[1], "reg_tokens": 2})


def embedded(vit, image, mask, mask_token):
    """Tokens of one image before the blocks: masked patches are the mask token, positions are added to all."""
    patches = vit.patch_embed(image[None]).reshape(-1, vit.embed_dim)
    patches = torch.stack([mask_token if hidden else patch for patch, hidden in zip(patches, mask, strict=True)])
    prefix = [token[0] for token in (vit.cls_token, vit.reg_token) if token is not None]
    return torch.cat([*prefix, patches]) + vit.pos_embed[0]


def features_and_patches(vit, image, mask=None, mask_token=None):
    mask = [False] * GRID**2 if mask is None else mask.flatten().tolist()
    tokens = vit.norm(vit.blocks(embedded(vit, image, mask, mask_token)[None]))[0]
    patches = tokens[vit.num_prefix_tokens :]
    return (tokens[0] if vit.global_pool == "token" else vit.fc_norm(patches.mean(0))), patches


def sinkhorn(outputs, temperature):
    """Oquab et al. 2023, section 4: three iterations of rows and columns; outputs (n, K)."""
    q = torch.exp(outputs.double() / temperature).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdim=True) / len(q)
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def naive_koleo(features):
    """Sablayrolles et al. 2019, equation 2: minus the mean logarithm of the distance to the nearest other unit vector."""
    vectors = [unit(feature) for feature in features]
    nearest = [min((v - w).norm() for j, w in enumerate(vectors) if j != i) for i, v in enumerate(vectors)]
    return -sum(torch.log(distance) for distance in nearest) / len(nearest)


def naive_loss(naive, batch, step, temperature, koleo_weight=0.1, patch_weight=1.0):
    """The three losses, image by image and patch by patch."""
    slow, heads, slow_heads = naive.momentum_network[0].model, naive.heads, naive.momentum_network[1]
    vit, token, masks = naive.backbone.model, naive.masked_vit.mask_token[0, 0], naive.masks(batch.rows, step)
    crops = [image for view in batch.views[:2] for image in view]
    seen = [features_and_patches(vit, image, mask, token) for image, mask in zip(crops, masks, strict=True)]
    taught = [features_and_patches(slow, image) for image in crops]
    hidden = [(n, place) for n, mask in enumerate(masks) for place in mask.flatten().nonzero()[:, 0].tolist()]
    t = torch.stack([slow_heads["images"](feature) for feature, _ in taught]).detach()
    tp = torch.stack([slow_heads["patches"](taught[n][1][place]) for n, place in hidden]).detach()
    if naive.centering == "sinkhorn":
        t, tp = sinkhorn(t, temperature), sinkhorn(tp, temperature)
    else:
        centers = naive.criterion.center.double()[0], naive.patch_criterion.center.value.double()
        t, tp = (torch.softmax((x - c) / temperature, 1) for x, c in zip((t, tp), centers, strict=True))
    features = [feature for feature, _ in seen]
    local = [[naive.backbone(image[None])[0] for image in view] for view in batch.views[2:]]
    views = [features[:IMAGES], features[IMAGES:], *local]
    s = [[torch.log_softmax(heads["images"](feature) / 0.1, 0) for feature in view] for view in views]
    terms = [
        -(t[a * IMAGES + i] * s[b][i]).sum() for a in range(2) for b in range(len(s)) if a != b for i in range(IMAGES)
    ]
    patches = 0
    for (n, place), target in zip(hidden, tp, strict=True):
        output = torch.log_softmax(heads["patches"](seen[n][1][place]) / 0.1, 0)
        patches = patches - (target * output).sum() / masks[n].sum() / len(masks)
    koleo = naive_koleo(features[:IMAGES]) + naive_koleo(features[IMAGES:]) if koleo_weight else 0
    return sum(terms) / len(terms) + patch_weight * patches + koleo_weight * koleo


def prepared(kind=VIT, **options):
    """A DINOv2 some steps on: momentum network, mask token and centres are others than at the start."""
    method = new_method("dinov2", kind, **options)
    perturb(method.backbone, 0.2)
    perturb(method.momentum_network, 0.3)
    method.masked_vit.mask_token.data += torch.randn(16) * 0.3
    if method.centering == "mean":
        method.criterion.center += torch.randn(24) * 0.1
        method.patch_criterion.center.center += torch.randn(24) * 0.1
    return method


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VIT, {}),
        (VIT, {"centering": "mean"}),
        (REGISTERS, {"centering": "mean", "separate_heads": False, "local_views": 0}),
        (FIXED_VIT, {"local_views": 0, "koleo_weight": 0.0, "patch_weight": 0.5}),
        (AVERAGED, {"separate_heads": False, "masked_images": 1.0}),
    ],
    ids=["sinkhorn", "mean", "registers, one head", "no local views, no koleo", "averaged"],
)
def test_dinov2_is_the_sum_of_dino_ibot_and_koleo(kind, options):
    method = prepared(kind, **options)
    naive, batch = twin(method), new_batch(method)
    weights = {key: value for key, value in options.items() if key.endswith("_weight")}
    expected = naive_loss(naive, batch, 0, 0.04, **weights)
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, expected)


# Masks


def masks_of(rows, seed=3, epoch=1, view=0, grid=(6, 6), masked_images=0.5, mask_share=(0.1, 0.5)):
    rows = np.asarray(rows)
    return block_masks(seed, epoch, rows, view, grid=grid, masked_images=masked_images, mask_share=mask_share)


def test_a_mask_belongs_to_seed_epoch_image_and_crop_and_not_to_the_batch():
    rows = np.arange(100, 140)
    masks = masks_of(rows, masked_images=1.0)
    for companions in (rows[::-1], rows[:20], rows[3:4]):
        assert torch.equal(masks_of(companions, masked_images=1.0), masks[torch.from_numpy(companions - 100)])
    for other in ({"seed": 4}, {"epoch": 2}, {"view": 1}):
        different = masks_of(rows, masked_images=1.0, **other)
        assert sum(torch.equal(a, b) for a, b in zip(masks, different, strict=True)) < 5


def test_the_masks_of_a_training_change_with_the_epoch_and_differ_between_both_large_crops():
    method = new_method("dinov2")
    method.schedule = Schedule(steps_per_epoch=5, total_steps=50)
    rows = torch.arange(30)
    first = method.masks(rows, 7)
    assert first.shape == (60, GRID, GRID) and torch.equal(first, method.masks(rows, 9))
    assert not torch.equal(first, method.masks(rows, 10)) and not torch.equal(first[:30], first[30:])


def test_half_of_the_crops_are_masked_by_shares_that_are_uniform():
    """Zhou et al. 2022, section 3.2: none with probability 0.5, else a share between 0.1 and 0.5."""
    shares = masks_of(np.arange(800), grid=(12, 12)).float().mean((1, 2))
    masked = shares[shares > 0]
    assert len(masked) / 800 == pytest.approx(0.5, abs=0.05)
    assert masked.max() <= 0.5 and masked.mean() == pytest.approx(0.3, abs=0.03)
    assert np.percentile(masked, [10, 90]) == pytest.approx([0.14, 0.46], abs=0.04)


@pytest.mark.parametrize("grid", [(6, 6), (14, 14), (5, 9)])
def test_a_mask_has_the_blocks_of_lightly_s_from_the_same_random_numbers(grid):
    """Bao et al. 2022, algorithm 1, with the bounds of iBOT; lightly draws from Python's own generator."""
    masks = masks_of(np.arange(40), grid=grid, masked_images=1.0)
    draws = uniforms(3, 1, np.arange(40), 1000, 3)
    for mask, (_, share, seed) in zip(masks, draws, strict=True):
        random.seed(int(seed * 2**53))
        count = int(grid[0] * grid[1] * (0.1 + 0.4 * share))
        assert torch.equal(mask, random_block_mask_image(grid, count, min_num_masks_per_block=min(4, count)))


def test_small_grids_and_shares_can_be_masked_too():
    assert masks_of(np.arange(50), grid=(2, 2), masked_images=1.0, mask_share=(0.3, 0.3)).sum() == 50
    assert masks_of(np.arange(50), grid=(2, 2), masked_images=1.0, mask_share=(0.0, 0.2)).sum() == 0


def test_drawing_masks_leaves_python_s_own_generator_as_it_was():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    masks_of(np.arange(9))
    assert random.random() == expected


def test_the_trained_network_sees_nothing_of_masked_patches_and_the_momentum_network_does():
    method = prepared(masked_images=1.0, local_views=0)
    batch = new_batch(method)
    masks = method.masks(batch.rows, 0)
    pixels = masks.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, None]
    changed = torch.where(pixels, torch.randn(2 * IMAGES, 1, SIDE, SIDE).double(), torch.cat(batch.views))
    before, after = method(batch, 0), method(ViewBatch(list(changed.chunk(2)), batch.rows), 0)
    assert all(map(torch.equal, before["projections"], after["projections"]))
    assert before["loss"] != after["loss"]


def test_a_batch_without_masked_patches_has_a_loss_and_a_gradient_for_every_parameter():
    method = new_method("dinov2", masked_images=0.0, centering="mean")
    loss = method(new_batch(method), 0)["loss"]
    loss.backward()
    assert torch.isfinite(loss) and method.patch_criterion.center.value.abs().max() == 0
    assert [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


# Targets


def test_centres_follow_the_mean_targets_of_images_and_of_masked_patches():
    method = new_method("dinov2", centering="mean", center_momentum=0.8)
    perturb(method.momentum_network, 0.3)
    batch, slow_heads = new_batch(method), method.momentum_network[1]
    taught = [features_and_patches(method.momentum_network[0].model, image) for image in torch.cat(batch.views[:2])]
    masks = method.masks(batch.rows, 0).flatten(1)
    images = slow_heads["images"](torch.stack([feature for feature, _ in taught]))
    patches = slow_heads["patches"](torch.stack([patches for _, patches in taught])[masks])
    method(batch, 0)
    assert torch.allclose(method.criterion.center.double()[0, 0], 0.2 * images.mean(0), atol=1e-6)
    assert torch.allclose(method.patch_criterion.center.value.double()[0], 0.2 * patches.mean(0), atol=1e-6)


def test_with_sinkhorn_the_centres_stay_zero():
    method = new_method("dinov2")
    method(new_batch(method), 0)
    assert method.criterion.center.abs().max() == method.patch_criterion.center.value.abs().max() == 0


def test_balanced_assignments_are_those_of_the_plain_algorithm_without_its_overflow():
    outputs = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    found = balanced_log_assignments(outputs / 0.05).exp()
    assert torch.allclose(found.double(), sinkhorn(outputs, 0.05), atol=1e-6)
    assert torch.allclose(found.sum(1), torch.ones(30), atol=1e-5)
    extreme = balanced_log_assignments(outputs / 1e-4)
    assert torch.isfinite(extreme).all() and balanced_log_assignments(outputs[:0]).shape == (0, 8)


def test_many_iterations_use_all_dimensions_equally():
    outputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([3.0, 0, 0, 0])
    assert torch.allclose(balanced_log_assignments(outputs, 100).exp().sum(0), torch.full((4,), 16.0), atol=0.01)


def test_a_centre_stays_where_it_is_without_tokens():
    center = TokenCenter(3, 0.5)
    center.update(torch.tensor([[2.0, 4.0, 6.0], [0.0, 0.0, 0.0]]))
    center.update(torch.zeros(0, 3))
    assert center.value.tolist() == [[0.5, 1.0, 1.5]]


@pytest.mark.parametrize(("step", "temperature"), [(0, 0.04), (15, 0.055), (30, 0.07), (99, 0.07)])
def test_the_target_temperature_warms_up_and_the_loss_uses_it(step, temperature):
    method = prepared(warmup_epochs=3, local_views=0)
    method.schedule = Schedule(steps_per_epoch=10, total_steps=100)
    assert method.target_temperature(step) == pytest.approx(temperature)
    naive, batch = twin(method), new_batch(method)
    expected = naive_loss(naive, batch, step, temperature)
    assert method(batch, step)["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


# Gradients, momentum, precision


def test_only_the_trained_network_has_gradients_and_the_momentum_network_follows_it():
    method = prepared(momentum=0.75)
    method.schedule = Schedule(steps_per_epoch=100, total_steps=10**6)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    pairs = [
        (method.backbone.model.blocks[0].attn.qkv.weight, method.momentum_network[0].model.blocks[0].attn.qkv.weight),
        (method.heads["patches"].layers[0].weight, method.momentum_network[1]["patches"].layers[0].weight),
    ]
    before = [slow.clone() for _, slow in pairs]
    step_of(method, optimizer, 0)
    assert all(parameter.grad is None for parameter in method.momentum_network.parameters())
    assert method.masked_vit.mask_token.grad.abs().sum() > 0
    for (fast, slow), old in zip(pairs, before, strict=True):
        assert torch.allclose(slow, 0.75 * old + 0.25 * fast, atol=1e-6)


def test_the_output_layers_of_both_heads_are_frozen_during_the_first_epochs():
    method = new_method("dinov2", frozen_output_epochs=1)
    method.schedule = Schedule(steps_per_epoch=2, total_steps=100)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    moves = []
    for step in range(3):
        before = {name: head.last_layer.weight_v.clone() for name, head in method.heads.items()}
        step_of(method, optimizer, step)
        moves.append([not torch.equal(head.last_layer.weight_v, before[name]) for name, head in method.heads.items()])
    assert moves == [[False, False], [False, False], [True, True]]


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_the_momentum_network_has_no_dropout_and_no_stochastic_depth(name):
    dropping = (VIT[0], {**VIT[1], "drop_path_rate": 0.9, "proj_drop_rate": 0.5, "depth": 3})
    method, images = new_method(name, dropping), torch.randn(4, 1, SIDE, SIDE).double()
    slow, fast = method.momentum_network[0], method.backbone
    assert slow.training and torch.equal(slow(images), slow(images))
    assert not torch.equal(fast(images), fast(images))


def test_under_bf16_the_loss_is_float32_and_close_to_that_of_float32():
    method = prepared().float()
    batch = new_batch(method)
    batch = ViewBatch([view.float() for view in batch.views], batch.rows)
    with torch.autocast("cpu", torch.bfloat16):
        loss = twin(method)(batch, 0)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(method(batch, 0)["loss"].item(), rel=0.03)


def test_the_projections_that_are_watched_are_the_features_of_both_large_crops():
    method = prepared(masked_images=0.0)
    batch = new_batch(method)
    for projections, view in zip(method(batch, 0)["projections"], batch.views, strict=False):
        assert torch.allclose(projections, method.backbone(view).float(), atol=1e-6)


# Options

CHANGED = {
    "output_dim": 16,
    "hidden_dim": 16,
    "bottleneck_dim": 4,
    "separate_heads": False,
    "temperature": 0.2,
    "target_temperature": 0.1,
    "warmup_target_temperature": 0.02,
    "warmup_epochs": 2,
    "centering": "mean",
    "center_momentum": 0.5,
    "momentum": 0.5,
    "masked_images": 1.0,
    "mask_share": (0.5, 0.5),
    "patch_weight": 2.0,
    "koleo_weight": 0.0,
    "local_views": 1,
    "local_size": 4,
    "global_scale": (0.5, 1.0),
    "local_scale": (0.1, 0.5),
    "frozen_output_epochs": 0,
}


@pytest.mark.parametrize("option", sorted(options_model(type(new_method("dinov2"))).model_fields))
def test_every_option_changes_something(option):
    others = {"centering": "mean"} if option == "center_momentum" else {}
    assert differ(trace("dinov2", **others), trace("dinov2", **{**others, option: CHANGED[option]}))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RESNET, {}, r"method: dinov2 needs a plain ViT, and resnet10t is not one\. Set backbone\.name"),
        (FIXED_VIT, {}, r"method\.local_size: .* cannot read images of 8 px"),
        (VIT, {"local_size": 32}, r"method\.local_size: 32 px, larger than the global views"),
        (
            VIT,
            {"mask_share": (0.5, 0.1)},
            r"method\.mask_share: found \[0\.5, 0\.1\], expected the smallest share first",
        ),
        ((VIT[0], {**VIT[1], "patch_drop_rate": 0.5}), {}, r"backbone\.options\.patch_drop_rate: dinov2 masks patches"),
    ],
)
def test_what_dinov2_cannot_do_is_refused(kind, options, message):
    with pytest.raises(RecipeError, match=message):
        new_method("dinov2", kind, **options)


def test_a_batch_of_one_image_has_no_neighbour():
    with pytest.raises(RecipeError, match=r"1 image has no nearest neighbour for KoLeo.*method\.koleo_weight=0"):
        new_method("dinov2").check_batch(1)
    new_method("dinov2", koleo_weight=0).check_batch(1)


def test_local_presets_are_smaller_views():
    assert [preset.size for preset in new_method("dinov2").view_presets(PRESET)] == [SIDE, SIDE, 8, 8]
