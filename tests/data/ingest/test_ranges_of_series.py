"""One intensity range for the volumes of a series: contrast uptake and decay over b-values are kept, unless asked otherwise."""

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from support.radiographs import MR, write_image

from ssl_transfer.data.ingest.sampling import evenly_spaced
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.intensity import Scale

UPTAKE = (1.0, 1.5, 3.0)  # of a contrast agent, at each time point
SCALES = (1, 7)  # of two scanners


def anatomy() -> np.ndarray:
    """Intensities of one volume, (slice, row, column)."""
    return np.random.default_rng(0).gamma(2, 50, (4, 16, 16))


def unit(store) -> np.ndarray:
    """Unit intensities of all images (H, W), as a backbone gets them."""
    images = torch.from_numpy(store.read(np.arange(len(store))).astype(np.float32))
    return Scale.of_store(store.card, (-160, 240)).unit(images).numpy()[:, 0]


def nifti_series(root):
    """A 4-D file for each scanner."""
    root.mkdir()
    for scale in SCALES:
        values = np.stack([np.rint(anatomy().transpose(2, 1, 0) * scale * uptake) for uptake in UPTAKE], axis=-1)
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.diag([-1, -1, 1, 1])), root / f"p{scale}.nii.gz")
    return root


def dicom_series(root):
    """A dynamic series for each scanner, of single slices."""
    for scale in SCALES:
        for time, uptake in enumerate(UPTAKE):
            for number, pixels in enumerate(anatomy()):
                write_mr(
                    root,
                    scale,
                    f"{time}_{number}",
                    pixels * scale * uptake,
                    number,
                    TemporalPositionIdentifier=time + 1,
                )
    return root


def write_mr(root, scale, name, pixels, number, **elements):
    write_image(
        root / f"s{scale}" / f"{name}.dcm",
        np.rint(pixels).astype(np.uint16),
        sop=MR,
        modality="MR",
        bits=16,
        PatientID=f"p{scale}",
        StudyInstanceUID=f"1.2.{scale}",
        SeriesInstanceUID=f"1.2.{scale}.1",
        ImagePositionPatient=[0, 0, number],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        **elements,
    )


def tiff_series(root):
    """A time lapse of float images for each scanner, in one file."""
    root.mkdir()
    for scale in SCALES:
        values = np.stack([anatomy() * scale * uptake for uptake in UPTAKE]).astype(np.float32)  # T, Z, Y, X
        tifffile.imwrite(root / f"p{scale}.tif", values, imagej=True, metadata={"axes": "TZYX"})
    return root


@pytest.mark.parametrize("make", [nifti_series, dicom_series, tiff_series])
def test_what_changes_between_time_points_is_kept(tmp_path, make):
    store = ingest(make(tmp_path / "in"), tmp_path / "out", keep_paths=True, domain="mr")
    values = unit(store).reshape(2, 3, 4, 16, 16)  # series, time, slice
    assert store.units == "scaled" and len(set(store.column("range_high"))) == 2
    assert np.abs(values[0] - values[1]).max() < 0.05  # scanners look alike
    series = np.stack([anatomy() * uptake for uptake in UPTAKE])
    low, high = np.percentile(series, [0.5, 99.5])
    expected = np.clip((series - low) / (high - low), 0, 1)
    assert np.abs(np.clip(values[1], 0, 1) - expected).max() < 0.04
    assert values[:, 2].mean() > 2 * values[:, 0].mean()


@pytest.mark.parametrize("make", [nifti_series, dicom_series, tiff_series])
def test_volumes_of_different_sequences_can_have_ranges_of_their_own(tmp_path, make):
    store = ingest(make(tmp_path / "in"), tmp_path / "out", keep_paths=True, domain="mr", range_per="volume")
    values = unit(store).reshape(2, 3, 4, 16, 16)
    assert len(set(store.column("range_high"))) == 6
    assert np.abs(values[:, 1:] - values[:, :1]).max() < 0.05  # without uptake


def test_magnitude_and_phase_of_a_series_never_share_a_range(tmp_path):
    for number, pixels in enumerate(anatomy()):
        for kind, scale in (("M", 1), ("P", 7)):
            types = {"ImageType": ["ORIGINAL", "PRIMARY", kind]}
            write_mr(tmp_path / "in", 1, f"{kind}_{number}", pixels * scale, number, **types)
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert len(set(zip(store.column("volume"), store.column("range_high"), strict=True))) == 2


def test_channels_of_a_tiff_do_not_share_a_range_and_are_no_time_points(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    values = np.stack([anatomy() * scale for scale in SCALES], axis=1).astype(np.float32)  # Z, C, Y, X
    for number in range(2):
        tifffile.imwrite(tmp_path / "in" / f"p{number}.tif", values + number, imagej=True, metadata={"axes": "ZCYX"})
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert len(set(store.column("range_high"))) == 4 and "several volumes" not in capsys.readouterr().err


def test_it_is_said_that_volumes_of_a_file_share_a_range(tmp_path, capsys):
    root = nifti_series(tmp_path / "in")
    ingest(root, tmp_path / "out", domain="mr")
    assert "2 file(s) hold several volumes, which share one intensity range" in capsys.readouterr().err
    ingest(root, tmp_path / "other", domain="mr", range_per="volume")
    assert "several volumes" not in capsys.readouterr().err


def test_an_option_without_effect_is_named(tmp_path, capsys):
    for number in range(3):
        values = np.random.default_rng(number).gamma(2, 50, (8, 8, 4)).astype(np.float32)
        (tmp_path / "in").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "in" / f"{number}.nii")
    ingest(tmp_path / "in", tmp_path / "out", domain="mr", range_per="volume")
    assert "--range-per volume decides nothing" in capsys.readouterr().err


def test_many_time_points_give_samples_of_all_slices():
    """32 of 32 time points, one slice of each: not always the middle one."""
    slices = {evenly_spaced(20, 1, (number + 0.5) / 32)[0] for number in range(32)}
    assert slices == set(range(20))
