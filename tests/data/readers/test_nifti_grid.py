"""Grids of NIfTI volumes and of their masks: orientation, oblique spacing, positions; SimpleITK and nibabel read the same."""

from functools import partial

import nibabel
import numpy as np
import pandas
import pytest
import SimpleITK

from ssl_transfer.data.ingest import stage
from ssl_transfer.data.readers.grid import Grid
from ssl_transfer.errors import SourceError
from ssl_transfer.evaluation.segment import _spacing

ingest = partial(stage.ingest, keep_paths=True)

SHAPE = (10, 9, 6)
LPS = np.array([[-0.8, 0, 0, 100], [0, -0.8, 0, 90], [0, 0, 2.5, -50], [0, 0, 0, 1.0]])
LESION = np.zeros(SHAPE, np.uint8)
LESION[3:7, 2:5, 1:3] = 1


def turned(degrees, zooms=(0.8, 0.8, 3.0)):
    """The affine of a grid that is turned about the left-right axis, as of an oblique acquisition."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ np.diag(zooms)
    affine[:3, 3] = 4, -7, 11
    return affine


def volume(path, array, affine=LPS, orientation=None):
    image = nibabel.Nifti1Image(array, affine)
    if orientation is not None:
        codes = nibabel.orientations.axcodes2ornt(orientation)
        image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), codes))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def pair(folder, mask=LESION, affine=LPS, orientation=None, own=LPS):
    """A CT in which the lesion is bright, and its mask."""
    voxels = np.random.default_rng(0).integers(-1000, 50, SHAPE).astype(np.int16)
    voxels[LESION > 0] = 300
    volume(folder / "images/a.nii.gz", voxels, own)
    volume(folder / "labels/a.nii.gz", mask, affine, orientation)
    return folder / "images", folder / "labels"


def on_the_lesion(store):
    everywhere = np.arange(len(store))
    return np.array_equal(store.read(everywhere)[:, 0] == 300, store.masks(everywhere) == 1)


def shifted(millimetres):
    affine = LPS.copy()
    affine[0, 3] += millimetres
    return affine


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PIR", "SAL", "IRP"])
def test_a_mask_in_another_orientation_of_the_grid_is_reoriented(tmp_path, orientation):
    images, labels = pair(tmp_path, orientation=orientation)
    assert on_the_lesion(ingest(images, tmp_path / "s", masks=labels))


@pytest.mark.parametrize("degrees", [10, 44.9, 45, 45.1, 80])
@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_masks_of_oblique_volumes_are_reoriented_by_their_volume(tmp_path, degrees, orientation):
    affine = turned(degrees)
    images, labels = pair(tmp_path, affine=affine, own=affine)
    image = nibabel.load(labels / "a.nii.gz")
    codes = nibabel.orientations.axcodes2ornt(orientation)
    start = nibabel.orientations.axcodes2ornt("RAS")
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(start, codes)), labels / "a.nii.gz")
    assert on_the_lesion(ingest(images, tmp_path / "s", masks=labels))


@pytest.mark.parametrize(
    "affine, message",
    [
        (np.eye(4), r"identity affine.*the volume: origin \(100, 90, -50\) mm, spacing 0.8 x 0.8 x 2.5 mm, axes LPS"),
        (shifted(40), r"origin \(140, 90, -50\).*corners are up to 40 mm apart.*--mask-grid shape"),
        (shifted(0.4), "corners are up to 0.4 mm apart"),
        (LPS @ np.diag([-1, 1, 1, 1]), "axes RPS"),
        (LPS @ np.diag([1, 1, 1.2, 1]), "spacing 0.8 x 0.8 x 3 mm"),
    ],
    ids=["identity", "shifted", "half a voxel", "flipped", "other spacing"],
)
def test_a_mask_that_lies_elsewhere_is_refused_unless_shapes_are_enough(tmp_path, affine, message):
    images, labels = pair(tmp_path, affine=affine)
    with pytest.raises(SourceError, match=message):
        ingest(images, tmp_path / "s", masks=labels)
    assert on_the_lesion(ingest(images, tmp_path / "shape", masks=labels, mask_grid="shape"))


def test_rounding_in_headers_is_no_other_grid(tmp_path):
    images, labels = pair(tmp_path, affine=shifted(0.01))
    assert on_the_lesion(ingest(images, tmp_path / "s", masks=labels))


@pytest.mark.parametrize("degrees", [0, 10, 30, 40])
@pytest.mark.parametrize(
    "axis, expected", [("axial", (3.0, 0.8, 0.8)), ("coronal", (0.8, 3.0, 0.8)), ("sagittal", (0.8, 3.0, 0.8))]
)
def test_distances_of_oblique_slices_are_voxel_sizes(tmp_path, degrees, axis, expected):
    volume(tmp_path / "in/v.nii", np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.int16), turned(degrees))
    rows = ingest(tmp_path / "in", tmp_path / "s", axis=axis).rows.sort_values("slice")
    assert _spacing(rows.assign(geometry=None)) == pytest.approx(expected, abs=1e-4)
    assert rows["spacing_slice_mm"].iloc[0] == pytest.approx(expected[0], abs=1e-4)


def test_positions_of_slices_are_distances_along_their_normal():
    grid = Grid(SHAPE, turned(30)).canonical()
    corner = turned(30) @ (0, 0, 5, 1)
    assert grid.heights(2)[5] == pytest.approx(corner[:3] @ turned(30)[:3, 2] / 3)
    sheared = np.eye(4)
    sheared[0, 2] = 0.5  # a tilted gantry: voxels are 1.118 mm apart, and slices 1 mm
    assert Grid(SHAPE, sheared).thickness(2) == 1 and Grid(SHAPE, sheared).spacing[2] == pytest.approx(1.118, abs=1e-3)


def test_repeated_missing_and_uneven_slices_have_no_distance():
    within = {"spacing_row_mm": 1.0, "spacing_col_mm": 1.0, "spacing_slice_mm": 3.0, "geometry": None}
    for positions in ([0, 3, 9, 12], [0, 0, 3, 6], [0, 3, 6.5, 9], [0, 3, 0, 3]):
        assert np.isnan(_spacing(pandas.DataFrame({"z_mm": positions, **within}))[0]), positions
    assert _spacing(pandas.DataFrame({"z_mm": [0, 3.0004, 6.0011, 9], **within}))[0] == pytest.approx(3, abs=1e-3)


def test_slices_are_those_of_simpleitk(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    voxels = np.random.default_rng(1).integers(0, 900, SHAPE).astype(np.int16)
    volume(tmp_path / "v.nii.gz", voxels, turned(20), "PIR")
    store = ingest(tmp_path / "v.nii.gz", tmp_path / "s", domain="mr")
    image = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "v.nii.gz")), "LPS")  # rows to the back, columns to the left
    assert np.array_equal(store.read(np.arange(len(store)))[:, 0], sitk.GetArrayFromImage(image))
    row = store.rows.iloc[0]
    assert image.GetSpacing() == pytest.approx(
        tuple(row[[f"spacing_{n}_mm" for n in ("col", "row", "slice")]]), abs=1e-4
    )
    normal = np.array(image.GetDirection()).reshape(3, 3)[:, 2]
    heights = [normal @ image.TransformIndexToPhysicalPoint((0, 0, k)) for k in range(len(store))]
    assert store.column("z_mm") == pytest.approx(np.array(heights), abs=1e-3)


def test_a_file_without_orientation_is_named(tmp_path):
    image = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16) + np.arange(6, dtype=np.int16), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    nibabel.save(image, tmp_path / "v.nii")
    store = ingest(tmp_path / "v.nii", tmp_path / "s", domain="mr", keep_paths=True)
    assert "v.nii" in " ".join(store.card.warnings)


@pytest.mark.parametrize(
    "qform, differs",
    [([-1, 1, 3], True), ([1, 1, 2], True), ([1, 1, 3], False), ([1.05, 1, 3], False)],
    ids=["mirrored", "another spacing", "equal", "nearly equal"],
)
def test_files_whose_sform_and_qform_contradict_each_other_are_named(tmp_path, qform, differs):
    volume = np.zeros(SHAPE, np.int16) + np.arange(SHAPE[2], dtype=np.int16)
    image = nibabel.Nifti1Image(volume, np.diag([1, 1, 3, 1]))
    image.set_sform(np.diag([1, 1, 3, 1]), 1)
    image.set_qform(np.diag([*qform, 1]), 1)
    nibabel.save(image, tmp_path / "v.nii")
    store = ingest(tmp_path / "v.nii", tmp_path / "s", domain="mr", keep_paths=True)
    assert ("with other axes or another voxel size than their sform: v.nii" in " ".join(store.card.warnings)) == differs
    assert store.rows["spacing_slice_mm"].unique().tolist() == [3.0]  # nibabel's choice


def test_the_unit_of_space_that_a_header_states_is_converted_to_mm_as_in_itk(tmp_path):
    (tmp_path / "in").mkdir()
    voxels = np.arange(240, dtype=np.int16).reshape(8, 6, 5)
    for unit, per_mm in (("mm", 1), ("meter", 0.001), ("micron", 1000), ("unknown", 1)):
        image = nibabel.Nifti1Image(voxels, np.diag([0.5 * per_mm, 0.25 * per_mm, 2 * per_mm, 1]))
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "in" / f"{unit}.nii")
        assert SimpleITK.ReadImage(str(tmp_path / "in" / f"{unit}.nii")).GetSpacing() == pytest.approx((0.5, 0.25, 2))
    store = ingest(tmp_path / "in", tmp_path / "s", domain="mr")
    spacing = store.rows[["spacing_col_mm", "spacing_row_mm", "spacing_slice_mm"]].to_numpy()
    assert np.allclose(spacing, (0.5, 0.25, 2)) and len(store) == 4 * 5
    assert any("2 file(s) state distances in m or µm" in note for note in store.card.warnings)


def test_voxels_of_half_a_micrometre_are_placed(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([5e-4, 5e-4, 5e-4, 1])),
        tmp_path / "a.nii",
    )
    assert np.allclose(ingest(tmp_path / "a.nii", tmp_path / "s", domain="mr").rows["spacing_slice_mm"], 5e-4)
