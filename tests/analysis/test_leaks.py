"""The leak finder: planted near-duplicates across splits are found, clean images and one patient's own give none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from ssl_transfer.analysis import leaks as leaks_module
from ssl_transfer.analysis.leaks import find_leaks
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.measures.neighborhood import Neighborhood

CHANGES = {
    "the same": lambda image, draw: image,
    "jpeg": lambda image, draw: _jpeg(image, 60),
    "brighter": lambda image, draw: image * 0.8 + 40,
    "noise": lambda image, draw: image + draw.normal(0, 4, image.shape),
    "mirrored": lambda image, draw: image[:, ::-1],
    "moved": lambda image, draw: ndimage.shift(image, (1, -2), mode="nearest"),
}


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file), float)


def textures(count: int, draw) -> np.ndarray:
    """Pictures of one layout, as scans of one body part are, each with details of its own."""
    layout = ndimage.gaussian_filter(draw.normal(size=(64, 64)), 8)
    own = ndimage.gaussian_filter(draw.normal(size=(count, 64, 64)), (0, 1.5, 1.5))
    images = layout / layout.std() + 0.7 * own / own.std()
    return (127 + 40 * images).clip(0, 255)


def stored(folder: Path, train: np.ndarray, test: np.ndarray, groups=None):
    """A store of given splits; by default every image is of another patient."""
    arrays = {}
    start = 0
    for split, images in (("train", train), ("val", train[:0]), ("test", test)):
        arrays[f"{split}_images"] = images.clip(0, 255).astype(np.uint8)
        arrays[f"{split}_labels"] = np.zeros((len(images), 1), int)
        own = np.arange(start, start + len(images)) if groups is None else groups[start : start + len(images)]
        arrays[f"{split}_groups"] = own
        start += len(images)
    arrays = {name: values for name, values in arrays.items() if not name.startswith("val")}
    np.savez(folder / "pack.npz", **arrays)
    return ingest(folder / "pack.npz", folder / "store", domain="xray/chest", workers=1)


def seen(store) -> Neighborhood:
    """The neighbourhood of small versions of the images, which stand for a backbone's features."""
    images = np.asarray(store.read(np.arange(len(store))), np.float32)[:, 0]
    small = ndimage.zoom(images, (1, 0.25, 0.25), order=1).reshape(len(images), -1)
    return Neighborhood.of(small - small.mean(0), 10)


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_near_duplicate_is_found_and_nothing_else(tmp_path, change):
    draw = np.random.default_rng(0)
    images = textures(90, draw)
    planted = [CHANGES[change](images[i], draw) for i in (3, 7, 40)]
    store = stored(tmp_path, images[:60], np.concatenate([images[60:], planted]))
    if change == "mirrored":  # a mirror image is no neighbour of pixels, as it is of features that ignore sides
        positions = np.stack([np.full(93, 90), np.full(93, 91), np.full(93, 92)], 1)
        near = Neighborhood(np.ones((93, 3), np.float32), np.zeros((93, 3)), positions, "exact", 1.0)
    else:
        near = seen(store)
    found = find_leaks(store, near).across
    assert {(row.row_a, row.row_b) for row in found.itertuples()} == {(3, 90), (7, 91), (40, 92)}
    assert set(found["split_a"]) == {"train"} and set(found["split_b"]) == {"test"}


def test_clean_images_give_no_leak(tmp_path):
    images = textures(90, np.random.default_rng(1))
    leaks = find_leaks(*(lambda store: (store, seen(store)))(stored(tmp_path, images[:60], images[60:])))
    assert len(leaks.pairs) == 0 and leaks.compared > 90
    assert leaks.sentence().startswith("No near-duplicates across splits")


def test_within_a_split_near_duplicates_of_two_patients_are_listed_and_of_one_patient_are_not(tmp_path):
    images = textures(60, np.random.default_rng(2))
    images[1], images[3] = images[0], images[2]
    groups = np.arange(60)
    groups[1] = 0  # the patient of image 0; image 3 is another patient's than image 2
    store = stored(tmp_path, images[:40], images[40:], groups)
    leaks = find_leaks(store, seen(store))
    assert leaks.pairs[["row_a", "row_b"]].to_numpy().tolist() == [[2, 3]] and not len(leaks.across)


def test_empty_images_are_not_duplicates_of_each_other(tmp_path):
    images = textures(60, np.random.default_rng(3))
    images[[5, 6, 50]] = 7
    store = stored(tmp_path, images[:40], images[40:])
    assert not len(find_leaks(store, seen(store)).pairs)


class InMemory:
    """What the finder asks of a store, of images of any kind."""

    units = "stored"

    def __init__(self, images: np.ndarray):
        self.images = images.astype(np.float32)[:, None]

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.images[rows]


