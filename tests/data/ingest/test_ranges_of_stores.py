"""Intensity ranges of whole stores: what a backbone reads of archives with several depths, modalities and scales."""

import numpy as np
import tifffile
import torch
from PIL import Image

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.intensity import Scale, physical_values

RAMP = np.outer(np.linspace(0, 1, 8), np.ones(8))  # from the darkest row to the brightest


def unit(store):
    """Unit intensities of all images, as a backbone gets them."""
    images = torch.from_numpy(store.read(np.arange(len(store))).astype(np.float32))
    return Scale.of_store(store.card, (-160, 240)).unit(images).numpy()


def by_file(store):
    """Physical values of the images (H, W), by the first words of their files' names."""
    values = physical_values(store, np.arange(len(store)))
    return {name.split(".")[0]: image[0] for name, image in zip(store.column("file"), values, strict=True)}


def stored(bits):
    return np.rint(RAMP * (2**bits - 1)).astype(np.uint16)


def extremes(store):
    """Smallest and largest unit intensity of each image."""
    values = unit(store)
    return [(float(v.min()), float(v.max())) for v in values]


def test_8_and_16_bit_pictures_have_one_scale(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(stored(8).astype(np.uint8)).save(tmp_path / "in" / f"eight_{number}.png")
        Image.fromarray(stored(16)).save(tmp_path / "in" / f"sixteen_{number}.png")
        tifffile.imwrite(tmp_path / "in" / f"twelve_{number}.tif", stored(16))
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert store.units == "scaled" and extremes(store) == [(0, 1)] * 9
    assert set(store.column("intensity")) == {"display", "bits"}


def test_pictures_of_16_bits_alone_keep_their_values_in_the_depth_that_is_in_use(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray((stored(12) // (number + 1)).astype(np.uint16)).save(tmp_path / "in" / f"{number}.png")
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert (store.units, store.card.value_range) == ("stored", (0, 4095))
    assert np.array_equal(by_file(store)["1"], stored(12) // 2)
