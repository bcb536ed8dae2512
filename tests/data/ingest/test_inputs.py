"""Whatever a store is made of is in the digest of its inputs, wherever it lies: an edited file is never "already there"."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.errors import UsageError

NAMES = [f"case{number:02d}" for number in range(6)]


def picture(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def mask(path: Path, rows: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((8, 8), np.uint8)
    values[:rows] = 1
    Image.fromarray(values).save(path)


@pytest.fixture
def archive(tmp_path) -> Path:
    for number, name in enumerate(NAMES):
        picture(tmp_path / "images" / "deep" / f"{name}.png", 20 * number)
        for folder in ("masks", "masks/deep"):
            mask(tmp_path / folder / f"{name}_seg.png", 3)
            mask(tmp_path / folder / f"{name}.png", 3)
    (tmp_path / "names.json").write_text(json.dumps({"1": "liver"}))
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *(f"{name}.png,a" for name in NAMES)]))
    return tmp_path


def edit_mask(path: Path) -> None:
    mask(path, 5)
    os.utime(path, ns=(1, 1))  # an edit within one tick of the clock


@pytest.mark.parametrize(
    "masks, edited",
    [
        ("{root}/masks", "masks/deep/case03.png"),
        ("../masks", "masks/deep/case03.png"),
        ("{root}/masks/{stem}_seg.png", "masks/case03_seg.png"),
        ("../masks/{stem}_seg.png", "masks/case03_seg.png"),
        ("../masks/{parent}/*{number}_seg.png", "masks/deep/case03_seg.png"),
        ("../masks/{parent}/{stem}.p?g", "masks/deep/case03.png"),
    ],
)
def test_edited_masks_outside_of_the_source_are_other_inputs(archive, masks, edited):
    options = {"masks": masks.replace("{root}", str(archive))}
    first = ingest(archive / "images", archive / "store", **options)
    assert ingest(archive / "images", archive / "store", **options).id == first.id  # already there
    edit_mask(archive / edited)
    with pytest.raises(UsageError, match="already holds a store of inputs"):
        ingest(archive / "images", archive / "store", **options)
    again = ingest(archive / "images", archive / "other", **options)
    assert sorted(again.masks(range(6)).sum((1, 2)).tolist()) == [24, 24, 24, 24, 24, 40]


@pytest.mark.parametrize(
    "options, file, content",
    [
        ({"labels": "labels.csv"}, "labels.csv", "file,label\ncase00.png,b\n"),
        ({"masks": "masks", "mask_names": "names.json"}, "names.json", '{"1": "spleen"}'),
    ],
    ids=["labels", "mask names"],
)
def test_edited_tables_are_other_inputs(archive, options, file, content):
    options = {name: str(archive / value) for name, value in options.items()} | {"max_unmatched": 1.0}
    ingest(archive / "images", archive / "store", **options)
    (archive / file).write_text(content)
    with pytest.raises(UsageError, match="already holds a store of inputs"):
        ingest(archive / "images", archive / "store", **options)


def test_what_lies_beside_a_single_file_is_an_input(tmp_path):
    """A sidecar decides whether the values of a volume are HU."""
    values = np.random.default_rng(0).integers(-900, 900, (8, 8, 12)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "scan.nii.gz")
    assert ingest(tmp_path / "scan.nii.gz", tmp_path / "store").units != "hu"
    (tmp_path / "scan.json").write_text('{"Modality": "CT"}')
    with pytest.raises(UsageError, match="already holds a store of inputs"):
        ingest(tmp_path / "scan.nii.gz", tmp_path / "store")
    assert ingest(tmp_path / "scan.nii.gz", tmp_path / "other").units == "hu"


def test_files_that_no_mask_pattern_names_are_no_inputs(archive):
    options = {"masks": "../masks/{stem}_seg.png"}
    first = ingest(archive / "images", archive / "store", **options)
    edit_mask(archive / "masks" / "case03.png")
    mask(archive / "masks" / "notes_seg.png", 2)
    assert ingest(archive / "images", archive / "store", **options).id == first.id
