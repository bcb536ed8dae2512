"""What holds for every method: its views, what it gives, what it trains, its defaults; and `supervised`."""

import pytest
import torch
from support.naive_methods import assert_equal_losses_and_gradients, twin
from support.tiny_methods import CLASSES, IMAGES, PRESET, RESNET, VIT, VIT_ONLY, new_batch, new_method

from ssl_transfer.methods.registry import METHODS
from ssl_transfer.recipe import Component, choose

ONE_VIEW = ("mae", "supervised", "distill")
CROPS = ("dino", "dinov2")
REQUIRED = {"distill": {"teacher": "runs/teacher/backbone"}}  # options without a default
SEVERAL_KINDS = [
    (name, kind) for name in sorted(METHODS) for kind in (RESNET, VIT) if not (name in VIT_ONLY and kind is RESNET)
]


def test_there_are_twelve_methods():
    assert sorted(METHODS) == [
        "barlowtwins",
        "byol",
        "dino",
        "dinov2",
        "distill",
        "mae",
        "moco",
        "mocov3",
        "simclr",
        "simsiam",
        "supervised",
        "vicreg",
    ]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [RESNET, VIT], ids=["resnet", "vit"])
def test_supervised_is_cross_entropy_with_smoothed_labels(kind, smoothing):
    """Szegedy et al. 2016, section 7: −Σ_k q_k log p_k with q = (1 − ε)·one-hot + ε/K, mean over images."""
    method = new_method("supervised", kind, label_smoothing=smoothing)
    naive, batch = twin(method), new_batch(method)
    assert len(set(batch.labels.tolist())) == CLASSES
    logits = naive.backbone(batch.views[0]) @ naive.classifier.weight.T + naive.classifier.bias
    naive_loss = 0
    for i in range(IMAGES):
        p = torch.exp(logits[i]) / torch.exp(logits[i]).sum()
        for k in range(CLASSES):
            q = (1 - smoothing) * (k == batch.labels[i].item()) + smoothing / CLASSES
            naive_loss = naive_loss - q * torch.log(p[k]) / IMAGES
    assert_equal_losses_and_gradients(method, method(batch, 0)["loss"], naive, naive_loss)


@pytest.mark.parametrize(("name", "kind"), SEVERAL_KINDS)
def test_a_forward_pass_gives_a_loss_and_the_projections_of_each_watched_view(name, kind):
    method = new_method(name, kind)
    losses = method(new_batch(method), 0)
    assert losses["loss"].ndim == 0 and losses["loss"].requires_grad
    assert len(losses["projections"]) == (1 if name in ONE_VIEW else 2)
    for projections in losses["projections"]:
        assert projections.shape[0] == IMAGES and projections.ndim == 2
        assert projections.dtype == torch.float32 and not projections.requires_grad


