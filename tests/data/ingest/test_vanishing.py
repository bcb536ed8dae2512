"""Files that vanish or are locked while a source is read: they are listed, and the ingest goes on."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.planted import dicom

from ssl_transfer.data.ingest import opening
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers import dicom as dicom_reader
from ssl_transfer.data.readers import images as images_reader
from ssl_transfer.data.readers import nifti as nifti_reader
from ssl_transfer.data.readers.reader import walk
from ssl_transfer.errors import SourceError

RANDOM = np.random.default_rng(0)


def pictures(root: Path) -> Path:
    for number in range(12):
        root.mkdir(exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 255, (8, 8), dtype=np.uint8)).save(root / f"{number:02d}.png")
    return root


def volumes(root: Path) -> Path:
    root.mkdir()
    for number in range(12):
        values = RANDOM.integers(0, 900, (8, 8, 2)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / f"{number:02d}.nii.gz")
    return root


@pytest.mark.parametrize(
    "make, reader",
    [(pictures, images_reader), (volumes, nifti_reader), (dicom, dicom_reader)],
    ids=["images", "nifti", "dicom"],
)
def test_a_file_that_vanishes_after_it_was_found_is_listed(tmp_path, monkeypatch, make, reader):
    root = make(tmp_path / "in")
    victim = [path for _, path in walk(root) if path.suffix not in (".txt", ".dcm")][5]

    def walk_and_lose(folder):
        files = walk(folder)
        victim.unlink(missing_ok=True)
        return files

    monkeypatch.setattr(reader, "walk", walk_and_lose)
    store = ingest(root, tmp_path / "store", max_refused=0.3)
    kinds = {refusal["file"]: refusal["kind"] for refusal in store.refused}
    assert kinds[victim.relative_to(root).as_posix()] == "unreadable"


def test_a_source_of_locked_files_says_why_nothing_was_found(tmp_path, monkeypatch):
    (tmp_path / "IM0001").write_bytes(b"x" * 200)

    def locked(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(opening, "_kind", locked)
    with pytest.raises(SourceError, match=r"Not read \(1\):\n  IM0001: it cannot be opened: Permission denied"):
        opening.detect_format(tmp_path)
