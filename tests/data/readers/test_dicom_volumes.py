"""Series are divided into volumes, slices are in order, and their spacing is a distance in mm or unknown."""

from collections import Counter

import numpy as np
import pytest
from pydicom import dcmread
from support.dicom_files import MR, XRAY, item, read, write_dicom

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.dicom import DicomReader

Z = 4


def flat(value):
    return np.full((8, 8), value, np.uint16)


def write_slices(folder, attributes, *, positions=range(Z), interleaved=False):
    """One MR series: for each entry of `attributes` a slice at each position (4 mm apart), value 100 * entry + position."""
    places = [(t, z) for t in range(len(attributes)) for z in positions]
    places = sorted(places, key=lambda place: place[::-1]) if interleaved else places
    for number, (t, z) in enumerate(places):
        own = {name: value(z) if callable(value) else value for name, value in attributes[t].items()}
        elements = {"ImagePositionPatient": [0, 0, 4.0 * z], "InstanceNumber": number + 1}
        write_dicom(folder / f"{number:03d}", flat(100 * t + z), **MR | elements | own)


def volumes(source):
    """Values of each volume, in the order of its slices, and the rows."""
    images, rows, scan = read(source)
    found: dict = {}
    for image, row in zip(images, rows, strict=True):
        assert row["slice"] == len(found.setdefault(row["volume"], []))
        found[row["volume"]].append(int(image[0, 0, 0]))
    return found, rows, scan


def expected(n, positions=range(Z)):
    return {t: [100 * t + z for z in positions] for t in range(n)}


def time_of(t):
    return lambda z: f"1015{t:02d}.{z}00000"


