"""Trivial features: what a plain NumPy computation on one image gives, under a card that says that nothing was pretrained."""

import numpy as np
import pytest
import torch
from support.tiny_tasks import class_task

from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.errors import BackboneError, UsageError
from ssl_transfer.evaluation.stage import evaluate, probe
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone
from ssl_transfer.models.opening import open_backbone
from ssl_transfer.models.trivial import TrivialFeatures


def naive(image: np.ndarray) -> np.ndarray:
    """The 91 features of one channel (H, W) in [0, 1], as a reader of the docstring would compute them."""
    height, width = image.shape
    high, wide = max(1, height // 16), max(1, width // 16)
    corners = [image[:high, :wide], image[:high, -wide:], image[-high:, :wide], image[-high:, -wide:]]
    counts, _ = np.histogram(image, 16, (0, 1))
    rows, columns = np.array_split(np.arange(height), 8), np.array_split(np.arange(width), 8)
    cells = [image[np.ix_(r, c)].mean() for r in rows for c in columns]
    percentiles = np.percentile(image, [1, 5, 25, 50, 75, 95, 99])
    return np.concatenate([[c.mean() for c in corners], percentiles, counts / image.size, cells])


def images(*shape):
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))


@pytest.mark.parametrize("size", [16, 64])
def test_they_are_those_of_a_plain_computation(size):
    drawn = images(5, 1, size, size)
    expected = np.stack([naive(image[0].double().numpy()) for image in drawn])
    assert np.allclose(TrivialFeatures(size, size)(drawn), expected, atol=1e-6)


def test_every_channel_has_its_own(size=32):
    drawn = images(3, 3, size, size)
    features = TrivialFeatures(size, size)(drawn)
    assert features.shape == (3, 3 * 91)
    assert torch.equal(features[:, 91:182], TrivialFeatures(size, size)(drawn[:, 1:2]))


def test_pure_white_is_in_the_last_bin():
    assert TrivialFeatures(16, 16)(torch.ones(1, 1, 16, 16))[0, 11:27].tolist() == [0.0] * 15 + [1.0]


@pytest.mark.parametrize("height, width", [(24, 64), (64, 24), (63, 64)])
def test_the_margin_that_squared_an_image_is_left_out(height, width):
    drawn, size = images(2, 1, height, width), max(height, width)
    top, left = (size - height) // 2, (size - width) // 2
    squared = torch.zeros(2, 1, size, size)
    squared[..., top : top + height, left : left + width] = drawn
    assert torch.equal(TrivialFeatures(height, width)(squared), TrivialFeatures(height, width)._features(drawn))


def test_more_pixels_than_a_quantile_of_torch_takes():
    features = TrivialFeatures(512, 512)(torch.full((65, 1, 512, 512), 0.5))
    assert features.shape == (65, 91) and (features[:, 4:11] == 0.5).all()


def test_of_a_store_they_are_taken_at_its_resolution_and_in_its_window(ct_store, tmp_path):
    low, high = SOFT_TISSUE_HU
    unit = np.clip((ct_store.read(np.arange(5)).astype(float) - low) / (high - low), 0, 1)
    features = extract_features(open_backbone("trivial", ct_store), ct_store, tmp_path / "features").values
    assert np.allclose(features[:5], [naive(image[0]) for image in unit], atol=1e-5)


def test_the_card_says_that_nothing_was_pretrained(ct_store):
    card = open_backbone("trivial,seed=3", ct_store).card
    assert (card.name, card.method, card.source_domain, card.parents, card.stores) == (
        "trivial features",
        "trivial",
        None,
        (),
        (),
    )
    assert card.pretraining_seed == 3 and card.feature_dim == 91 and card.image_size == 32


def test_features_are_the_same_whatever_the_seed_and_differ_between_shapes(ct_store):
    ids = {load_backbone(spec, 1, 32).id for spec in ("trivial", "trivial,seed=0", "trivial,seed=1")}
    assert ids == {open_backbone("trivial", ct_store).id}
    assert ids != {load_backbone("trivial", 1, 64).id}


@pytest.mark.parametrize(
    "spec", ["trivial,", "trivial,sed=1", "trivial,seed=x", "trivial,seed=1,seed=2", "trivial,seed=-1"]
)
def test_any_other_setting_is_refused(spec):
    with pytest.raises(BackboneError, match="expected trivial, or trivial,seed=N"):
        load_backbone(spec)


def test_a_linear_probe_of_them_is_a_result_beyond_all_boundaries(tmp_path):
    result = probe("trivial,seed=2", class_task(tmp_path, train=24, held_out=12), out=tmp_path / "result", resamples=0)
    assert (result.boundary, result.pretraining_seed, result.seen_in_pretraining) == ("trivial", 2, False)
    assert result.metrics["test"]["accuracy"] == 1  # the classes differ in brightness


def test_they_cannot_be_fine_tuned(tmp_path):
    with pytest.raises(
        UsageError, match=r"finetune: trivial features have no weights to train\. Take linear_probe or knn"
    ):
        evaluate("finetune", "trivial", class_task(tmp_path), tmp_path / "result")
