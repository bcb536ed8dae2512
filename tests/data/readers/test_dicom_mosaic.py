"""Siemens mosaics: cut into slices whose positions are right, or set aside. The Siemens header (CSA) is built by hand."""

import struct

import numpy as np
import pytest
from support.dicom_files import MR, make_dicom, read, save

from ssl_transfer.data.readers.dicom import DicomReader

COUNT, SIDE = 7, 8  # slices in a picture of 3 x 3 tiles
SLICES = np.stack([np.full((SIDE, SIDE), 100 + 10 * k) + np.arange(SIDE) for k in range(COUNT)])


def csa(**tags) -> bytes:
    """A CSA2 header; each tag is a pair of value representation and values."""
    body = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, (vr, values) in tags.items():
        body += struct.pack("<64si4siii", name.encode(), len(values), vr.encode() + b"\0", 1, len(values), 77)
        for value in values:
            text = str(value).encode() + b"\0"
            body += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return body


def mosaic(time=1, header=True, **elements):
    picture = np.zeros((3 * SIDE, 3 * SIDE), int)
    for k, slice_ in enumerate(SLICES):
        row, column = divmod(k, 3)
        picture[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = slice_ * time
    kinds = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    own = {"ImageType": kinds, "PixelSpacing": [2, 3], "SpacingBetweenSlices": 4, "Manufacturer": "SIEMENS"}
    position = {"ImagePositionPatient": [-36 - 24, -24 - 16, 10], "AcquisitionNumber": time, "InstanceNumber": time}
    dataset = make_dicom(picture, **MR | own | position | elements)
    if header:
        dataset.add_new((0x0029, 0x0010), "LO", "SIEMENS CSA HEADER")
        tags = {
            "AcquisitionMatrixText": ("SH", ["8p*8"]),
            "NumberOfImagesInMosaic": ("US", [COUNT]),
            "SliceNormalVector": ("FD", [0.0, 0.0, 1.0]),
        }
        dataset.add_new((0x0029, 0x1010), "OB", csa(**tags))
    return dataset


def test_a_mosaic_is_cut_into_its_slices_in_every_time_point(tmp_path):
    for time in (1, 2):
        save(mosaic(time), tmp_path / f"{time}")
    images, rows, scan = read(tmp_path)
    assert np.array_equal(np.concatenate(images), np.concatenate([SLICES, SLICES * 2]))
    assert [(row["volume"], row["slice"]) for row in rows] == [(v, k) for v in (0, 1) for k in range(COUNT)]
    assert [row["z_mm"] for row in rows] == [10 + 4 * k for k in range(COUNT)] * 2
    assert {row["spacing_slice_mm"] for row in rows} == {4.0} and scan.items[0].size == (SIDE, SIDE)


def test_the_position_of_a_slice_is_that_of_its_own_first_pixel(tmp_path):
    nibabel = pytest.importorskip("nibabel.nicom.dicomwrappers")
    dataset = mosaic()
    save(dataset, tmp_path / "a")
    wrapper = nibabel.wrapper_from_data(dataset)
    frames = DicomReader(tmp_path).scan().items[0]
    assert frames.n_images == wrapper.image_shape[2] == COUNT
    assert wrapper.image_position == pytest.approx(
        [-36, -24, 10]
    )  # the header states that of a picture with 3 times its side


def test_a_mosaic_without_its_siemens_header_is_set_aside(tmp_path):
    save(mosaic(header=False), tmp_path / "a")
    [refused] = DicomReader(tmp_path).scan().refused
    assert refused.kind == "filtered" and "a Siemens mosaic" in refused.reason
