"""Altered stores: noise with the stated law, air without its grey level; everything else is the store's own."""

import pickle

import numpy as np
import pytest

from ssl_transfer.data.altered import ClearedAir, Noise, NoisyStore, RecodedMasks, SelectedRows, clear_air, sampled
from ssl_transfer.data.display import SOFT_TISSUE_HU
from ssl_transfer.data.images import Images
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.errors import StoreError


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


@pytest.mark.parametrize("kind", [ImageStore, NoisyStore, RecodedMasks, ClearedAir])
def test_every_kind_of_store_has_what_tasks_and_features_need(ct_store, kind):
    store = {
        ImageStore: ct_store,
        NoisyStore: noisy(ct_store),
        RecodedMasks: RecodedMasks(ct_store, np.arange(256)),
        ClearedAir: ClearedAir(ct_store),
    }[kind]
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


# Cleared air


def body(count=40, air=100, top=255, noise=3, seed=0, size=32):
    """Bodies in air of a grey level, each scaled on its own: (count, 1, size, size) float64, and where the body is."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(rows, columns) < size / 3
    tissue = inside * (0.3 + 0.7 * draw.random((count, 1, size, size)))
    tissue.reshape(count, -1)[:, np.flatnonzero(inside)[0]] = 1  # the brightest
    values = air + (top - air) * tissue + np.clip(noise * draw.standard_normal(tissue.shape), -2.5 * noise, 2.5 * noise)
    return np.clip(values, 0, top), inside


@pytest.mark.parametrize("air", [0, 29, 102, 126])
def test_air_of_any_grey_level_becomes_zero_and_the_brightest_pixel_255(air):
    images, inside = body(air=air, noise=2)
    cleared = clear_air(np.rint(images).astype(np.uint8))
    assert cleared.dtype == np.float32 and (cleared[:, 0, ~inside] == 0).all()
    assert (cleared.max((1, 2, 3)) == 255).all() and (cleared[:, 0, inside] > 0).mean() > 0.99


def test_the_same_bodies_look_the_same_whatever_their_air_was():
    dark, bright = (clear_air(body(air=air, noise=0)[0]) for air in (20, 120))
    assert np.allclose(dark, bright, atol=2)


def test_clearing_is_linear_above_air():
    images, inside = body(air=100, noise=0)
    zero = 100 + 0.05 * 155
    expected = np.clip((images - zero) / (255 - zero), 0, 1) * 255
    assert np.allclose(clear_air(images)[:, 0, inside], expected[:, 0, inside], atol=1)


def test_a_body_that_touches_the_border_does_not_hide_the_air():
    images, _ = body(air=100, noise=2)
    images[:, :, 10:22, :12] = 200  # an arm
    assert (clear_air(images)[:, 0, 0] == 0).all()


def test_an_image_without_contrast_becomes_zero():
    assert (clear_air(np.full((2, 1, 8, 8), 77, np.uint8)) == 0).all()


def test_every_image_is_cleared_by_itself():
    images = np.concatenate([body(4, air=air)[0] for air in (30, 120)])
    assert np.array_equal(clear_air(images)[5], clear_air(images[5:6])[0])


def test_air_in_hu_becomes_one_value_and_the_rest_stays(ct_store):
    rows = np.arange(len(ct_store))
    clean, cleared = ct_store.read(rows), ClearedAir(ct_store).read(rows)
    air = clean <= -950
    assert air.any() and set(cleared[air].tolist()) == {-1000} and cleared.dtype == clean.dtype
    assert np.array_equal(cleared[~air], clean[~air])


def test_a_store_with_cleared_air_has_an_id_of_its_own_and_all_else_of_the_store(ct_store):
    one = ClearedAir(ct_store)
    assert one.id == f"{ct_store.id}+air clear" and one.card == ct_store.card and one.units == "hu"
    assert np.array_equal(one.positions("train"), ct_store.positions("train"))
    assert np.array_equal(one.masks([3]), ct_store.masks([3]))
    assert np.array_equal(one.read([5, 2])[1], one[2])


def written(folder, units, channels=1):
    with StoreWriter(folder, (channels, 32, 32), np.float32) as writer:
        for number, image in enumerate(body(9, air=300, top=2000)[0]):
            writer.append(np.repeat(image, channels, 0).astype(np.float32), {"label": str(number % 3)})
        return writer.finish(np.resize(["train", "val", "test"], 9), units=units, domain="ct")


def test_stored_values_are_then_for_display(tmp_path):
    one = ClearedAir(written(tmp_path / "s", "stored"))
    assert one.units == one.card.units == "display" and one.read([0]).max() == 255


def test_colours_have_no_air(tmp_path):
    with pytest.raises(StoreError, match="these are in colour"):
        ClearedAir(written(tmp_path / "s", "rgb", channels=3))


def test_positions_and_slices_of_an_altered_store_are_those_of_a_list(ct_store):
    some = SelectedRows(ct_store, np.array([7, 3, 11, 20]))
    whole = some.read(np.arange(4))
    for part in (slice(1, 3), slice(None, None, -2), slice(9, None), -1):
        assert np.array_equal(some[part], whole[part])
    assert len(list(some)) == 4  # iteration ends at the first IndexError
    with pytest.raises(IndexError, match="position 4 of 4 images"):
        some[4]


def test_selected_rows_are_a_store_of_these_rows_alone(ct_store):
    chosen = np.array([7, 3, 11, 20])
    some = SelectedRows(ct_store, chosen)
    assert len(some) == 4 and some.shape == ct_store.shape and isinstance(some, Images)
    assert np.array_equal(some.read([1, 2]), ct_store.read([3, 11])) and np.array_equal(some[0], ct_store[7])
    assert np.array_equal(some.masks([3]), ct_store.masks([20]))
    assert some.column("label").tolist() == np.asarray(ct_store.column("label"))[chosen].tolist()
    assert list(some.rows.index) == chosen.tolist()
    for split in ("train", "val", "test"):
        assert set(chosen[some.positions(split)]) == set(chosen) & set(ct_store.positions(split))


def test_the_id_of_selected_rows_depends_on_the_rows_and_the_store(ct_store):
    stores = [ct_store, noisy(ct_store)]
    assert len({SelectedRows(store, np.array(rows)).id for store in stores for rows in ([1, 2], [2, 1], [1])}) == 6


@pytest.mark.parametrize("most", [1, 13, 30, 47])
def test_a_sample_has_whole_patients_and_at_most_so_many_images(ct_store, most):
    some = sampled(ct_store, seed=0, most=most)
    assert isinstance(some, SelectedRows) and len(some) == max(6, most // 6 * 6)  # six slices of each patient
    patients = ct_store.column("patient")
    assert np.isin(patients, patients[some.selected]).sum() == len(some) and (np.diff(some.selected) > 0).all()


def test_a_small_store_is_not_sampled_and_another_seed_draws_other_patients(ct_store):
    assert sampled(ct_store, seed=0) is ct_store and sampled(ct_store, seed=0, most=48) is ct_store
    assert sampled(ct_store, seed=0, most=12).id == sampled(ct_store, seed=0, most=12).id
    assert len({sampled(ct_store, seed=seed, most=12).id for seed in range(9)}) > 3


def test_images_without_a_patient_are_sampled_one_by_one(tmp_path):
    assert len(sampled(written(tmp_path / "s", "stored"), seed=0, most=7)) == 7
