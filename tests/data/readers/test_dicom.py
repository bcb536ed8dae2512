"""DICOM: what is an image, in which order, in which units. Files are written by pydicom; its samples are read too."""

import gzip

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from support.dicom_files import SAMPLES, read, write_dicom

from ssl_transfer.data.ingest.lookup import file_names
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.reader import walk
from ssl_transfer.errors import SourceError


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "store"


STORED = np.arange(12).reshape(3, 4) * 100


def test_ct_becomes_hu_and_padding_becomes_air(tmp_path):
    stored = STORED.copy()
    stored[0, 0] = 4000
    write_dicom(tmp_path / "a", stored, PixelPaddingValue=4000)
    [image], [row], scan = read(DicomReader(tmp_path))
    expected = STORED - 1024
    expected[0, 0] = -1024
    assert scan.units == "hu" and scan.domain == "ct"
    assert image.dtype == np.int16 and np.array_equal(image[0], expected)
    assert (row["spacing_row_mm"], row["spacing_col_mm"], row["label"], row["body_part"]) == (
        0.5,
        0.75,
        "CHEST",
        "CHEST",
    )


def test_hu_below_air_is_clipped(tmp_path):
    write_dicom(tmp_path / "a", STORED, RescaleIntercept=-2000)
    [image], _, _ = read(DicomReader(tmp_path))
    assert np.array_equal(image[0], np.clip(STORED - 2000, -1024, None))


def test_a_fractional_rescale_gives_floats(tmp_path):
    write_dicom(tmp_path / "a", STORED, RescaleSlope=0.5, Modality="MR", SOPClassUID=MRImageStorage)
    [image], _, scan = read(DicomReader(tmp_path))
    assert image.dtype == np.float32 and np.array_equal(image[0], STORED * 0.5 - 1024)
    assert scan.units == "stored"


def test_monochrome1_is_turned_so_that_bright_means_dense(tmp_path):
    write_dicom(
        tmp_path / "a",
        STORED,
        Modality="CR",
        PhotometricInterpretation="MONOCHROME1",
        RescaleIntercept=None,
        RescaleSlope=None,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1",
    )
    [image], _, scan = read(DicomReader(tmp_path))
    assert np.array_equal(image[0], 4095 - STORED) and scan.domain == "xray"


def test_slices_are_sorted_by_position_along_the_normal_not_by_name_or_number(tmp_path):
    for name, z in (("a", 7.0), ("b", -3.0), ("c", 2.0)):
        write_dicom(
            tmp_path / name,
            STORED + int(z) + 10,
            ImagePositionPatient=[z, 0, 0],
            InstanceNumber=int(50 - z),
            ImageOrientationPatient=[0, 1, 0, 0, 0, 1],
        )
    images, rows, _ = read(DicomReader(tmp_path))
    assert [row["z_mm"] for row in rows] == [-3.0, 2.0, 7.0]
    assert [row["slice"] for row in rows] == [0, 1, 2]
    assert [int(image.min()) for image in images] == [-1017, -1012, -1007]


def test_without_positions_the_instance_number_decides_and_without_that_the_name(tmp_path):
    for name, number in (("a", 3), ("b", 1), ("c", 2)):
        write_dicom(tmp_path / name, STORED, ImagePositionPatient=None, InstanceNumber=number)
        write_dicom(tmp_path / f"x{name}", STORED, ImagePositionPatient=None, SeriesInstanceUID="9.9")
    assert [item.file for item in DicomReader(tmp_path).scan().items] == ["b", "c", "a", "xa", "xb", "xc"]


def test_frames_of_an_enhanced_object_carry_their_own_rescale_and_position(tmp_path):
    frames = []
    for z, intercept in ((5.0, 0), (1.0, -1000)):
        frame, place, values = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, z]
        values.RescaleSlope, values.RescaleIntercept = 1, intercept
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [place], [values]
        frames.append(frame)
    write_dicom(
        tmp_path / "a",
        np.stack([STORED, STORED]),
        NumberOfFrames=2,
        PerFrameFunctionalGroupsSequence=frames,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        RescaleSlope=None,
        RescaleIntercept=None,
        ImagePositionPatient=None,
    )
    images, rows, _ = read(DicomReader(tmp_path))
    assert [row["z_mm"] for row in rows] == [1.0, 5.0] and [row["slice"] for row in rows] == [0, 1]
    assert np.array_equal(images[0][0], STORED - 1000) and np.array_equal(images[1][0], STORED)


