"""Ingest in parts, for a cluster: the merged store is that of one ingest, whatever the order of the parts."""

import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image

from ssl_transfer.data.ingest import parts, progress
from ssl_transfer.data.ingest.parts import ingest_part, merge_parts
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.phantom.generate import write_ct
from ssl_transfer.errors import OutputError, SourceError, UsageError


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """CT of four patients with masks: a file is given twice, another is unreadable, and series straddle parts."""
    folder = tmp_path_factory.mktemp("archive")
    settings = write_ct(folder, patients=4, slices=5, size=16)
    files = sorted((folder / "images").rglob("*.dcm"))
    shutil.copy(files[3], files[3].with_name("copy.dcm"))
    mask = folder / "masks" / files[3].parent.name
    shutil.copy(mask / f"{files[3].stem}.png", mask / "copy.png")
    damaged = pydicom.dcmread(files[11])
    damaged.PixelData = damaged.PixelData[:100]
    damaged.save_as(files[11])
    return folder / "images", {"masks": settings["masks"], "mask_names": settings["mask_names"], "max_refused": 0.2}


@pytest.fixture(scope="module")
def whole(archive, tmp_path_factory):
    source, options = archive
    return ingest(source, tmp_path_factory.mktemp("whole") / "store", workers=1, **options)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_a_merged_store_is_that_of_one_ingest(archive, whole, tmp_path, order, compress):
    source, options = archive
    options = options | {"compress": compress}
    for number in order:
        summary = ingest_part(source, tmp_path / "store", f"{number}/3", workers=1, **options)
        assert summary["part"] == number and summary["images"] > 0
    merged = merge_parts(source, tmp_path / "store", **options)
    assert merged.id == whole.id and merged.verify() == []
    assert merged.card.refused == whole.card.refused and len(merged.card.refused) == 2
    for name in ("splits", "labels", "warnings", "value_range", "decisions", "n_patients", "sample"):
        assert getattr(merged.card, name) == getattr(whole.card, name)
    assert np.array_equal(merged.masks(range(len(merged))), whole.masks(range(len(whole))))
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]
    assert merge_parts(source, tmp_path / "store", **options).id == whole.id  # already there


def test_missing_parts_are_named(archive, tmp_path):
    source, options = archive
    with pytest.raises(UsageError, match=r"there are no parts.*--part 1/"):
        merge_parts(source, tmp_path / "store", **options)
    ingest_part(source, tmp_path / "store", "2/3", workers=1, **options)
    with pytest.raises(UsageError, match=r"2 of 3 parts are not done: 1/3, 3/3"):
        merge_parts(source, tmp_path / "store", **options)


def test_a_part_that_is_done_is_not_done_again(archive, tmp_path, capsys):
    source, options = archive
    first = ingest_part(source, tmp_path / "store", "2/3", workers=1, **options)
    assert ingest_part(source, tmp_path / "store", "2/3", workers=1, **options) == first
    assert "already there" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["4/3", "0/3", "-1/3", "a", "1", "1/0"])
def test_a_wrong_part_is_refused(archive, tmp_path, part):
    source, options = archive
    with pytest.raises(UsageError, match=r"expected .*3/64"):
        ingest_part(source, tmp_path / "store", part, **options)


def test_parts_with_other_options_or_files_are_refused(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(source / f"{number}.png")
    out = tmp_path / "store"
    ingest_part(source, out, "1/2", workers=1)
    with pytest.raises(UsageError, match="other options"):
        ingest_part(source, out, "2/2", workers=1, size=2)
    with pytest.raises(UsageError, match=r"3 parts, but there are parts of 2"):
        ingest_part(source, out, "2/3", workers=1)
    ingest_part(source, out, "2/2", workers=1)
    with pytest.raises((UsageError, OutputError), match="parts"):
        ingest(source, out, workers=1)
    Image.fromarray(np.full((4, 4), 99, np.uint8)).save(source / "new.png")
    with pytest.raises(UsageError, match="files have changed"):
        merge_parts(source, out)


def test_parts_of_another_release_are_refused(archive, tmp_path, monkeypatch):
    source, options = archive
    out = tmp_path / "store"
    ingest_part(source, out, "1/2", workers=1, **options)
    monkeypatch.setattr(parts, "WRITER", "ssl_transfer 9.0, store schema 9")
    with pytest.raises(
        UsageError, match=rf"was made by {progress.WRITER}, but this is ssl_transfer 9\.0, store schema 9"
    ):
        ingest_part(source, out, "2/2", workers=1, **options)


def test_too_many_unreadable_files_are_found_when_parts_are_merged(archive, tmp_path):
    source, options = archive
    options = options | {"max_refused": 0.001}
    for number in (1, 2):
        ingest_part(source, tmp_path / "store", f"{number}/2", workers=1, **options)
    with pytest.raises(SourceError, match="cannot be read"):
        merge_parts(source, tmp_path / "store", **options)