@pytest.fixture(scope="module")
def gallery():
    """Textures, pure noise, each of their changes, empty and damaged images; and all pairs of them."""
    draw = np.random.default_rng(4)
    images = np.concatenate([textures(30, draw), 127 + 40 * draw.normal(size=(20, 64, 64))])
    changed = [change(images[i], draw) for i in range(0, 50, 5) for change in CHANGES.values()]
    damaged = np.stack([images[0] * 0, images[0] * np.nan, np.where(np.eye(64) > 0, np.nan, images[1])])
    images = np.concatenate([images, changed, damaged, np.full((2, 64, 64), np.inf)])
    return InMemory(images), *np.triu_indices(len(images), 1)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.92])
def test_excluding_pairs_by_a_bound_changes_no_result(gallery, threshold, monkeypatch):
    monkeypatch.setattr(leaks_module, "PAIRS", 100)
    short = leaks_module._band_pass_correlations(*gallery, threshold)
    whole = leaks_module._band_pass_correlations(*gallery, -1.0)
    found = whole >= threshold
    assert np.array_equal(short >= threshold, found) and short[found] == pytest.approx(whole[found], abs=1e-6)
    assert 50 < found.sum() < 400


def test_correlations_are_the_best_of_all_shifts(gallery):
    """Of details as they are compared: circular, up to four pixels each way, and the mirrored image up to one more."""
    store, *_ = gallery
    first, second = np.array([0, 0, 31, 4]), np.array([50, 54, 60, 7])
    spectra = leaks_module._spectra(store, np.unique(np.concatenate([first, second])))
    details = dict(
        zip(np.unique(np.concatenate([first, second])).tolist(), torch.fft.irfft2(spectra).numpy(), strict=True)
    )
    found = leaks_module._band_pass_correlations(store, first, second, -1.0)
    for a, b, value in zip(first, second, found, strict=True):
        mirrored = np.roll(details[b][:, ::-1], 1, 1)  # as transforms mirror: around the first column
        shifts = [
            np.roll(turned, (y, x), (0, 1))
            for turned in (details[b], mirrored)
            for y in range(-4, 5)
            for x in range(-4, 5)
        ]
        assert value == pytest.approx(max((details[a] * shifted).sum() for shifted in shifts), abs=1e-5)


def test_no_correlation_is_above_the_bound_and_most_bounds_are_below_the_threshold(gallery):
    correlations = leaks_module._band_pass_correlations(*gallery, -1.0)
    for threshold in np.quantile(correlations, np.linspace(0.02, 0.98, 25)):
        possible = leaks_module._candidate_pairs(*gallery, threshold)
        assert set(np.flatnonzero(correlations >= threshold)) <= set(possible)
    assert len(leaks_module._candidate_pairs(*gallery, 0.92)) < 0.5 * len(correlations)


def test_damaged_pixels_are_near_duplicates_of_no_image(gallery):
    store, first, second = gallery
    found = leaks_module._band_pass_correlations(store, first, second, 0.92) >= 0.92
    damaged = np.flatnonzero(~np.isfinite(store.images).all((1, 2, 3)))
    assert len(damaged) == 4 and not found[np.isin(first, damaged) | np.isin(second, damaged)].any()


@pytest.mark.parametrize("deviation", [1.0, 2.0, 3.0])
def test_a_blur_is_scipy_s_gaussian_with_edges_repeated(deviation):
    images = torch.rand(3, 64, 64)
    expected = ndimage.gaussian_filter(images.numpy(), (0, deviation, deviation), mode="nearest", truncate=3)
    assert leaks_module._blurred(images, deviation).numpy() == pytest.approx(expected, abs=1e-5)


def test_the_number_of_threads_changes_nothing_and_stays_as_it_was(gallery):
    before = torch.get_num_threads()
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(leaks_module._band_pass_correlations(*gallery, 0.8))
        assert torch.get_num_threads() == count
    torch.set_num_threads(before)
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.skipif("SSL_TRANSFER_REALDATA" not in os.environ, reason="SSL_TRANSFER_REALDATA names no image packs")
def test_chest_x_rays_are_clean_and_med_nist_is_not(tmp_path):
    packs = Path(os.environ["SSL_TRANSFER_REALDATA"])
    counts = {}
    for name in ("cxr_pneumonia", "mednist_ct"):
        store = ingest(packs / name / f"{name}.npz", tmp_path / name, workers=1)
        images = np.asarray(store.read(np.arange(len(store))), np.float32).mean(1)
        small = ndimage.zoom(images, (1, 0.25, 0.25), order=1).reshape(len(images), -1)
        counts[name] = len(find_leaks(store, Neighborhood.of(small - small.mean(0), 10)).across)
    assert counts["cxr_pneumonia"] == 0 and counts["mednist_ct"] > 100  # slices of one volume, on both sides