def test_files_that_are_not_images_are_refused_by_kind(tmp_path):
    write_dicom(tmp_path / "deep/er/image", STORED)
    write_dicom(tmp_path / "scout", STORED, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_dicom(tmp_path / "mr", STORED, Modality="MR", SOPClassUID=MRImageStorage)
    write_dicom(tmp_path / "plan", STORED, Modality="RTPLAN", PixelData=None, Rows=None)
    write_dicom(tmp_path / "seg", STORED, Modality="SEG")
    write_dicom(tmp_path / "no_pixels.dcm", STORED, PixelData=None)
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "junk.dcm").write_bytes(b"junk" * 100)
    scan = DicomReader(tmp_path, modality="ct").scan()
    assert [item.file for item in scan.items] == ["deep/er/image"]
    assert {refusal.file: refusal.kind for refusal in scan.refused} == {
        "scout": "localizer",
        "mr": "filtered",
        "plan": "not_an_image",
        "seg": "not_an_image",
        "README.txt": "not_an_image",
        ".DS_Store": "not_an_image",
        "empty.dcm": "unreadable",
        "junk.dcm": "unreadable",
        "no_pixels.dcm": "unreadable",
    }


def test_a_file_without_a_preamble_is_read(tmp_path):
    path = write_dicom(tmp_path / "a", STORED)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta, dataset.preamble
    pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    assert path.read_bytes()[128:132] != b"DICM"
    [image], _, _ = read(DicomReader(tmp_path))
    assert np.array_equal(image[0], STORED - 1024)


def test_dicom_that_is_compressed_with_gzip_counts_as_unreadable(tmp_path):
    write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16))
    (tmp_path / "b.dcm.gz").write_bytes(gzip.compress((tmp_path / "a.dcm").read_bytes()))
    [refusal] = DicomReader(tmp_path).scan().refused
    assert (refusal.file, refusal.kind) == ("b.dcm.gz", "unreadable") and "gzip" in refusal.reason


def test_a_truncated_file_is_unreadable_and_listed(tmp_path, out):
    for number in range(30):
        write_dicom(tmp_path / f"{number}", STORED + number)
    short = tmp_path / "7"
    short.write_bytes(short.read_bytes()[:-5])
    store = ingest(tmp_path, out)
    assert len(store) == 29
    assert [(r["file"], r["kind"]) for r in store.refused] == [("7", "unreadable")]


def test_the_same_image_twice_is_a_duplicate_and_the_same_uid_with_other_pixels_is_not(tmp_path, out):
    write_dicom(tmp_path / "a", STORED, SOPInstanceUID="1.5")
    write_dicom(tmp_path / "b/a", STORED, SOPInstanceUID="1.5")
    write_dicom(tmp_path / "c", STORED + 1, SOPInstanceUID="1.5")
    store = ingest(tmp_path, out)
    assert len(store) == 2
    assert [(r["file"], r["kind"]) for r in store.refused] == [("b/a", "duplicate")]


