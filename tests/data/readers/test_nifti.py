"""NIfTI: orientation made canonical, slices shown as in radiology, HU distinguished from other values."""

import nibabel
import numpy as np
import pytest

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.nifti import NiftiReader
from ssl_transfer.errors import SourceError, UsageError

# A volume in which the value tells the place: hundreds run to the right, tens to the front, ones to the head.
RIGHT, FRONT, HEAD = np.meshgrid(np.arange(2), np.arange(3), np.arange(4), indexing="ij")
PLACES = (100 * RIGHT + 10 * FRONT + HEAD).astype(np.int16)


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "store"


def save(path, array, orientation="RAS", zooms=(1.0, 2.0, 3.0)):
    """Write a RAS array in another orientation, with the affine that says so."""
    image = nibabel.Nifti1Image(array, np.diag([*zooms, 1.0]))
    target = nibabel.orientations.axcodes2ornt(orientation)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), target))
    nibabel.save(image, path)
    return path


def slices(source):
    scan = source.scan()
    return [(image, own, mask) for item in scan.items for image, own, mask in source.read(item)], scan


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "ASL"])
@pytest.mark.parametrize(
    "axis, top_left, below, beside, number, spacing",
    [
        ("axial", 120, -10, -100, 4, (2.0, 1.0)),  # front and right at the top left; down goes back, right goes left
        ("coronal", 103, -1, -100, 3, (3.0, 1.0)),
        ("sagittal", 23, -1, -10, 2, (3.0, 2.0)),
    ],
)
def test_slices_look_as_in_radiology_however_the_file_is_stored(
    tmp_path, orientation, axis, top_left, below, beside, number, spacing
):
    save(tmp_path / "v.nii.gz", PLACES, orientation)
    found, scan = slices(NiftiReader(tmp_path, domain="mr", axis=axis))
    first = found[0][0][0]
    assert len(found) == number and [own["slice"] for _, own, _ in found] == list(range(number))
    assert first[0, 0] == top_left
    assert first[1, 0] - first[0, 0] == below and first[0, 1] - first[0, 0] == beside
    row = scan.items[0].row
    assert (row["spacing_row_mm"], row["spacing_col_mm"]) == spacing
    assert scan.items[0].size == first.shape


@pytest.mark.parametrize(
    "dtype, lowest, domain, units",
    [
        (np.int16, -1000, None, "hu"),
        (np.float64, -1000, None, "hu"),
        (np.int16, 0, None, "stored"),
        (np.int16, 0, "ct", "hu"),
        (np.int16, -1000, "mr", "stored"),
        (np.uint8, 0, None, "display"),
    ],
)
def test_values_are_hu_by_domain_or_because_of_values_of_air(tmp_path, dtype, lowest, domain, units):
    save(tmp_path / "v.nii", (PLACES + lowest).astype(dtype))
    store = ingest(tmp_path / "v.nii", tmp_path / "store", domain=domain)
    assert store.units == units
    assert store.card.dtype == ("<i2" if dtype != np.uint8 else "|u1")
    assert str(store.domain) == (domain or ("ct" if units == "hu" else "unknown"))


def test_float_hu_are_rounded_and_nan_is_air(tmp_path):
    volume = PLACES.astype(np.float32) - 999.6
    volume[0, 0, 0] = np.nan
    save(tmp_path / "v.nii", volume)
    found, _ = slices(NiftiReader(tmp_path))
    assert found[0][0][0, -1, -1] == -1024 and found[1][0][0, -1, -1] == -999


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_volumes_in_time_are_items_apart(tmp_path, ending):
    save(tmp_path / f"v.{ending}", np.stack([PLACES, PLACES + 1], -1))
    found, scan = slices(NiftiReader(tmp_path, domain="mr"))
    assert [(item.n_images, item.row["volume"]) for item in scan.items] == [(4, 0), (4, 1)]
    assert scan.items[0].together == scan.items[1].together == f"v.{ending}"  # one range of intensities
    assert [own["slice"] for _, own, _ in found] == [*range(4)] * 2
    assert np.array_equal(found[4][0], found[0][0] + 1)


def test_label_volumes_beside_the_images_are_masks_and_no_images(tmp_path, out):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", PLACES - 1000, "LPS")
        save(tmp_path / f"{name}_seg.nii.gz", (PLACES > 100).astype(np.int16) * 5, "RAS")
    store = ingest(tmp_path, out, masks="{stem}_seg.nii.gz")
    assert len(store) == 8 and store.card.n_patients == 2
    for position in range(8):
        assert np.array_equal(store.masks([position])[0] > 0, store[position][0] + 1000 > 100)
    assert store.card.masks.classes == {"5": "5"}


def test_a_volume_without_its_mask_is_named(tmp_path, out):
    save(tmp_path / "a.nii", PLACES)
    save(tmp_path / "b.nii", PLACES)
    save(tmp_path / "a_seg.nii", PLACES)
    with pytest.raises(SourceError, match=r"b.nii has no mask"):
        ingest(tmp_path, out, masks="{stem}_seg.nii")


def test_a_mask_of_another_grid_makes_its_volume_unreadable(tmp_path):
    save(tmp_path / "a.nii", PLACES)
    save(tmp_path / "m.nii", PLACES[:1])
    with pytest.raises(SourceError, match=r"a.nii: its mask m.nii has 1 x 3 x 4 voxels, the volume 2 x 3 x 4"):
        ingest(tmp_path / "a.nii", tmp_path / "store", masks=tmp_path / "m.nii")


def test_volumes_of_equal_names_in_different_folders_are_different_patients(tmp_path):
    for folder in ("sub-01", "sub-02"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "T1.nii.gz", PLACES)
    scan = NiftiReader(tmp_path).scan()
    assert [item.row["series"] for item in scan.items] == ["sub-01/T1", "sub-02/T1"] and scan.patient_per_file


def test_damaged_and_foreign_files_are_listed(tmp_path, out):
    save(tmp_path / "good.nii.gz", PLACES)
    whole = (tmp_path / "good.nii.gz").read_bytes()
    (tmp_path / "short.nii.gz").write_bytes(whole[:-30])
    (tmp_path / "empty.nii").touch()
    (tmp_path / "notes.txt").write_text("x")
    store = ingest(tmp_path, out, domain="mr", max_refused=0.7)
    assert len(store) == 4
    assert {r["file"]: r["kind"] for r in store.refused} == {
        "short.nii.gz": "unreadable",
        "empty.nii": "unreadable",
        "notes.txt": "not_an_image",
    }


def test_an_unknown_axis_is_refused(tmp_path):
    save(tmp_path / "a.nii", PLACES)
    with pytest.raises(UsageError, match="--axis oblique"):
        ingest(tmp_path / "a.nii", tmp_path / "store", axis="oblique")
