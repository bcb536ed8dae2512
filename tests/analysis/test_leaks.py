"""The leak finder: planted near-duplicates across splits are found, clean images and one patient's own give none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ssl_transfer.analysis.leaks import find_leaks
from ssl_transfer.analysis.neighborhood import Neighborhood
from ssl_transfer.data.ingest import ingest

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
    """A store of given splits; patients differ unless told."""
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
    images = np.asarray(store.__getitems__(np.arange(len(store))), np.float32)[:, 0]
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


def test_clean_images_give_no_finding_and_say_so(tmp_path):
    images = textures(90, np.random.default_rng(1))
    leaks = find_leaks(*(lambda store: (store, seen(store)))(stored(tmp_path, images[:60], images[60:])))
    assert len(leaks.pairs) == 0 and leaks.compared > 90
    assert leaks.sentence().startswith("No near-duplicates across splits")


def test_within_a_split_one_patient_may_look_alike_and_two_may_not(tmp_path):
    images = textures(60, np.random.default_rng(2))
    images[1], images[3] = images[0], images[2]
    groups = np.arange(60)
    groups[1] = 0  # the patient of image 0; image 3 is another patient's than image 2
    store = stored(tmp_path, images[:40], images[40:], groups)
    leaks = find_leaks(store, seen(store))
    assert leaks.pairs[["row_a", "row_b"]].to_numpy().tolist() == [[2, 3]] and not len(leaks.across)


def test_empty_images_are_no_duplicates_of_each_other(tmp_path):
    images = textures(60, np.random.default_rng(3))
    images[[5, 6, 50]] = 7
    store = stored(tmp_path, images[:40], images[40:])
    assert not len(find_leaks(store, seen(store)).pairs)


@pytest.mark.long
@pytest.mark.realdata
@pytest.mark.skipif("SSL_TRANSFER_REALDATA" not in os.environ, reason="SSL_TRANSFER_REALDATA names no image packs")
def test_chest_x_rays_are_clean_and_med_nist_is_not(tmp_path):
    packs = Path(os.environ["SSL_TRANSFER_REALDATA"])
    counts = {}
    for name in ("cxr_pneumonia", "mednist_ct"):
        store = ingest(packs / name / f"{name}.npz", tmp_path / name, workers=1)
        images = np.asarray(store.__getitems__(np.arange(len(store))), np.float32).mean(1)
        small = ndimage.zoom(images, (1, 0.25, 0.25), order=1).reshape(len(images), -1)
        counts[name] = len(find_leaks(store, Neighborhood.of(small - small.mean(0), 10)).across)
    assert counts["cxr_pneumonia"] == 0 and counts["mednist_ct"] > 100  # slices of one volume, on both sides
