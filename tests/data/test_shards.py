"""Shards: whichever way an image is read, it is the same image."""

import os

import numpy as np
import pytest

from ssl_transfer.data import shards
from ssl_transfer.data.shards import ShardReader, ShardWriter
from ssl_transfer.errors import StoreError

SHAPE, PER_SHARD = (1, 64, 64), 3


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(-1024, 3000, (10, *SHAPE)).astype(np.int16)


def written(folder, images, compressed, monkeypatch):
    """Ten images in four shards."""
    monkeypatch.setattr(shards, "SHARD_BYTES", PER_SHARD * images[0].nbytes)
    writer = ShardWriter(folder, "pixels", SHAPE, images.dtype, compressed)
    for image in images:
        writer.append(image)
    writer.close()


def reader(folder, compressed, images=10):
    return ShardReader(folder, "pixels", SHAPE, "<i2", PER_SHARD, compressed, images)


def dropped_from_cache(folder):
    for path in folder.glob("pixels-*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_images_are_the_same_from_disk_and_from_cache(tmp_path, images, monkeypatch, compressed, mapped):
    written(tmp_path, images, compressed, monkeypatch)
    dropped_from_cache(tmp_path)
    opened = reader(tmp_path, compressed, 10 if mapped else None)
    assert opened.mapped == mapped
    order = [9, 0, 4, 4, 1]
    for _ in range(2):
        assert np.array_equal(opened.read(order), images[order])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_batch_from_more_shards_than_may_stay_open_is_whole(tmp_path, images, monkeypatch, compressed):
    written(tmp_path, images, compressed, monkeypatch)
    monkeypatch.setattr(shards, "OPEN_SHARDS", 1)
    opened, before = reader(tmp_path, compressed, None), len(os.listdir("/proc/self/fd"))
    assert np.array_equal(opened.read(range(10)), images)
    assert len(os.listdir("/proc/self/fd")) == before + 1


def test_a_large_store_is_not_mapped(tmp_path, images, monkeypatch):
    written(tmp_path, images, False, monkeypatch)
    monkeypatch.setattr(shards, "MAPPED_BYTES", images.nbytes - 1)
    assert not reader(tmp_path, False).mapped


def test_a_file_system_that_cannot_say_what_is_cached_is_read_all_the_same(tmp_path, images, monkeypatch):
    written(tmp_path, images, False, monkeypatch)
    monkeypatch.setattr(os, "RWF_NOWAIT", 1 << 30)  # the kernel refuses flags that it does not know
    with open(tmp_path / "pixels-00000.npy", "rb") as file:
        assert not shards._is_cached(file.fileno(), 0)
    assert np.array_equal(reader(tmp_path, False).read([7, 2]), images[[7, 2]])


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_truncated_shard_is_named_with_the_image_that_it_lacks(tmp_path, images, monkeypatch, compressed, mapped):
    written(tmp_path, images, compressed, monkeypatch)
    shard = tmp_path / f"pixels-00001.{'b2' if compressed else 'npy'}"
    os.truncate(shard, shard.stat().st_size - 10)
    opened = reader(tmp_path, compressed, 10 if mapped else None)
    assert np.array_equal(opened.read([3, 4]), images[[3, 4]])
    with pytest.raises(StoreError, match="pixels-00001 ends before image 2"):
        opened.read([0, 5])


def test_a_missing_offset_index_is_named(tmp_path, images, monkeypatch):
    written(tmp_path, images, True, monkeypatch)
    (tmp_path / "pixels-00000.offsets.npy").unlink()
    with pytest.raises(StoreError, match=r"pixels-00000\.offsets\.npy is missing"):
        reader(tmp_path, True).read([0])
