"""Integrity of stores: every kind of damage is one sentence, at opening or by `verify`, and never wrong pixels."""

import json
import time

import numpy as np
import pandas
import pytest

from ssl_transfer.data import integrity, shards
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.errors import StoreError

IMAGES = np.random.default_rng(0).integers(-1024, 3000, (23, 1, 6, 5)).astype(np.int16)


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def store(request, tmp_path, monkeypatch):
    """23 images with masks in three shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 10 * 60)
    with StoreWriter(tmp_path / "s", (1, 6, 5), np.int16, np.uint8, request.param) as writer:
        for image in IMAGES:
            writer.append(image, {"label": "a", "patient": "p"}, (image[0] > 0).astype(np.uint8))
        return writer.finish(np.array(["train"] * 20 + ["test"] * 3), units="stored", domain="unknown")


def edit(path, start, content):
    data = bytearray(path.read_bytes())
    data[start : start + len(content)] = content
    path.write_bytes(bytes(data))


def test_an_intact_store_has_no_differences(store):
    assert store.verify() == []
    assert set(store.card.checksums) == {
        path.name for path in store.path.iterdir() if not path.name.endswith("offsets.npy") and path.name != "card.json"
    }


@pytest.mark.parametrize("store", [False], indirect=True)
def test_zeroed_pixels_are_noticed_at_opening(store):
    for path in store.path.glob("pixels-*.npy"):
        edit(path, 128, bytes(path.stat().st_size - 128))
    with pytest.raises(StoreError, match=r"image 0 has other pixels than those that were written.*ssl-transfer verify"):
        ImageStore(store.path)


@pytest.mark.parametrize("store", [False], indirect=True)
def test_a_flipped_bit_anywhere_in_the_pixels_is_found_by_verify_with_its_position(store):
    edit(store.path / "pixels-00001.npy", 128 + 3 * 60 + 7, b"\xff\x01")
    [problem] = ImageStore(store.path).verify()
    assert problem == "pixels-00001.npy: 1 of 10 images differ from what was written, the first is image 13"


def test_a_damaged_frame_or_mask_is_found_by_verify(store):
    path = store.path / f"masks-00001.{'b2' if store.card.compressed else 'npy'}"
    edit(path, path.stat().st_size - 9, b"\x55" * 9)
    [problem] = ImageStore(store.path).verify()
    assert problem.startswith(f"{path.name}: ") and "of 3 images differ" in problem


def test_edited_labels_are_found_by_verify(store):
    rows = store.rows
    rows.loc[0, "label"] = "b"
    rows.to_parquet(store.path / "rows.parquet", index=False)
    assert ImageStore(store.path).verify() == ["rows.parquet has other content than what was written"]


def test_digests_that_were_edited_together_with_pixels_are_found_by_verify(store):
    rows = pandas.read_parquet(store.path / "rows.parquet")
    rows.loc[13, "pixel_digest"] = "0" * 32
    rows.to_parquet(store.path / "rows.parquet", index=False)
    assert any("other digests than the card states" in problem for problem in ImageStore(store.path).verify())


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: (path / "pixels-00001").with_suffix(".npy").unlink(), r"pixels-00001.npy is missing"),
        (lambda path: (path / "rows.parquet").unlink(), "rows.parquet is missing"),
        (lambda path: (path / "split-test.npy").unlink(), "split-test.npy is missing"),
        (lambda path: (path / "pixels-00002.npy").write_bytes(b""), "pixels-00002.npy cannot be read"),
        (lambda path: (path / "masks-00000.npy").write_bytes(b"\x93NUMPY"), "masks-00000.npy has 6 bytes"),
    ],
)
@pytest.mark.parametrize("store", [False], indirect=True)
def test_missing_and_empty_files_are_named_at_opening(store, damage, message):
    damage(store.path)
    with pytest.raises(StoreError, match=message):
        ImageStore(store.path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_images": "23"}, "n_images is '23'"),
        ({"n_images": 22}, "splits have more images"),
        ({"n_images": 24}, r"bytes, but its 4 images take"),
        ({"n_images": 31}, "31 images in shards of 10 are not 3 shards"),
        ({"n_images": -1}, "n_images"),
        ({"size": [100_000, 100_000]}, "takes more than"),
        ({"size": [6, 6]}, r"bytes, but its 10 images take"),
        ({"images_per_shard": 0}, "images_per_shard is 0"),
        ({"channels": 2}, "2 channels"),
        ({"dtype": "object"}, "dtype is 'object'"),
        ({"splits": {"train": {"images": 99, "patients": 1}}}, "splits have more images"),
        ({"splits": []}, "damaged"),
        ({"masks": {"dtype": "|u1"}}, "damaged"),
        ({"value_range": None}, "value_range"),
        ({"checksums": None}, "checksums"),
        ({"sample": {"23": "x"}}, "beyond 23 images"),
        ({"schema": 1, "source": "my archive"}, r"no checksums.*ssl-transfer ingest 'my archive' --out"),
        ({"schema": 2}, r"other digests of pixels.*ssl-transfer ingest"),
        ({"schema": 3}, r"other fingerprints.*ssl-transfer ingest"),
        ({"schema": "3"}, "Update ssl_transfer"),
    ],
    ids=str,
)
@pytest.mark.parametrize("store", [False], indirect=True)
def test_a_card_with_a_wrong_value_is_one_sentence(store, changes, message):
    card = store.card.to_json()
    (store.path / "card.json").write_text(json.dumps({**card, **changes}))
    with pytest.raises(StoreError, match=message):
        ImageStore(store.path)


@pytest.mark.parametrize("store", [False], indirect=True)
def test_positions_of_a_split_out_of_range_are_refused(store):
    np.save(store.path / "split-test.npy", np.array([20, 21, 99]))
    with pytest.raises(StoreError, match=r"split-test.npy: has other positions than the 3 of the card"):
        store.positions("test")


@pytest.mark.parametrize("store", [False], indirect=True)
def test_opening_a_store_takes_milliseconds(store):
    ImageStore(store.path)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        ImageStore(store.path)
        seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[10] < 0.02


def test_the_sample_has_the_first_and_the_last_image():
    assert integrity.sample_positions(1) == [0]
    assert integrity.sample_positions(12_000_000)[::3] == [0, 11_999_999]
