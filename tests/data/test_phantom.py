"""Phantoms: what they write are valid files that show what they claim to show."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from ssl_transfer.data.readers.phantom.body import REGIONS, Patient
from ssl_transfer.data.readers.phantom.ct import scan
from ssl_transfer.data.readers.phantom.generate import expand
from ssl_transfer.data.readers.phantom.photographs import tiles
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import SourceError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    expand("phantom:ct,patients=8,slices=18,size=48", folder)
    return folder


@pytest.fixture(scope="module")
def slices(cohort) -> list[tuple[pydicom.Dataset, np.ndarray, np.ndarray]]:
    """Header, HU and mask of every slice."""
    found = []
    for path in sorted((cohort / "images").rglob("*.dcm")):
        header = pydicom.dcmread(path)
        hu = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        mask = np.asarray(Image.open(cohort / "masks" / path.parent.name / f"{path.stem}.png"))
        found.append((header, hu, mask))
    return found


@pytest.mark.parametrize("name", ["ct", "cells", "photographs"])
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(tmp_path, name):
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        expand(f"phantom:{name},patients=3,slices=6,size=16,seed={seed}", tmp_path / folder)
    a, b, c = (contents(tmp_path / folder) for folder in "abc")
    assert a == b
    images = [file for file in a if file.startswith("images")]
    assert len(images) == 18
    assert set(a) == set(c) and all(a[file] != c[file] for file in images)


def test_all_images_of_a_cohort_differ(slices):
    assert len({hu.tobytes() for _, hu, _ in slices}) == len(slices) == 8 * 18


def test_slices_are_valid_ct_images(slices):
    for header, hu, mask in slices:
        assert (header.Modality, header.SOPClassUID.name, header.RescaleType) == ("CT", "CT Image Storage", "HU")
        assert hu.shape == mask.shape == (header.Rows, header.Columns) == (48, 48)
        assert hu.min() >= -1024
        assert all(uid.is_valid for uid in (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID))
    assert len({header.SOPInstanceUID for header, _, _ in slices}) == len(slices)
    assert len({header.PatientID for header, _, _ in slices}) == len({h.StudyInstanceUID for h, _, _ in slices}) == 8


def test_instance_numbers_run_from_head_to_feet_through_a_patient(slices):
    series: dict[str, list[pydicom.Dataset]] = {}
    for header, _, _ in slices:
        series.setdefault(header.SeriesInstanceUID, []).append(header)
    assert len(series) == 8 * 6
    for headers in series.values():
        headers.sort(key=lambda header: header.InstanceNumber)
        assert (np.diff([float(header.ImagePositionPatient[2]) for header in headers]) < 0).all()


def test_all_six_regions_are_named_and_equally_frequent(slices):
    names, counts = np.unique([header.BodyPartExamined for header, _, _ in slices], return_counts=True)
    assert names.tolist() == ["ABDOMEN", "EXTREMITY", "HEAD", "NECK", "PELVIS", "THORAX"]
    assert set(counts) == {24}


def test_few_slices_per_patient_still_cover_all_regions(tmp_path):
    expand("phantom:ct,patients=6,slices=1,size=16", tmp_path)
    assert len({path.name.split("-")[2] for path in (tmp_path / "images").iterdir()}) == 6


def test_air_surrounds_the_body_and_bone_is_in_it(slices):
    for header, hu, _ in slices:
        if header.BodyPartExamined == "THORAX":  # lung
            assert np.mean((hu > -950) & (hu < -650)) > 0.03
    assert np.mean([np.median(hu[0]) for _, hu, _ in slices]) < -950  # the top row
    assert np.mean([hu.max() > 250 for _, hu, _ in slices]) > 0.95
    soft = np.concatenate([hu[(hu > 0) & (hu < 100)] for _, hu, _ in slices])
    assert 30 < np.median(soft) < 70


def test_masks_are_only_in_the_abdomen_and_at_its_border(slices):
    with_liver = {header.BodyPartExamined for header, _, mask in slices if mask.any()}
    assert "ABDOMEN" in with_liver <= {"ABDOMEN", "THORAX"}
    assert {value for _, _, mask in slices for value in np.unique(mask)} == {0, 1, 2}


def test_the_liver_is_on_the_left_of_the_image_and_as_dense_as_a_liver():
    livers = []
    for number in range(6):
        series = scan(Patient(0, number), "ABDOMEN", 6, 64, np.random.default_rng(number))
        inner = np.stack([binary_erosion(mask == 1) for mask in series.mask])
        livers.append(series.hu[inner].mean())
        columns = np.nonzero(series.mask)[2]
        body = np.nonzero(series.hu[series.mask.any((1, 2))] > -200)[2]
        assert columns.mean() < body.mean()
    assert all(30 < liver < 160 for liver in livers)


def test_lesions_lie_within_the_liver_and_are_darker():
    darker = []
    for number in range(12):
        series = scan(Patient(0, number), "ABDOMEN", 8, 96, np.random.default_rng(number))
        for hu, mask in zip(series.hu, series.mask, strict=True):
            assert not (mask == 2)[~binary_dilation(mask == 1, iterations=12)].any()
            if (mask == 2).sum() > 20 and (mask == 1).sum() > 20:
                darker.append(hu[mask == 1].mean() - hu[mask == 2].mean())
    assert len(darker) > 5
    assert np.median(darker) > 15


@pytest.mark.parametrize("region", REGIONS)
def test_a_series_of_any_region_and_size_can_be_scanned(region):
    for slices, size in ((1, 16), (3, 33), (2, 130)):
        series = scan(Patient(1, 2), region, slices, size, np.random.default_rng(0))
        assert series.hu.shape == series.mask.shape == (slices, size, size)
        assert np.isfinite(series.z_mm).all() and series.spacing_mm > 0


@pytest.mark.parametrize(("name", "classes", "mode"), [("cells", 4, "L"), ("photographs", 12, "RGB")])
def test_labelled_images_match_their_csv(tmp_path, name, classes, mode):
    options = expand(f"phantom:{name},patients=24,slices=2,size=20", tmp_path)
    rows = list(csv.DictReader(Path(options["labels"]).read_text().splitlines()))
    files = {str(path.relative_to(options["source"])) for path in Path(options["source"]).rglob("*.png")}
    assert {row[options["label_key"]] for row in rows} == files and len(rows) == 48
    assert len({row["label"] for row in rows}) == classes and len({row["patient"] for row in rows}) == 24
    for file in files:
        with Image.open(Path(options["source"]) / file) as image:
            assert (image.mode, image.size) == (mode, (20, 20))


@pytest.mark.parametrize("count", [12, 40, 96])
def test_groups_of_photographs_share_no_pixel(count):
    claimed: dict[str, np.ndarray] = {}
    for tile in tiles(count):
        left, top, right, bottom = tile.box
        times = claimed.setdefault(tile.picture, np.zeros((1500, 1500), int))
        times[top:bottom, left:right] += 1
        assert tile.pixels.shape == (bottom - top, right - left, 3)
    assert len(claimed) == 12 and all(times.max() == 1 for times in claimed.values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("phantom:cels", "Did you mean 'cells'"),
        ("phantom:ct,patient=4", "Did you mean 'patients'"),
        ("phantom:ct,size=2.5", "expected an integer from 16 to 1024"),
        ("phantom:ct,size=4", "expected an integer from 16 to 1024"),
        ("phantom:ct,seed", "seed is ''"),
        ("phantom:photographs,patients=9999", "too small. Ask for 96 patients"),
    ],
)
def test_a_wrong_name_or_option_is_answered_with_the_right_one(tmp_path, source, message):
    with pytest.raises(SourceError, match=message):
        expand(source, tmp_path)


def test_a_phantom_is_ingested_like_any_archive(tmp_path):
    from ssl_transfer.data.ingest.stage import ingest

    ingest("phantom:ct,patients=6,slices=4,size=32", tmp_path / "store")
    store = ImageStore(tmp_path / "store")
    assert (len(store), store.shape, store.units, str(store.domain)) == (24, (1, 32, 32), "hu", "ct")
    assert store.card.n_patients == 6 and store.card.n_refused == 0
    assert len(store.card.labels) == 6
    assert store.masks(np.arange(24)).max() in (1, 2)
