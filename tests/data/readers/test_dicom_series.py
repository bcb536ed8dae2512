"""Units of DICOM series: what is in HU, what its series proves, and what is set aside with which reason."""

import numpy as np
import pytest
from pydicom.uid import SecondaryCaptureImageStorage
from support.dicom_files import MR, RGB, XRAY, make_dicom, read, save, write_dicom

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.dicom import DicomReader

rng = np.random.default_rng(0)
HU = rng.integers(-900, 900, (16, 16))
STORED = HU + 1024
CONE_BEAM = "1.2.840.10008.5.1.4.1.1.13.1.1"
PRIVATE = "1.3.46.670589.11.0.0.12.1"
NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def write_ct(folder, n=5, stored=STORED, **elements):
    for number in range(n):
        write_dicom(
            folder / f"{number}", stored, InstanceNumber=number, ImagePositionPatient=[0, 0, 5.0 * number], **elements
        )


def reasons(scan):
    return {refusal.file: (refusal.kind, refusal.reason) for refusal in scan.refused}


def test_a_slice_without_rescale_has_that_of_its_series(tmp_path):
    write_ct(tmp_path / "p")
    write_dicom(tmp_path / "p/2", STORED, InstanceNumber=2, ImagePositionPatient=[0, 0, 10.0], **NO_RESCALE)
    images, rows, scan = read(tmp_path)
    assert all(np.array_equal(image[0], HU) for image in images) and len(images) == 5
    assert {row["rescale"] for row in rows} == {"1;-1024"} and {row["intensity"] for row in rows} == {"hu"}
    assert any("1 image file(s) of 1 series state no rescale" in warning for warning in scan.warnings)


def test_a_slice_without_rescale_whose_values_are_hu_already_is_refused(tmp_path):
    write_ct(tmp_path / "p", PixelRepresentation=1)
    write_dicom(tmp_path / "p/2", HU, ImagePositionPatient=[0, 0, 10.0], PixelRepresentation=1, **NO_RESCALE)
    source = DicomReader(tmp_path)
    repaired = next(item for item in source.scan().items if item.file == "p/2")
    with pytest.raises(Exception, match="not plausible"):
        list(source.read(repaired))


@pytest.mark.parametrize("change", [{"BitsStored": 16}, {"PixelRepresentation": 1}], ids=["bits", "sign"])
def test_a_slice_without_rescale_that_is_coded_in_another_way_is_set_aside(tmp_path, change):
    write_ct(tmp_path / "p")
    write_dicom(tmp_path / "p/2", STORED, ImagePositionPatient=[0, 0, 10.0], **NO_RESCALE, **change)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and len(scan.items) == 4
    assert reasons(scan)["p/2"][0] == "filtered" and "no rescale slope and intercept" in reasons(scan)["p/2"][1]


def test_a_slice_without_rescale_among_slices_that_disagree_is_refused(tmp_path):
    for number, intercept in enumerate((-1024, -1000, -1024, None)):
        write_dicom(
            tmp_path / f"{number}",
            STORED,
            ImagePositionPatient=[0, 0, number],
            RescaleIntercept=intercept,
            RescaleSlope=None if intercept is None else 1,
        )
    scan = DicomReader(tmp_path).scan()
    assert len(scan.items) == 3 and "do not prove it" in reasons(scan)["3"][1]


def test_a_slice_with_another_rescale_than_its_series_is_refused(tmp_path):
    write_ct(tmp_path / "p")
    write_dicom(tmp_path / "p/2", STORED, ImagePositionPatient=[0, 0, 10.0], RescaleIntercept=0)
    scan = DicomReader(tmp_path).scan()
    assert "1 and 0, but 1 and -1024 in 4 images" in reasons(scan)["p/2"][1] and scan.units == "hu"


def test_slices_that_all_state_their_own_rescale_are_believed(tmp_path):
    for number in range(6):
        write_dicom(
            tmp_path / f"{number}", STORED, ImagePositionPatient=[0, 0, number], RescaleIntercept=-1024 + number
        )
    images, _, scan = read(tmp_path)
    assert len(images) == 6 and not scan.refused
    assert [int(image[0, 0, 0]) for image in images] == [HU[0, 0] + number for number in range(6)]