def test_screen_captures_are_left_out_of_a_ct_archive(tmp_path):
    write_dicom(tmp_path / "a", STORED)
    write_dicom(tmp_path / "dose", STORED, SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and [(r.file, r.kind) for r in scan.refused] == [("dose", "filtered")]


def test_a_mixed_folder_is_kept_and_warned_about(tmp_path, out):
    write_dicom(tmp_path / "a", STORED)
    write_dicom(tmp_path / "b", STORED, Modality="MR", SOPClassUID=MRImageStorage, SeriesInstanceUID="7.8")
    store = ingest(tmp_path, out)
    assert store.units == "scaled" and str(store.domain) == "unknown"
    assert sorted(store.column("modality")) == ["CT", "MR"]
    assert any("mixed modalities: CT 1, MR 1" in warning for warning in store.card.warnings)


def test_masks_are_read_from_files_beside_the_images(tmp_path):
    from PIL import Image

    write_dicom(tmp_path / "in/s1/0001.dcm", STORED)
    (tmp_path / "masks/s1").mkdir(parents=True)
    Image.fromarray((STORED > 500).astype(np.uint8) * 2).save(tmp_path / "masks/s1/0001.png")
    store = ingest(tmp_path / "in", tmp_path / "o", masks="../masks/{parent}/{stem}.png", mask_names="liver,lesion")
    assert np.array_equal(store.masks([0])[0], (STORED > 500) * 2)
    assert store.card.masks.classes == {"1": "liver", "2": "lesion"}


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_lossless_coding_gives_the_same_pixels(name):
    [plain], _, _ = read(DicomReader(SAMPLES / "MR_small.dcm"))
    [coded], _, _ = read(DicomReader(SAMPLES / name))
    assert np.array_equal(plain, coded)


@pytest.mark.parametrize(
    "name, shape",
    [
        ("JPEG-lossy.dcm", (1, 1024, 256)),
        ("JPGExtended.dcm", (1, 1024, 256)),
        ("JPEG2000.dcm", (1, 1024, 256)),
        ("693_J2KI.dcm", (1, 512, 512)),
        ("J2K_pixelrep_mismatch.dcm", (1, 512, 512)),
        ("image_dfl.dcm", (1, 512, 512)),
        ("JPEGLSNearLossless_16.dcm", (1, 50, 10)),
        ("SC_rgb_jpeg_gdcm.dcm", (3, 100, 100)),
        ("SC_rgb_rle_32bit.dcm", (3, 100, 100)),
        ("SC_ybr_full_422_uncompressed.dcm", (3, 100, 100)),
        ("examples_palette.dcm", (3, 350, 800)),
        ("ExplVR_BigEnd.dcm", (3, 60, 80)),
    ],
)
def test_other_codings_and_colours_decode(name, shape):
    [image], _, scan = read(DicomReader(SAMPLES / name))
    assert image.shape == shape and image.dtype == scan.items[0].dtype and image.max() > image.min()
    assert shape[0] == 1 or image.dtype == np.uint8


def test_colour_looks_the_same_in_16_and_32_bit_as_in_8():
    images = [read(DicomReader(SAMPLES / f"SC_rgb_rle{bits}.dcm"))[0][0] for bits in ("", "_16bit", "_32bit")]
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])


def test_the_sample_files_of_pydicom_are_ingested_and_damaged_ones_are_listed(tmp_path):
    store = ingest(SAMPLES, tmp_path / "store", workers=1)
    kinds = {refusal["file"]: refusal["kind"] for refusal in store.refused}
    unreadable = {file for file, kind in kinds.items() if kind == "unreadable"}
    assert unreadable == {"MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "no_meta.dcm"}
    assert kinds["dicomdirtests/98892001/CT2N/6293"] == "localizer"
    assert kinds["MR_small_RLE.dcm"] == "duplicate"
    assert {kinds[f] for f in ("rtplan.dcm", "rtdose.dcm", "liver_1frame.dcm", "test-SR.dcm", "README.txt")} == {
        "not_an_image"
    }
    kept = set(file_names(store, SAMPLES).values()) - set(kinds)
    assert set(kept) == {file for file, _ in walk(SAMPLES)} - set(kinds)
    assert len(kept) + len(kinds) == sum(path.is_file() for path in SAMPLES.rglob("*"))  # each is in one or the other


def test_a_folder_of_nothing_but_broken_files_fails_and_names_them(tmp_path, out):
    (tmp_path / "a.dcm").touch()
    with pytest.raises(SourceError, match=r"1 of 1 image files .* --max-refused[\s\S]*a.dcm: the file is empty"):
        ingest(tmp_path, out)
    assert not out.exists()
