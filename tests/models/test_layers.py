"""What layers hold: against a hook by hand for every family, in batches, leaving the backbone as it was; and paired views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.families import FAMILIES, described, family_backbone

from ssl_transfer.features import layer_features, paired_features
from ssl_transfer.measures.geometry import alignment
from ssl_transfer.models.embedding import embed, embed_layers, prepared
from ssl_transfer.models.layers import MAX_LAYERS, layer_names, outputs, pooled

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = np.array([7, 0, 41, 3, 20])
COUNTS = {"resnet": 5, "densenet": 5, "vgg": 6, "convnext": 4, "vit": 2}


def by_hand(backbone, store, rows):
    """Layer -> mean over places of what a hook sees at the moment, of one image after the other."""
    found: dict[str, list[np.ndarray]] = {}

    def keep(name):
        def hook(module, inputs, output):
            values = output.detach().clone().float()
            if values.ndim == 3:
                values = values[:, backbone.model.num_prefix_tokens :].mean(1)
            elif values.ndim == 4:
                values = values.mean(3).mean(2)
            found.setdefault(name, []).append(values[0].cpu().numpy())

        return hook

    modules = dict(backbone.model.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in layer_names(backbone)]
    backbone.eval()
    with torch.inference_mode():
        for _, inputs in prepared(backbone, store, rows, backbone.card.image_size, 1, torch.device("cpu")):
            backbone(inputs)
    for handle in handles:
        handle.remove()
    return {name: np.stack(values) for name, values in found.items()}


def hooks(backbone):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in backbone.modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_every_family_have_the_activations_that_a_hook_records(family, ct_store):
    backbone = family_backbone(family)
    found, expected = embed_layers(backbone, ct_store, ROWS, batch_size=2), by_hand(backbone, ct_store, ROWS)
    assert list(found) == layer_names(backbone) == list(expected) and len(found) == COUNTS[family]
    for name, values in found.items():
        assert values.dtype == np.float32 and values.shape == expected[name].shape
        assert values == pytest.approx(expected[name], abs=1e-4), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_layer_that_timm_knows_is_always_there_and_those_near_the_image_come_first(family):
    backbone = family_backbone(family)
    names, order = layer_names(backbone), [name for name, _ in backbone.model.named_modules()]
    assert names[-1] == backbone.model.feature_info[-1]["module"]
    assert [order.index(name) for name in names] == sorted(order.index(name) for name in names)


@pytest.mark.parametrize(("depth", "count"), [(3, 3), (12, 12), (13, MAX_LAYERS), (24, MAX_LAYERS), (31, MAX_LAYERS)])
def test_of_many_blocks_evenly_spaced_ones_are_used(depth, count):
    backbone = described("vit_tiny_patch16_224", 32, {"embed_dim": 16, "depth": depth, "num_heads": 2})
    blocks = [int(name.removeprefix("blocks.")) for name in layer_names(backbone)]
    assert len(blocks) == count and blocks[-1] == depth - 1
    assert np.ptp(np.diff(blocks)) <= 1 and (np.diff(blocks) > 0).all()


def test_where_timm_lists_no_layers_there_are_none(ct_store):
    backbone = family_backbone("resnet")
    backbone.model.feature_info = None
    assert layer_names(backbone) == [] and embed_layers(backbone, ct_store, ROWS) == {}


def test_the_class_token_and_registers_do_not_count():
    model = torch.nn.Module()
    model.num_prefix_tokens = 3
    tokens = torch.randn(2, 3 + 4, 5)
    assert torch.equal(pooled(tokens, model), tokens[:, 3:].mean(1))
    assert torch.equal(pooled(tokens, torch.nn.Module()), tokens.mean(1))


def test_maps_are_averaged_over_height_and_width_however_they_lie():
    model, maps = torch.nn.Module(), torch.randn(2, 5, 3, 4)
    assert torch.allclose(pooled(maps, model), maps.mean((2, 3)))
    model.output_fmt = "NHWC"
    assert torch.allclose(pooled(maps.permute(0, 2, 3, 1), model), maps.mean((2, 3)))
    vectors = torch.randn(2, 5)
    assert torch.equal(pooled(vectors, model), vectors)


def test_hooks_are_gone_afterwards_even_if_the_block_fails():
    backbone = family_backbone("vit")
    before = hooks(backbone)
    with pytest.raises(ZeroDivisionError), outputs(backbone.model, layer_names(backbone)):
        assert hooks(backbone) == before + 2
        raise ZeroDivisionError
    assert hooks(backbone) == before


@pytest.mark.parametrize("family", ["resnet", "vit"])
def test_a_backbone_is_left_as_it_was_in_modes_hooks_and_weights(family, ct_store):
    backbone = family_backbone(family).train()
    next(backbone.model.children()).eval()  # one part is frozen
    modes = [part.training for part in backbone.modules()]
    weights = {name: value.clone() for name, value in backbone.state_dict().items()}
    before = hooks(backbone)
    found = layer_features(backbone, ct_store, ROWS)
    paired_features(backbone, ct_store, ROWS)
    assert [part.training for part in backbone.modules()] == modes and hooks(backbone) == before
    assert all(torch.equal(weights[name], value) for name, value in backbone.state_dict().items())
    again = layer_features(backbone.eval(), ct_store, ROWS)
    assert all(np.array_equal(found[name], again[name]) for name in found)


def test_layers_are_asked_at_another_size_and_another_precision(ct_store):
    backbone = family_backbone("resnet")
    own, larger = layer_features(backbone, ct_store, ROWS), layer_features(backbone, ct_store, ROWS, 48)
    lower = layer_features(backbone, ct_store, ROWS, None, "bf16")
    for name, values in own.items():
        assert not np.allclose(values, larger[name], atol=1e-6) and values.shape == larger[name].shape
        assert lower[name].dtype == np.float32 and not np.array_equal(lower[name], values)
        assert lower[name] == pytest.approx(values, abs=0.05 * float(np.abs(values).max()))


def test_colour_is_read_by_a_backbone_of_one_channel_and_grey_by_one_of_three(ct_store, photo_store):
    for channels, store in ((1, photo_store), (3, ct_store)):
        found = layer_features(family_backbone("resnet", channels), store, ROWS)
        assert all(len(values) == 5 and np.isfinite(values).all() for values in found.values())


def test_two_views_of_an_image_are_similar_but_not_equal(ct_store):
    backbone, rows = family_backbone("resnet"), np.arange(48)
    one, other = paired_features(backbone, ct_store, rows)
    assert one.shape == other.shape == (48, backbone.feature_dim) and one.dtype == other.dtype == np.float32
    assert (np.abs(one - other).max(1) > 0).mean() > 0.7  # air seen through a small window may be the same twice
    assert not np.allclose(one, embed(backbone, ct_store, rows), atol=1e-4)
    own, strangers = (alignment(*map(torch.from_numpy, pair)) for pair in ((one, other), (one, other[::-1].copy())))
    assert 0 < own < strangers
    assert alignment(torch.from_numpy(one), torch.from_numpy(one)) == 0


@pytest.mark.parametrize("store", ["ct_store", "photo_store"])
def test_views_depend_on_the_seed_and_on_the_image_alone(store, request):
    store, backbone = request.getfixturevalue(store), family_backbone("vit")
    one, again = (paired_features(backbone, store, ROWS, 3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    for side, turned in zip(one, paired_features(backbone, store, ROWS[::-1], 3), strict=True):
        assert side == pytest.approx(turned[::-1], abs=1e-4)
    assert not np.allclose(one[0], paired_features(backbone, store, ROWS, 4)[0], atol=1e-5)
