"""Altered stores: noise with the stated law, a function of seed and image; everything else is the store's own."""

import pickle

import numpy as np
import pytest

from ssl_transfer.data.altered import Noise, NoisyStore, RecodedMasks
from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.images import Images
from ssl_transfer.data.store import ImageStore


def noisy(store, kind="gaussian", sigma=0.05, seed=0):
    return NoisyStore(store, Noise(kind, sigma, seed), *SOFT_TISSUE_HU)


def unit(images):
    low, high = SOFT_TISSUE_HU
    return (images.astype(np.float64) - low) / (high - low)


@pytest.mark.parametrize("sigma", [1e-4, 1e-2, 5e-2])
def test_gaussian_noise_has_the_stated_spread_of_the_intensity_range(ct_store, sigma):
    rows = np.arange(48)
    added = unit(noisy(ct_store, sigma=sigma).read(rows)) - unit(ct_store.read(rows))
    assert added.std() == pytest.approx(sigma, rel=0.02)
    assert abs(added.mean()) < 0.02 * sigma + 1e-6


def test_rician_noise_of_an_empty_image_is_a_rayleigh_distribution(ct_store):
    empty = Noise("rician", 0.05).add(np.zeros((1, 200, 200), np.float32), 3)
    assert empty.min() >= 0
    assert empty.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02)
    assert empty.std() == pytest.approx(0.05 * np.sqrt(2 - np.pi / 2), rel=0.02)


def test_rician_noise_on_a_bright_image_is_nearly_gaussian_and_raises_its_mean(ct_store):
    bright = Noise("rician", 0.05).add(np.ones((1, 200, 200), np.float32), 3)
    assert bright.std() == pytest.approx(0.05, rel=0.02)
    assert bright.mean() == pytest.approx(1 + 0.05**2 / 2, abs=1e-3)


@pytest.mark.parametrize("kind", ["gaussian", "rician"])
def test_noise_belongs_to_the_seed_and_the_image_and_to_nothing_else(ct_store, kind):
    one = noisy(ct_store, kind)
    assert np.array_equal(one.read([5, 2, 9])[1], one[2])
    assert np.array_equal(one[2], noisy(ct_store, kind)[2])
    assert not np.array_equal(one[2], noisy(ct_store, kind, seed=1)[2])
    assert not np.array_equal(one[2] - ct_store[2], one[3] - ct_store[3])


def test_a_noisy_store_has_an_id_of_its_own_and_all_else_of_the_store(ct_store):
    one = noisy(ct_store)
    assert len({ct_store.id, one.id, noisy(ct_store, "rician").id, noisy(ct_store, sigma=0.01).id}) == 4
    assert len(one) == len(ct_store) and one.shape == ct_store.shape and one.units == "hu"
    assert np.array_equal(one.positions("train"), ct_store.positions("train"))
    assert np.array_equal(one.masks([3]), ct_store.masks([3]))
    assert np.array_equal(one.column("label"), ct_store.column("label")) and one.columns == ct_store.columns


@pytest.mark.parametrize("kind", [ImageStore, NoisyStore, RecodedMasks])
def test_every_kind_of_store_has_what_tasks_and_features_need(ct_store, kind):
    store = {ImageStore: ct_store, NoisyStore: noisy(ct_store), RecodedMasks: RecodedMasks(ct_store, np.arange(256))}[
        kind
    ]
    assert isinstance(store, Images) and type(store) is kind


def test_masks_are_read_in_the_classes_of_a_task(ct_store):
    rows = np.arange(48)
    raw = ct_store.masks(rows)
    codes = np.zeros(256, np.int64)
    codes[raw.max()] = 1
    assert np.array_equal(RecodedMasks(ct_store, codes).masks(rows), (raw == raw.max()).astype(int))


def test_an_altered_store_can_be_sent_to_another_process(ct_store):
    again = pickle.loads(pickle.dumps(noisy(ct_store)))
    assert np.array_equal(again[1], noisy(ct_store)[1])