@pytest.mark.parametrize("kind", ["US", "OD", "Z_EFF", "HU_MOD"])
def test_another_rescale_type_is_not_in_hu(tmp_path, kind):
    write_ct(tmp_path / "p")
    write_ct(tmp_path / "q", n=2, SeriesInstanceUID="1.9", RescaleType=kind)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and len(scan.items) == 5
    assert reasons(scan)["q/0"] == (
        "filtered",
        f"not in Hounsfield units, unlike other images of the source: its rescale type is {kind}",
    )


@pytest.mark.parametrize(
    "sop, word",
    [(PRIVATE, PRIVATE), (CONE_BEAM, "X-Ray 3D Angiographic"), (SecondaryCaptureImageStorage, "screen capture")],
)
def test_one_image_of_another_sop_class_does_not_take_the_store_out_of_hu(tmp_path, sop, word):
    write_ct(tmp_path / "p", n=19)
    write_dicom(tmp_path / "odd", STORED, SOPClassUID=sop, PatientID="p9", SeriesInstanceUID="1.9")
    images, _, scan = read(tmp_path)
    assert scan.units == "hu" and len(images) == 19 and all(image.dtype == np.int16 for image in images)
    assert reasons(scan)["odd"][0] == "filtered" and word in reasons(scan)["odd"][1]
    assert any("1 image(s) were set aside" in warning for warning in scan.warnings)


def test_a_private_sop_class_within_a_series_in_hu_is_in_hu_and_said(tmp_path):
    write_ct(tmp_path / "p", n=4)
    write_dicom(tmp_path / "p/9", STORED, SOPClassUID=PRIVATE, ImagePositionPatient=[0, 0, 20.0])
    images, _, scan = read(tmp_path)
    assert len(images) == 5 and scan.units == "hu" and np.array_equal(images[-1][0], HU)
    assert any("1 of a SOP class other than CT are read as HU" in warning for warning in scan.warnings)


def test_a_missing_sop_class_is_taken_from_the_file_meta_information_and_said(tmp_path):
    write_ct(tmp_path / "p", n=4)
    dataset = make_dicom(STORED, SeriesInstanceUID="1.9", PatientID="p9")
    del dataset.SOPClassUID
    save(dataset, tmp_path / "odd")
    _, _, scan = read(tmp_path)
    assert scan.units == "hu" and len(scan.items) == 5
    assert any("1 file(s) without a SOP class" in warning for warning in scan.warnings)


@pytest.mark.parametrize(
    "elements, count", [({"RescaleIntercept": 0}, 4), ({"RescaleIntercept": 0, "PixelRepresentation": 1}, 0)]
)
def test_hu_that_cannot_be_below_0_are_named(tmp_path, elements, count):
    write_ct(tmp_path / "p", n=4, **elements)
    _, _, scan = read(tmp_path)
    assert scan.units == "hu"
    assert [warning.partition(" ")[0] for warning in scan.warnings if "cannot have values below 0" in warning] == [
        str(count)
    ] * (count > 0)


def test_a_colour_map_in_the_ct_sop_class_is_set_aside_whatever_its_size(tmp_path):
    write_ct(tmp_path / "p", n=3)
    for size in (16, 20):
        colours = rng.integers(0, 255, (size, size, 3))
        write_dicom(tmp_path / f"map{size}", colours, SeriesInstanceUID="1.9", **RGB, **NO_RESCALE)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and {item.channels for item in scan.items} == {1}
    assert reasons(scan)["map16"] == reasons(scan)["map20"]
    assert reasons(scan)["map16"][1] == "not in Hounsfield units, unlike other images of the source: a colour image"


