"""New images get the form of a store: what it decided as a whole, and its rules for each image."""

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.radiographs import MR, write_image

from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.ingest.like import FormFit, ingest_like
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.errors import SourceError, UsageError

RNG = np.random.default_rng(0)


def volume(path, values):
    path.parent.mkdir(exist_ok=True)
    nibabel.Nifti1Image(values, np.diag([2, 2, 3, 1])).to_filename(path)


def test_a_volume_of_another_scale_gets_the_range_of_the_store(tmp_path):
    values = RNG.gamma(2, 100, (12, 10, 8)).astype(np.float32)
    volume(tmp_path / "first/a.nii.gz", values)
    volume(tmp_path / "second/b.nii.gz", 7 * values + 50)
    store = ingest(tmp_path / "first", tmp_path / "store", axis="coronal", domain="mr", size=12, workers=1)
    assert store.units == "stored" and store.card.decisions["options"] == {"axis": "coronal"}
    like = ingest_like(tmp_path / "second", tmp_path / "like", StoreForm.of(store.card), workers=1)
    low, high = store.card.value_range
    assert like.shape == store.shape and len(like) == len(store) == 10
    assert np.abs(like.read(range(10)) - store.read(range(10))).max() < 1e-3 * (high - low)


def test_options_of_another_reader_are_left_out(tmp_path):
    volume(tmp_path / "first/a.nii.gz", RNG.random((12, 12, 4)).astype(np.float32))
    write_image(tmp_path / "second/b.dcm", RNG.integers(0, 900, (12, 12)).astype(np.uint16), sop=MR, modality="MR")
    store = ingest(tmp_path / "first", tmp_path / "store", axis="sagittal", domain="mr", workers=1)
    assert len(ingest_like(tmp_path / "second", tmp_path / "like", StoreForm.of(store.card), workers=1)) == 1
    with pytest.raises(UsageError, match="--format svg"):
        ingest_like(tmp_path / "second", tmp_path / "other", StoreForm.of(store.card), format="svg")


def test_a_12_bit_image_is_seen_as_the_8_bit_picture_of_it(tmp_path):
    pixels = RNG.integers(0, 4096, (10, 10)).astype(np.uint16)
    (tmp_path / "png").mkdir()
    Image.fromarray(np.rint(pixels / 4095 * 255).astype(np.uint8)).save(tmp_path / "png/a.png")
    write_image(tmp_path / "dicom/a.dcm", pixels, WindowCenter=2048, WindowWidth=4096)
    store = ingest(tmp_path / "png", tmp_path / "store", domain="xray", workers=1)
    assert store.units == "display"
    like = ingest_like(tmp_path / "dicom", tmp_path / "like", StoreForm.of(store.card), workers=1)
    assert like.card.dtype == store.card.dtype and np.abs(like[0].astype(int) - store[0]).max() <= 1


def test_a_window_chosen_at_ingest_is_that_of_new_images(tmp_path):
    pixels = RNG.integers(100, 900, (10, 10)).astype(np.uint16)
    for name in ("first", "second"):
        write_image(tmp_path / f"{name}/a.dcm", pixels, WindowCenter=500, WindowWidth=200)
    store = ingest(tmp_path / "first", tmp_path / "store", range="bits", workers=1)
    like = ingest_like(tmp_path / "second", tmp_path / "like", StoreForm.of(store.card), workers=1)
    assert like.card.value_range == store.card.value_range == (0, 4095)
    assert np.array_equal(like[0], store[0]) and like.column("intensity")[0] == "bits"


def test_colour_becomes_luminance_for_a_grey_store_and_nothing_is_resampled_twice(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(RNG.integers(0, 256, (20, 16, 3), np.uint8)).save(tmp_path / "in/a.png")
    store = ingest(tmp_path / "in", tmp_path / "store", channels=1, size=12, domain="xray", workers=1)
    like = ingest_like(tmp_path / "in", tmp_path / "like", StoreForm.of(store.card), workers=1)
    assert np.array_equal(like[0], store[0])


def test_an_image_of_the_range_of_the_store_keeps_its_values():
    form = StoreForm(
        size=(4, 4), channels=1, dtype="<i2", units="stored", value_range=(-100.0, 3000.0), domain="mr", depths=()
    )
    fit, image = FormFit.of(form), RNG.integers(-100, 3001, (1, 4, 4)).astype(np.int16)
    assert np.array_equal(fit.image(image, (-100.0, 3000.0)), image)
    assert np.abs(fit.image(2 * image.astype(np.int16), (-200.0, 6000.0)) - image).max() == 0


def test_a_source_without_images_says_what_was_refused(tmp_path):
    store = ingest("phantom:ct,patients=2,slices=2,size=16", tmp_path / "store", workers=1)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"torn")
    with pytest.raises(SourceError, match=r"no image (was found|can be read) \(1 files refused\)"):
        ingest_like(tmp_path / "in", tmp_path / "like", StoreForm.of(store.card), workers=1)
    assert not (tmp_path / "like").exists()