BY = {
    "temporal position": [{"TemporalPositionIdentifier": t + 1} for t in range(3)],
    "acquisition number": [{"AcquisitionNumber": t + 1} for t in range(3)],
    "acquisition time": [{"AcquisitionDate": "20200101", "AcquisitionTime": time_of(t)} for t in range(3)],
    "content time": [{"ContentTime": time_of(t)} for t in range(3)],
    "trigger time": [{"TriggerTime": lambda z, t=t: 30.0 * t + z / 10} for t in range(3)],
    "echo number": [{"EchoNumbers": t + 1, "EchoTime": 10.0 * (t + 1)} for t in range(3)],
    "echo time": [{"EchoTime": 2.3 * (t + 1)} for t in range(3)],
    "component": [{"ImageType": ["ORIGINAL", "PRIMARY", kind]} for kind in "MPR"],
    "b-value": [{"DiffusionBValue": 500.0 * t} for t in range(3)],
    "gradient": [
        {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": [float(t == 0), float(t == 1), float(t == 2)]}
        for t in range(3)
    ],
    "contrast": [{"ContrastBolusAgent": agent} for agent in ("agent a", "agent b", "agent c")],
    "inversion time": [{"InversionTime": 100.0 * (t + 1)} for t in range(3)],
    "instance number": [{} for _ in range(3)],
}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("vector", ["TimeSlotVector", "DetectorVector", "EnergyWindowVector"])
def test_frames_of_nuclear_medicine_are_divided_by_their_vectors(tmp_path, vector, interleaved):
    places = sorted(((t, z) for t in (1, 2, 3) for z in (1, 2, 3, 4)), key=lambda p: p[::-1] if interleaved else p)
    frames = np.stack([flat(100 * t + z) for t, z in places])
    elements = {"Modality": "NM", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.20", "NumberOfFrames": len(places)}
    vectors = {"SliceVector": [z for _, z in places], vector: [t for t, _ in places]}
    write_dicom(tmp_path / "nm.dcm", frames, **MR | elements | vectors)
    found, rows, _ = volumes(tmp_path)
    assert found == {t - 1: [100 * t + z for z in (1, 2, 3, 4)] for t in (1, 2, 3)}
    assert {row["spacing_slice_mm"] for row in rows} == {None}


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("by", BY)
def test_a_series_is_divided_into_volumes(tmp_path, by, interleaved):
    write_slices(tmp_path, BY[by], interleaved=interleaved)
    found, rows, _ = volumes(tmp_path)
    assert found == expected(3)
    assert {row["spacing_slice_mm"] for row in rows} == {4.0} and {row["geometry"] for row in rows} == {None}


def test_times_that_differ_from_slice_to_slice_do_not_divide_a_volume(tmp_path):
    write_slices(
        tmp_path, [{"AcquisitionTime": time_of(1), "ContentTime": time_of(2), "AcquisitionNumber": lambda z: z + 1}]
    )
    assert volumes(tmp_path)[0] == expected(1)


def test_echoes_and_components_divide_before_time(tmp_path):
    attributes = [
        {"EchoNumbers": echo, "TemporalPositionIdentifier": t, "ImageType": ["ORIGINAL", "PRIMARY", kind]}
        for kind in "MP"
        for echo in (1, 2)
        for t in (1, 2, 3)
    ]
    write_slices(tmp_path, attributes)
    assert volumes(tmp_path)[0] == expected(12)


def test_two_kernels_at_alternating_positions_are_two_volumes(tmp_path):
    for number in range(8):
        kernel = "B30f" if number % 2 else "B70f"
        write_dicom(tmp_path / f"{number}", flat(number), ImagePositionPatient=[0, 0, number], ConvolutionKernel=kernel)
    found, rows, _ = volumes(tmp_path)
    assert [len(found[v]) for v in (0, 1)] == [4, 4] and {row["spacing_slice_mm"] for row in rows} == {2.0}


def test_orientations_and_sizes_are_volumes_apart(tmp_path):
    write_slices(tmp_path / "a", [{}])
    write_slices(
        tmp_path / "b", [{"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImagePositionPatient": lambda z: [z, 0, 0]}]
    )
    write_dicom(tmp_path / "c", np.zeros((12, 12)), **MR, ImagePositionPatient=[0, 0, 400], InstanceNumber=99)
    assert sorted(map(len, volumes(tmp_path)[0].values())) == [1, Z, Z]


def test_a_damaged_field_of_one_slice_makes_no_volume(tmp_path):
    write_slices(
        tmp_path,
        [{"EchoNumbers": lambda z: None if z == 2 else 1, "PixelSpacing": lambda z: None if z == 1 else [1, 1]}],
    )
    assert volumes(tmp_path)[0] == expected(1)


def test_positions_that_nothing_tells_apart_are_marked_and_have_no_distance(tmp_path):
    for copy in "ab":
        for z in range(Z):
            write_dicom(tmp_path / f"{copy}{z}", flat(z), InstanceNumber=z, ImagePositionPatient=[0, 0, 4.0 * z])
    _, rows, scan = read(tmp_path)
    assert Counter(row["geometry"] for row in rows) == {"repeated": 8} and rows[0]["spacing_slice_mm"] is None
    assert any("1 volume(s) with several slices at one position" in warning for warning in scan.warnings)


def test_copies_of_a_file_do_not_make_positions_repeat(tmp_path):
    for z in range(Z):
        for copy in "ab":
            write_dicom(
                tmp_path / "in" / f"{copy}{z}", flat(z), SOPInstanceUID=f"1.{z}", ImagePositionPatient=[0, 0, 4.0 * z]
            )
    store = ingest(tmp_path / "in", tmp_path / "store")
    assert len(store) == Z and store.column("slice").tolist() == [0, 1, 2, 3]
    assert store.column("spacing_slice_mm").tolist() == [4.0] * Z


@pytest.mark.parametrize(
    "positions, mm, geometry",
    [
        ([0, 3, 6, 9], 3.0, None),
        ([0, 0.62, 1.25, 1.87, 2.5], 0.625, None),
        ([0, 3, 6, 12], None, "gap"),
        ([0, 3, 5, 9], None, "uneven"),
        ([0, 3, 6, 9.5, 13], None, "uneven"),
        ([7], None, None),
    ],
)
def test_the_spacing_of_slices_is_even_or_unknown(tmp_path, positions, mm, geometry):
    for number, z in enumerate(positions):
        write_dicom(tmp_path / f"{number}", flat(number), ImagePositionPatient=[0, 0, z])
    _, rows, scan = read(tmp_path)
    assert {row["spacing_slice_mm"] for row in rows} == {mm} and {row["geometry"] for row in rows} == {geometry}
    assert bool(scan.warnings) == (geometry is not None)


def test_the_spacing_of_oblique_slices_is_along_their_normal(tmp_path):
    angle = np.deg2rad(30)
    axes = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    for number in range(4):
        point = [round(float(value), 6) for value in 3.0 * number * normal]
        write_dicom(tmp_path / f"{number}", flat(number), ImagePositionPatient=point, ImageOrientationPatient=axes)
    _, rows, _ = read(tmp_path)
    assert [row["spacing_slice_mm"] for row in rows] == pytest.approx([3.0] * 4) and rows[0]["geometry"] is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_without_an_orientation_are_a_volume_along_the_axis_on_which_they_lie(tmp_path, axis):
    for number in range(4):
        point = [4.0 * number * (k == axis) for k in range(3)]
        write_dicom(
            tmp_path / f"{number}",
            flat(number),
            **MR | {"ImagePositionPatient": point, "ImageOrientationPatient": None},
        )
    found, rows, _ = volumes(tmp_path)
    assert found == {
        0: [3, 2, 1, 0] if axis == 0 else [0, 1, 2, 3]
    }  # the normal of sagittal slices points to the right
    assert {(row["spacing_slice_mm"], row["geometry"]) for row in rows} == {(4.0, None)}


def test_a_tilted_gantry_has_no_distance_between_slices(tmp_path):
    axes = [1, 0, 0, 0, np.cos(0.3), np.sin(0.3)]
    for number in range(4):
        write_dicom(
            tmp_path / f"{number}", flat(number), ImagePositionPatient=[0, 0, 5 * number], ImageOrientationPatient=axes
        )
    _, rows, scan = read(tmp_path)
    assert {row["geometry"] for row in rows} == {"tilt"} and rows[0]["spacing_slice_mm"] is None
    assert any("tilted gantry" in warning for warning in scan.warnings)


def test_slices_without_a_position_leave_the_distance_unknown(tmp_path):
    write_slices(tmp_path, [{"ImagePositionPatient": lambda z: None if z == 2 else [0, 0, 4.0 * z]}])
    found, rows, _ = volumes(tmp_path)
    assert found == expected(1) and rows[0]["spacing_slice_mm"] is None and rows[0]["geometry"] == "incomplete"


def enhanced(path, frames, *, dimensions=(), **elements):
    """An enhanced CT; each frame is (value, z, content of its FrameContentSequence, slope, intercept)."""
    groups = [
        item(
            PlanePositionSequence={"ImagePositionPatient": [0, 0, float(z)]},
            PixelValueTransformationSequence={
                "RescaleSlope": slope,
                "RescaleIntercept": intercept,
                "RescaleType": "HU",
            },
            FrameContentSequence=content,
        )
        for _, z, content, slope, intercept in frames
    ]
    shared = item(
        PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
        PixelMeasuresSequence={"PixelSpacing": [0.5, 0.6]},
    )
    write_dicom(
        path,
        np.stack([flat(frame[0]) for frame in frames]),
        NumberOfFrames=len(frames),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        PerFrameFunctionalGroupsSequence=groups,
        SharedFunctionalGroupsSequence=[shared],
        DimensionIndexSequence=[item(DimensionIndexPointer=tag) for tag in dimensions] or None,
        **{"RescaleSlope": None, "RescaleIntercept": None, "ImagePositionPatient": None, "PixelSpacing": None}
        | elements,
    )


def test_frames_in_any_order_with_their_own_rescale(tmp_path):
    frames = [(100 * z, z, {"StackID": "1"}, 1 + z % 2, -1024 + 10 * z) for z in (3, 0, 5, 1, 4, 2)]
    enhanced(tmp_path / "a", frames)
    images, rows, scan = read(tmp_path)
    want = [max(100 * z * (1 + z % 2) - 1024 + 10 * z, -1024) for z in range(6)]
    assert [int(image[0, 0, 0]) for image in images] == want and scan.units == "hu"
    assert [row["z_mm"] for row in rows] == list(range(6)) and rows[0]["spacing_slice_mm"] == 1.0
    assert [row["rescale"] for row in rows] == [f"{1 + z % 2};{-1024 + 10 * z}" for z in range(6)]
    assert (rows[0]["spacing_row_mm"], rows[0]["spacing_col_mm"]) == (0.5, 0.6)


def test_an_object_of_which_some_frames_state_no_rescale_is_refused(tmp_path):
    enhanced(tmp_path / "a", [(100 * z, z, {}, 1, -1024) for z in range(4)])
    dataset = dcmread(tmp_path / "a")
    del dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence
    dataset.save_as(tmp_path / "a")
    [refused] = DicomReader(tmp_path).scan().refused
    assert refused.reason == "some of its frames state rescale slope and intercept, and others do not"


def test_an_object_is_in_hu_only_if_all_of_its_frames_are(tmp_path):
    enhanced(tmp_path / "a", [(100 * z, z, {}, 1, -1024) for z in range(4)])
    dataset = dcmread(tmp_path / "a")
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence[0].RescaleType = "US" if number == 2 else "HU"
    dataset.save_as(tmp_path / "a")
    scan = DicomReader(tmp_path).scan()
    assert scan.units == "stored" and "its rescale type is HU, US" in scan.warnings[0]


def test_frames_have_the_kernel_and_voltage_of_their_own_groups(tmp_path):
    enhanced(
        tmp_path / "a", [(100 * z, z, {}, 1, -1024) for z in (1, 0)] + [(900 + z, z, {}, 1, -1024) for z in (1, 0)]
    )
    dataset = dcmread(tmp_path / "a")
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        group.CTReconstructionSequence = [item(ConvolutionKernel="Br40" if number < 2 else "Br64")]
        group.CTXRayDetailsSequence = [item(KVP=80 + 10 * number)]
    dataset.save_as(tmp_path / "a")
    _, rows, _ = read(tmp_path)
    assert [(row["volume"], row["z_mm"], row["kernel"], row["kvp"]) for row in rows] == [
        (0, 0, "Br40", 90),
        (0, 1, "Br40", 80),
        (1, 0, "Br64", 110),
        (1, 1, "Br64", 100),
    ]


@pytest.mark.parametrize("how", ["TemporalPositionIndex", "FrameAcquisitionNumber", "StackID", "DimensionIndexValues"])
def test_frames_of_an_enhanced_object_are_divided_into_volumes(tmp_path, how):
    def content(t, z):
        if how == "DimensionIndexValues":
            return {how: [t + 1, z + 1]}
        return {how: str(t) if how == "StackID" else t}  # from 0

    frames = [(100 * t + z + 1024, z, content(t, z), 1, -1024) for z in range(Z) for t in range(3)]
    enhanced(tmp_path / "a", frames, dimensions=(0x00209128, 0x00209057) if how == "DimensionIndexValues" else ())
    found, rows, _ = volumes(tmp_path)
    assert found == expected(3) and {row["spacing_slice_mm"] for row in rows} == {1.0}


def test_one_phase_per_file_and_frames_without_positions(tmp_path):
    for t in range(3):
        frames = [(100 * t + z + 1024, z, {"TemporalPositionIndex": t + 1}, 1, -1024) for z in (2, 0, 1, 3)]
        enhanced(tmp_path / "phases" / f"{t}", frames, InstanceNumber=t + 1)
    assert volumes(tmp_path / "phases")[0] == expected(3)
    write_dicom(
        tmp_path / "cine/a", np.stack([flat(t) for t in range(5)]), NumberOfFrames=5, **XRAY | {"Modality": "XA"}
    )
    assert volumes(tmp_path / "cine")[0] == {0: [0, 1, 2, 3, 4]}


@pytest.mark.parametrize("how", BY)
def test_volumes_of_a_series_are_on_one_scale_unless_they_measure_different_things(tmp_path, how):
    write_slices(tmp_path, BY[how])
    items = DicomReader(tmp_path).scan().items
    own = any("ImageType" in elements for elements in BY[how])
    assert [one.together for one in items] == [f"0/{t * own}" for t in range(len(BY[how])) for _ in range(Z)]
