"""The image store: what is written comes back, and damage is reported."""

import json

import numpy as np
import pytest

from ssl_transfer.data import shards as shards_module
from ssl_transfer.data.card import StoreCard
from ssl_transfer.data.digests import pixel_digest
from ssl_transfer.data.store import ImageStore, StoreWriter
from ssl_transfer.errors import StoreError


def write(out, images, masks=None, compress=False, splits=None):
    dtype = None if masks is None else masks.dtype
    with StoreWriter(out, images.shape[1:], images.dtype, dtype, compress) as writer:
        for number, image in enumerate(images):
            writer.append(image, {"label": "a"}, None if masks is None else masks[number])
        splits = np.array(["train"] * len(images)) if splits is None else splits
        return writer.finish(splits, units="stored", domain="unknown", mask_classes={1: "one"})


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(-1024, 3000, (7, 1, 6, 5)).astype(np.int16)


def test_slices_of_a_store_are_images(tmp_path, images):
    store = write(tmp_path / "s", images)
    for part in (slice(3), slice(-2, None), slice(None, None, -3)):
        assert np.array_equal(store[part], images[part])


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("shard_bytes", [2**20, 2 * 60])
def test_images_and_masks_come_back_from_any_number_of_shards(tmp_path, images, monkeypatch, compress, shard_bytes):
    monkeypatch.setattr(shards_module, "SHARD_BYTES", shard_bytes)
    masks = (images[:, 0] > 0).astype(np.uint8)
    store = write(tmp_path / "s", images, masks, compress)
    order = [6, 0, 3, 3]
    assert np.array_equal(store.read(order), images[order])
    assert np.array_equal(store.masks(order), masks[order])
    assert np.array_equal(store[-1], images[-1])


def test_a_plain_shard_is_a_npy_file(tmp_path, images):
    write(tmp_path / "s", images)
    assert np.array_equal(np.load(tmp_path / "s" / "pixels-00000.npy"), images)


def test_equal_content_has_an_equal_id_however_it_is_stored(tmp_path, images):
    plain, packed = write(tmp_path / "a", images), write(tmp_path / "b", images, compress=True)
    other = write(tmp_path / "c", images + 1)
    assert plain.id == packed.id != other.id


def test_a_failed_write_leaves_nothing(tmp_path, images):
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "s", (1, 6, 5), np.int16) as writer:
        writer.append(images[0], {})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_splits_are_read_by_position(tmp_path, images):
    store = write(tmp_path / "s", images, splits=np.array(["val", "train", "train", "train", "val", "train", "train"]))
    assert store.positions("val").tolist() == [0, 4]
    with pytest.raises(StoreError, match="no 'test' split"):
        store.positions("test")


def test_value_range_comes_from_training_pixels(tmp_path, images):
    images[0] = 30000
    store = write(tmp_path / "s", images, splits=np.array(["test"] + ["train"] * 6))
    low, high = store.card.value_range
    assert np.allclose([low, high], np.percentile(images[1:], [0.5, 99.5]), atol=1e-3)


def test_a_truncated_shard_is_named(tmp_path, images):
    store = write(tmp_path / "s", images)
    shard = tmp_path / "s" / "pixels-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(StoreError, match="pixels-00000 ends before image 6"):
        store[6]
    with pytest.raises(
        StoreError, match=r"pixels-00000.npy has 538 bytes, but its 7 images take 548: it was truncated"
    ):
        ImageStore(tmp_path / "s")


@pytest.mark.parametrize("content", [None, "{}", "not json"])
def test_a_folder_that_is_no_store_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(StoreError, match="no image store"):
        ImageStore(tmp_path)


def test_a_store_of_an_unknown_schema_is_refused(tmp_path, images):
    card = write(tmp_path / "s", images).card.to_json()
    (tmp_path / "s" / "card.json").write_text(json.dumps({**card, "schema": 99}))
    with pytest.raises(StoreError, match="schema 99"):
        ImageStore(tmp_path / "s")


def test_a_card_comes_back_as_it_was_written(tmp_path, images):
    card = write(tmp_path / "s", images, (images[:, 0] > 0).astype(np.uint8)).card
    assert StoreCard.load(tmp_path / "s") == card
    assert json.loads((tmp_path / "s" / "card.json").read_text()) == card.to_json()


def test_a_damaged_card_is_refused(tmp_path, images):
    card = write(tmp_path / "s", images).card.to_json()
    del card["n_images"]
    (tmp_path / "s" / "card.json").write_text(json.dumps(card))
    with pytest.raises(StoreError, match="n_images"):
        ImageStore(tmp_path / "s")


def test_a_missing_store_is_reported_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(StoreError, match="ssl-transfer ingest SOURCE --out"):
        ImageStore(tmp_path / "nothing")


def test_a_digest_names_shape_and_dtype_too():
    flat = np.zeros(4, np.uint8)
    assert len({pixel_digest(a) for a in (flat, flat.reshape(2, 2), np.zeros(2, np.int16))}) == 3