@pytest.mark.parametrize(("name", "kind"), SEVERAL_KINDS)
def test_every_trainable_parameter_gets_a_gradient(name, kind):
    """With one that gets none, the second step of `DistributedDataParallel` fails."""
    method = new_method(name, kind)
    method(new_batch(method), 0)["loss"].backward()
    assert [key for key, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize("name", sorted(set(METHODS) - {*CROPS, *ONE_VIEW}))
def test_a_method_of_two_views_sees_the_recipe_s_preset_twice(name):
    assert new_method(name).view_presets(PRESET) == [PRESET, PRESET]


@pytest.mark.parametrize("name", ONE_VIEW)
def test_a_method_of_one_view_sees_the_recipe_s_preset_once(name):
    assert new_method(name).view_presets(PRESET) == [PRESET]


@pytest.mark.parametrize("name", CROPS)
def test_methods_of_crops_see_two_large_ones_and_their_small_ones(name):
    method = new_method(name, local_views=3, local_size=8, global_scale=(0.5, 0.9), local_scale=(0.1, 0.5))
    presets = method.view_presets(PRESET)
    assert [preset.size for preset in presets] == [PRESET.size] * 2 + [8] * 3
    assert [preset.crop_scale for preset in presets] == [(0.5, 0.9)] * 2 + [(0.1, 0.5)] * 3
    assert {preset.intensity.window_hu for preset in presets} == {PRESET.intensity.window_hu}


def test_methods_state_what_they_compare_within_a_batch_if_and_only_if_they_do():
    assert {name for name, method in METHODS.items() if method.compares} == {
        "simclr",
        "mocov3",
        "barlowtwins",
        "vicreg",
        "dinov2",
    }
    assert {name for name, method in METHODS.items() if method.needs_labels} == {"supervised"}


@pytest.mark.parametrize("name", ["supervised", "mae", "byol", "simsiam", "moco", "dino", "distill"])
def test_a_loss_that_compares_nothing_is_the_mean_of_the_losses_of_parts(name):
    """So gradients may be accumulated. BatchNorm alone still ties images together, so it is at rest here."""
    method = new_method(name)
    for module in method.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    batch = new_batch(method)
    whole = twin(method)(batch, 0)["loss"].item()
    halves = []
    for part in (slice(0, IMAGES // 2), slice(IMAGES // 2, IMAGES)):
        views = [view[part] for view in batch.views]
        halves.append(twin(method)(type(batch)(views, batch.rows[part], batch.labels[part]), 0)["loss"].item())
    assert whole == pytest.approx(sum(halves) / 2, rel=1e-5)


@pytest.mark.parametrize("name", ["simclr", "mocov3", "barlowtwins", "vicreg", "dinov2"])
def test_a_loss_that_compares_is_not_the_mean_of_the_losses_of_parts(name):
    method = new_method(name).eval()
    if name == "vicreg":  # at their birth its projections hardly spread, and the hinge is flat
        method.projection_head.layers[-1].weight.data *= 100
    batch = new_batch(method)
    halves = [
        method(type(batch)([view[part] for view in batch.views], batch.rows[part]), 0)["loss"].item()
        for part in (slice(0, IMAGES // 2), slice(IMAGES // 2, IMAGES))
    ]
    assert method(batch, 0)["loss"].item() != pytest.approx(sum(halves) / 2, rel=1e-3)


HEADS = {  # method: its heads, layer by layer, with widths of the feature f, hidden h, output o; BN* has no affine part
    "simclr": {"projection_head": "f→h BN ReLU h→o BN"},
    "byol": {"projection_head": "f→h BN ReLU h→o", "prediction_head": "o→h BN ReLU h→o"},
    "moco": {"projection_head": "f→f ReLU f→o"},
    "mocov3": {"projection_head": "f→h BN ReLU h→h BN ReLU h→o BN", "prediction_head": "o→h BN ReLU h→o BN"},
    "barlowtwins": {"projection_head": "f→h BN ReLU h→h BN ReLU h→o"},
    "vicreg": {"projection_head": "f→h BN ReLU h→h BN ReLU h→o"},
    "simsiam": {"projection_head": "f→o BN ReLU o→o BN ReLU o→o BN*", "prediction_head": "o→b BN ReLU b→o"},
}


@pytest.mark.parametrize(("name", "head"), [(name, head) for name, heads in HEADS.items() for head in heads])
def test_the_heads_have_the_layers_of_the_papers(name, head):
    method = new_method(name)
    widths = {64: "f", 32: "h", 16: "o", 8: "b"}

    def described(layer):
        if isinstance(layer, torch.nn.Linear):
            return f"{widths[layer.in_features]}→{widths[layer.out_features]}"
        if isinstance(layer, torch.nn.BatchNorm1d):
            return "BN" if layer.affine else "BN*"
        return type(layer).__name__

    assert " ".join(map(described, getattr(method, head).layers)) == HEADS[name][head]


DEFAULTS = {
    "simclr": {"temperature": 0.5, "projection_dim": 128},
    "byol": {"hidden_dim": 4096, "projection_dim": 256, "momentum": 0.996},
    "moco": {"queue": 65536, "momentum": 0.999, "temperature": 0.2, "projection_dim": 128},
    "mocov3": {"temperature": 0.2, "momentum": 0.99, "hidden_dim": 4096, "projection_dim": 256},
    "barlowtwins": {"redundancy": 5e-3, "hidden_dim": 8192, "projection_dim": 8192},
    "vicreg": {"invariance": 25, "variance": 25, "covariance": 1, "hidden_dim": 8192, "projection_dim": 8192},
    "simsiam": {"projection_dim": 2048, "bottleneck_dim": 512},
    "dino": {
        "output_dim": 65536,
        "hidden_dim": 2048,
        "bottleneck_dim": 256,
        "temperature": 0.1,
        "momentum": 0.996,
        "center_momentum": 0.9,
        "warmup_target_temperature": 0.04,
        "local_views": 8,
        "local_size": 96,
    },
    "dinov2": {
        "output_dim": 65536,
        "hidden_dim": 2048,
        "bottleneck_dim": 256,
        "separate_heads": True,
        "temperature": 0.1,
        "target_temperature": 0.07,
        "warmup_target_temperature": 0.04,
        "warmup_epochs": 30,
        "centering": "sinkhorn",
        "momentum": 0.992,
        "masked_images": 0.5,
        "mask_share": (0.1, 0.5),
        "patch_weight": 1,
        "koleo_weight": 0.1,
        "local_views": 8,
        "global_scale": (0.32, 1),
        "local_scale": (0.05, 0.32),
        "frozen_output_epochs": 1,
    },
    "distill": {"queue": 65536, "temperature": 0.2, "teacher_temperature": 0.01},
    "mae": {
        "mask_share": 0.75,
        "normalised_patches": True,
        "decoder_dim": 512,
        "decoder_depth": 8,
        "decoder_heads": 16,
    },
    "supervised": {"label_smoothing": 0.0},
}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_defaults_are_the_papers(name):
    found = choose(METHODS, Component(name=name, **REQUIRED.get(name, {})), "recipe")
    assert {key: found[key] for key in DEFAULTS[name]} == DEFAULTS[name]
