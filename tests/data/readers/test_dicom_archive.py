"""An archive whose files do not fit into memory gives the store of one that does."""

import pytest

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers import dicom_archive, items
from ssl_transfer.data.readers.phantom.generate import write_ct


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_ct(folder, patients=4, slices=4, size=12)
    for number, path in enumerate(sorted((folder / "images").rglob("*.dcm"))):  # series are mixed by the names of files
        path.rename(folder / "images" / f"{number * 37 % 101:03d}.dcm")
    return folder / "images"


@pytest.mark.parametrize("in_memory", [0, 7])
def test_items_that_are_in_a_file_give_the_same_store(archive, tmp_path, monkeypatch, in_memory):
    whole = ingest(archive, tmp_path / "whole", workers=1)
    for module in (items, dicom_archive):
        monkeypatch.setattr(module, "IN_MEMORY", in_memory)
    store = ingest(archive, tmp_path / "store", workers=1)
    assert store.id == whole.id and store.card.decisions == whole.card.decisions
    assert store.rows.equals(whole.rows) and len(store) == 16