def test_a_colour_map_among_mr_is_set_aside_and_colour_ultrasound_is_not(tmp_path):
    write_ct(tmp_path / "mr", n=3, **MR)
    colours = rng.integers(0, 255, (16, 16, 3))
    write_dicom(tmp_path / "map", colours, **MR | RGB | {"SeriesInstanceUID": "1.9"})
    write_dicom(tmp_path / "us", colours, **XRAY | RGB | {"Modality": "US", "SeriesInstanceUID": "1.8"})
    scan = DicomReader(tmp_path).scan()
    assert set(reasons(scan)) == {"map"} and len(scan.items) == 4
    assert not DicomReader(tmp_path, domain="unknown").scan().refused


def test_grey_parameter_maps_are_not_in_hu(tmp_path):
    write_ct(tmp_path / "p", n=3)
    kinds = ["DERIVED", "SECONDARY", "AXIAL", "CT_PERFUSION", "CBF"]
    write_ct(tmp_path / "map", n=2, SeriesInstanceUID="1.9", ImageType=kinds)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and "ImageType names a parameter map (CBF)" in reasons(scan)["map/0"][1]


def test_ct_without_any_rescale_is_kept_as_stored_and_said(tmp_path):
    write_ct(tmp_path / "p", **NO_RESCALE)
    images, rows, scan = read(tmp_path)
    assert scan.units == "stored" and np.array_equal(images[0][0], STORED) and rows[0]["rescale"] is None
    assert any("CT images that are not in Hounsfield units are kept as stored" in warning for warning in scan.warnings)


def test_few_images_of_another_modality_are_set_aside_and_many_are_kept(tmp_path):
    write_ct(tmp_path / "ct", n=9)
    write_ct(tmp_path / "mr", n=2, SeriesInstanceUID="1.9", **MR)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "hu" and len(scan.items) == 9 and "its modality is MR" in reasons(scan)["mr/0"][1]
    write_ct(tmp_path / "mr", n=5, SeriesInstanceUID="1.9", **MR)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "stored" and len(scan.items) == 14 and not scan.refused
    write_ct(tmp_path / "mr", n=40, SeriesInstanceUID="1.9", **MR)
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "stored" and len(scan.items) == 40
    assert reasons(scan)["ct/0"][1] == "CT in Hounsfield units among other modalities"


@pytest.mark.parametrize("domain, units, kept", [("ct", "hu", 9), ("mr", "stored", 14), ("unknown", "stored", 14)])
def test_the_domain_decides_otherwise(tmp_path, domain, units, kept):
    write_ct(tmp_path / "ct", n=9)
    write_ct(tmp_path / "mr", n=5, SeriesInstanceUID="1.9", **MR)
    scan = DicomReader(tmp_path, domain=domain).scan()
    assert (scan.units, len(scan.items)) == (units, kept)


def test_burned_in_annotations_are_counted_in_a_warning(tmp_path):
    write_ct(tmp_path / "in/p", n=3, BurnedInAnnotation="YES")
    write_dicom(tmp_path / "in/q", STORED, SeriesInstanceUID="1.9", BurnedInAnnotation="NO")
    store = ingest(tmp_path / "in", tmp_path / "store")
    assert any(warning.startswith("3 image(s) state burned-in annotations") for warning in store.card.warnings)


def test_an_archive_cut_off_in_its_headers_is_unreadable_by_name_or_not(tmp_path):
    write_ct(tmp_path / "p", n=6)
    for number, length in enumerate((140, 300, 500, 700)):
        path = tmp_path / f"p/{number}"
        path.write_bytes(path.read_bytes()[:length])
    scan = DicomReader(tmp_path).scan()
    assert len(scan.items) == 2 and {kind for kind, _ in reasons(scan).values()} == {"unreadable"}


def test_an_id_of_an_unknown_value_representation_costs_that_file_alone(tmp_path):
    write_ct(tmp_path / "p", n=3)
    path = tmp_path / "p/1"
    data = path.read_bytes()
    place = data.index(b"\x10\x00\x20\x00LO")
    path.write_bytes(data[: place + 4] + b"zz" + data[place + 6 :])
    scan = DicomReader(tmp_path).scan()
    assert len(scan.items) == 2 and reasons(scan)["p/1"][0] == "unreadable"
