"""A store that is replaced while a stage reads it ends the stage, and nothing of it is saved."""

import shutil

import pytest
from support.tiny_tasks import class_task

from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.store_watch import StoreWatch
from ssl_transfer.errors import StoreError
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone


@pytest.fixture
def stores(tmp_path):
    """Two tasks with different images."""
    return [
        class_task(tmp_path / name, shift=number, labels=None, size=16 + 16 * number)
        for number, name in enumerate("ab")
    ]


def replace_store(task, other):
    """Put the store of another task in the place of a task's store."""
    shutil.rmtree(task.store.path)
    shutil.copytree(other.store.path, task.store.path)


def test_a_store_that_stays_is_no_error_even_if_it_is_copied_to_its_place_again(stores, tmp_path):
    task = stores[0]
    watch = StoreWatch([task.store])
    watch.check()
    shutil.copytree(task.store.path, tmp_path / "copy")
    shutil.rmtree(task.store.path)
    shutil.copytree(tmp_path / "copy", task.store.path)
    watch.check()


def test_a_store_that_was_replaced_or_deleted_is_named_with_both_ids(stores):
    watch, before = StoreWatch([stores[0].store]), stores[0].store.id
    replace_store(*stores)
    with pytest.raises(
        StoreError, match=rf"was replaced while it was read: it was {before}, and is {stores[1].store.id}"
    ):
        watch.check()
    shutil.rmtree(stores[0].store.path)
    with pytest.raises(StoreError, match="is gone now"):
        watch.check()


def test_features_of_a_store_that_was_replaced_meanwhile_are_not_saved(stores, tmp_path, monkeypatch):
    backbone = load_backbone("scratch:resnet10t,in_channels=1,size=16")
    read = ImageStore.read

    def replacing(store, positions):
        images = read(store, positions)
        if store.path == stores[0].store.path and store.path.exists() and ImageStore(store.path).id == store.id:
            replace_store(*stores)
        return images

    monkeypatch.setattr(ImageStore, "read", replacing)
    with pytest.raises(StoreError, match="was replaced while it was read"):
        extract_features(backbone, stores[0].store, tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_pretraining_whose_store_was_replaced_writes_no_checkpoint_of_it(
    runs, ct_store, photo_store, tmp_path, monkeypatch
):
    shutil.copytree(ct_store.path, tmp_path / "store")
    opened = StoreWatch.__init__
    monkeypatch.setattr(StoreWatch, "__init__", lambda watch, stores: (opened(watch, stores), swap())[0])

    def swap():
        shutil.rmtree(tmp_path / "store")
        shutil.copytree(photo_store.path, tmp_path / "store")

    with pytest.raises(StoreError):
        runs(tmp_path / "run", f"data.store={tmp_path / 'store'}", "monitor.label=modality")
    assert not list((tmp_path / "run").glob("checkpoints/*.pt")) and not (tmp_path / "run/backbone").exists()
