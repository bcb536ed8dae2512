"""Thumbnails of small stores drawn on the spot: windows, shapes, order."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from support.tiny_tasks import write_task

from ssl_transfer.analysis.thumbnails import thumbnails
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError


def store_of(folder, images, units="display") -> ImageStore:
    """Of images (N, C, H, W)."""
    write_task(folder, images, ["train"] * len(images), {"label": ["a"] * len(images)}, units=units)
    return ImageStore(folder / "store")


def flat(*values, shape=(1, 8, 8), dtype=np.uint8) -> np.ndarray:
    """An image of one value each."""
    return np.stack([np.full(shape, value, dtype) for value in values])


def test_hu_are_shown_in_the_soft_tissue_window(tmp_path):
    small = thumbnails(store_of(tmp_path, flat(-1000, -160, 40, 240, 1500, dtype=np.int16), "hu"), px=4)
    assert small.dtype == np.uint8 and small.shape == (5, 4, 4)
    assert small[:, 0, 0].tolist() == [0, 0, 128, 255, 255] and (small == small[:, :1, :1]).all()


def test_stored_values_are_shown_in_the_value_range_of_the_store(tmp_path):
    ramp = np.tile(np.arange(16, dtype=np.float32), (16, 1))[None, None]
    small = thumbnails(store_of(tmp_path, np.concatenate([ramp, 15 - 2 * ramp]), "stored"), px=16)
    assert small[0, 0, 0] in (127, 128) and small[1, 0, 0] == 255 and small[1, 0, -1] == 0


def test_an_oblong_image_keeps_its_aspect_between_black_bars(tmp_path):
    small = thumbnails(store_of(tmp_path, flat(200, shape=(1, 8, 16))), px=8)[0]
    assert (small[2:6] == 200).all() and not small[:2].any() and not small[6:].any()


def test_three_channels_stay_three(tmp_path):
    image = np.stack([np.full((8, 8), value, np.uint8) for value in (10, 20, 30)])[None]
    assert thumbnails(store_of(tmp_path / "rgb", image, "rgb"), px=4)[0, 1, 1].tolist() == [10, 20, 30]


def test_rows_are_in_the_requested_order_for_any_batch_size(tmp_path, monkeypatch):
    store, rows, read = store_of(tmp_path, flat(*range(20))), np.array([7, 3, 19, 3, 0]), []
    monkeypatch.setattr(sys.modules[thumbnails.__module__], "BATCH_PIXELS", 2 * 64)
    monkeypatch.setattr(
        ImageStore, "read", lambda self, at: read.append(len(at)) or self._pixels.read(at), raising=True
    )
    assert thumbnails(store, rows, px=2)[:, 0, 0].tolist() == [7, 3, 19, 3, 0]
    assert read == [2, 2, 1]
    assert thumbnails(store, np.array([], int)).shape == (0, 32, 32)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"px": 0}, "found px=0"),
        ({"rows": np.array([1, 2])}, "no image 2.*0 to 1"),
        ({"rows": np.array([-1])}, "image -1"),
    ],
    ids=["no pixels", "beyond", "negative"],
)
def test_an_invalid_size_or_position_is_refused(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        thumbnails(store_of(tmp_path, flat(1, 2)), **options)
