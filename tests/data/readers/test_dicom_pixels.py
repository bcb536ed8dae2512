"""DICOM pixels: stored bits, rescale, lookup tables, padding, inversion, colour, floats, limits. Expected values by hand."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless
from support.dicom_files import MR, RGB, SAMPLES, XRAY, item, make_dicom, read, save, write_dicom

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.dicom import DicomReader
from ssl_transfer.data.readers.reader import Unreadable

rng = np.random.default_rng(0)
VALUES = rng.integers(100, 2000, (32, 32)).astype(np.uint16)
OVERLAY = np.zeros((32, 32), bool)
OVERLAY[4:8, 4:20] = True


def compressed(dataset, syntax):
    """Compress the whole word, as archives do that do not look at the stored bits."""
    stored = dataset.BitsStored, dataset.HighBit
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = stored
    return dataset


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize("elements", [{}, MR], ids=["ct", "mr"])
def test_an_overlay_above_the_stored_bits_is_removed_in_every_transfer_syntax(tmp_path, syntax, elements):
    dataset = make_dicom(VALUES | (OVERLAY.astype(np.uint16) << 12), **elements)
    save(compressed(dataset, syntax) if syntax else dataset, tmp_path / "a")
    [image], [row], _ = read(tmp_path)
    assert np.array_equal(image[0], VALUES.astype(int) - (0 if elements else 1024)) and row["bits"] == 12


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
def test_signed_values_are_extended_from_the_highest_stored_bit(tmp_path, syntax):
    hu = rng.integers(-1000, 2000, (32, 32))
    word = (hu & 0xFFF) | np.where(OVERLAY, 0x4000, 0)  # the sign is not extended to the 16 bits of the word
    dataset = make_dicom(word, PixelRepresentation=1, RescaleIntercept=0)
    save(compressed(dataset, syntax) if syntax else dataset, tmp_path / "a")
    [image], _, scan = read(tmp_path)
    assert np.array_equal(image[0], hu) and scan.items[0].depth == (-2048, 2047)


def test_values_in_the_upper_bits_of_a_word_are_shifted(tmp_path):
    write_dicom(tmp_path / "a", VALUES << 4, HighBit=15, **MR)
    [image], _, _ = read(tmp_path)
    assert np.array_equal(image[0], VALUES)


@pytest.mark.parametrize("signed", [0, 1])
def test_values_in_the_lower_bits_are_not_shifted_although_the_header_says_so(tmp_path, signed):
    values = VALUES.astype(int) - 1000 * signed  # as ITK and pydicom read them, which do not look at HighBit
    write_dicom(tmp_path / "a", values, HighBit=15, PixelRepresentation=signed, **MR)
    [image], _, _ = read(tmp_path)
    assert np.array_equal(image[0], values)


def test_values_that_need_more_bits_than_the_header_states_are_refused(tmp_path, out):
    write_dicom(tmp_path / "bad", VALUES + 600, BitsStored=10, HighBit=9, SeriesInstanceUID="1.9", **MR)
    write_dicom(tmp_path / "good", VALUES, **MR)
    store = ingest(tmp_path, out, max_refused=0.5)
    [refused] = store.refused
    assert refused["kind"] == "unreadable" and "bits above the 10 stored bits" in refused["reason"]


def test_fractional_hounsfield_units_are_rounded(tmp_path):
    write_dicom(tmp_path / "a", VALUES, RescaleSlope=0.7, RescaleIntercept=-500.3)
    [image], [row], scan = read(tmp_path)
    assert image.dtype == np.int16 and scan.units == "hu" and row["rescale"] == "0.7;-500.3"
    assert np.array_equal(image[0], np.rint(VALUES * 0.7 - 500.3))


@pytest.mark.parametrize("first", [0, 200, -5])
def test_a_modality_lookup_table_is_applied_and_decides_about_hu(tmp_path, first):
    table = np.arange(1000, dtype=np.int64) * 3
    stored = rng.integers(0, 1200, (8, 8)).astype(np.int16)
    sequence = [item(LUTDescriptor=[1000, first, 16], ModalityLUTType="HU", LUTData=table.astype("<u2").tobytes())]
    sequence[0]["LUTDescriptor"].VR = "SS"
    write_dicom(
        tmp_path / "a",
        stored,
        ModalityLUTSequence=sequence,
        PixelRepresentation=1,
        RescaleSlope=None,
        RescaleIntercept=None,
    )
    [image], [row], scan = read(tmp_path)
    assert np.array_equal(image[0], table[np.clip(stored.astype(int) - first, 0, 999)])
    assert scan.units == "hu" and row["rescale"] == "table" and scan.items[0].depth == (0, 2997)


PADDED = np.full((16, 16), 800)
PADDED[:, :4] = 40  # outside
PADDED[8, 8] = 40  # in the patient


@pytest.mark.parametrize("limit", [None, 30], ids=["single", "range"])
def test_padding_is_replaced_outside_only(tmp_path, limit):
    write_dicom(tmp_path / "a", PADDED, PixelPaddingValue=40, PixelPaddingRangeLimit=limit)
    [image], [row], _ = read(tmp_path)
    assert (image[0][:, :4] == -1024).all() and image[0][8, 8] == 40 - 1024
    assert row["padding"] == ("40" if limit is None else "40..30")


@pytest.mark.parametrize("last, is_padding", [(4095, False), (1200, False), (100, True)])
def test_a_range_of_padding_that_holds_a_patient_is_not_believed(tmp_path, last, is_padding):
    stored = np.full((8, 8), 1060)  # 36 HU
    stored[0] = 60
    dataset = make_dicom(stored)
    dataset.add_new(0x00280120, "US", 0)
    dataset.add_new(0x00280121, "US", last)
    save(dataset, tmp_path / "a")
    [image], _, _ = read(tmp_path)
    assert image[0, 0, 0] == (-1024 if is_padding else -964) and (image[0, 1:] == 36).all()


@pytest.mark.parametrize("written", [-2000, 63536], ids=["as SS", "as US"])
@pytest.mark.parametrize("signed", [0, 1])
def test_padding_is_found_with_either_sign_also_beyond_the_stored_bits(tmp_path, written, signed):
    word = np.where(PADDED == 40, -2000, PADDED).astype(np.int16)
    word[8, 8] = 700
    dataset = make_dicom(word.view(np.int16 if signed else np.uint16), PixelRepresentation=signed, RescaleIntercept=0)
    dataset.add_new("PixelPaddingValue", "SS" if written < 0 else "US", written)
    save(dataset, tmp_path / "a")
    [image], _, _ = read(tmp_path)
    assert (image[0][:, :4] == -1024).all() and image[0][8, 8] == 700 and image[0][0, 5] == 800


def test_monochrome1_is_inverted_about_the_stored_bits_with_its_window_and_padding(tmp_path):
    stored = VALUES.copy()
    stored[:, :3] = 4000
    write_dicom(
        tmp_path / "a",
        stored,
        PhotometricInterpretation="MONOCHROME1",
        PixelPaddingValue=4000,
        WindowCenter=1000.5,
        WindowWidth=401,
        **XRAY,
    )
    [image], [row], scan = read(tmp_path)
    inverted = 4095 - VALUES.astype(int)
    assert np.array_equal(image[0][:, 3:], inverted[:, 3:]) and (image[0][:, :3] == inverted[:, 3:].min()).all()
    assert scan.items[0].window == (4095 - 1200, 4095 - 800) and scan.items[0].depth == (0, 4095)
    assert row["photometric"] == "MONOCHROME1"


@pytest.mark.parametrize(
    "elements, window",
    [
        ({"WindowCenter": 40, "WindowWidth": 400}, (-160.0, 239.0)),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"}, (-160.0, 240.0)),
        ({"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"}, (-160.0, 240.0)),
        ({"WindowCenter": [50, -600], "WindowWidth": [100, 1500]}, (0.0, 99.0)),
        ({"WindowCenter": 40, "WindowWidth": 0}, None),
        ({"WindowCenter": 40000, "WindowWidth": 10}, None),
        ({}, None),
        ({"VOILUTSequence": [item(LUTDescriptor=[512, 64512, 8], LUTData=b"\0" * 512)]}, (-1024.0, -513.0)),
    ],
)
def test_the_window_of_an_item_is_the_first_that_its_file_states(tmp_path, elements, window):
    write_dicom(tmp_path / "a", VALUES, **elements)
    assert DicomReader(tmp_path).scan().items[0].window == window


def test_a_palette_of_eight_bit_entries_in_sixteen_bit_words_is_not_black(tmp_path):
    ramp = np.arange(256, dtype="<u2").tobytes()
    palette = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")}
    palette |= {f"{c}PaletteColorLookupTableData": ramp for c in ("Red", "Green", "Blue")}
    write_dicom(
        tmp_path / "a",
        np.arange(256).reshape(16, 16),
        **XRAY | {"Modality": "US", "PhotometricInterpretation": "PALETTE COLOR", "BitsAllocated": 8, "BitsStored": 8},
        **palette,
    )
    [image], [row], _ = read(tmp_path)
    assert np.array_equal(image, np.broadcast_to(np.arange(256).reshape(16, 16), (3, 16, 16)))
    assert row["intensity"] == "palette" and row["bits"] == 8


def test_dark_frames_of_a_palette_of_sixteen_bits_stay_dark(tmp_path):
    entries = np.arange(256) * 200  # the first two are below 256, and black in 8 bits
    palette = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 16] for c in ("Red", "Green", "Blue")}
    palette |= {f"{c}PaletteColorLookupTableData": entries.astype("<u2").tobytes() for c in ("Red", "Green", "Blue")}
    indices = np.stack([np.arange(64).reshape(8, 8) % 2, np.arange(64).reshape(8, 8)])
    elements = XRAY | {
        "Modality": "US",
        "PhotometricInterpretation": "PALETTE COLOR",
        "BitsAllocated": 8,
        "BitsStored": 8,
    }
    write_dicom(tmp_path / "a", indices, NumberOfFrames=2, **elements, **palette)
    images, _, _ = read(tmp_path)
    assert np.array_equal(np.stack(images)[:, 0], entries[indices] >> 8)


def test_a_supplemental_palette_colours_the_highest_values_and_leaves_the_others_grey(tmp_path):
    palette = {f"{c}PaletteColorLookupTableDescriptor": [2, 101, 16] for c in ("Red", "Green", "Blue")}
    for colour, (a, b) in {"Red": (65535, 0), "Green": (0, 65535), "Blue": (0, 0)}.items():
        palette[f"{colour}PaletteColorLookupTableData"] = np.array([a, b], "<u2").tobytes()
    write_dicom(tmp_path / "a", np.array([[0, 50], [101, 102]]), PixelPresentation="COLOR", **palette, **MR)
    [image], [row], _ = read(tmp_path)
    assert image[:, 0, 0].tolist() == [0, 0, 0] and image[:, 0, 1].tolist() == [128, 128, 128]
    assert image[:, 1, 0].tolist() == [255, 0, 0] and image[:, 1, 1].tolist() == [0, 255, 0]
    assert row["intensity"] == "palette"


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colour_of_any_depth_keeps_its_highest_eight_bits(tmp_path, bits, planar):
    colours = rng.integers(0, 2**bits, (6, 7, 3))
    allocated = 8 if bits == 8 else 16
    pixels = (np.moveaxis(colours, -1, 0) if planar else colours).astype(f"<u{allocated // 8}")
    elements = XRAY | RGB | {"Modality": "US", "BitsAllocated": allocated, "BitsStored": bits, "HighBit": bits - 1}
    elements |= {"PlanarConfiguration": planar, "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2)}
    write_dicom(tmp_path / "a", colours, **elements)
    [image], [row], _ = read(tmp_path)
    assert np.array_equal(image, np.moveaxis(colours >> (bits - 8), -1, 0)) and row["intensity"] == "colour"


def jpeg_of(colours):
    """A colour JPEG, and the colours that Pillow reads from it."""
    file = BytesIO()
    Image.fromarray(colours).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue(), np.asarray(Image.open(file)).astype(int)


@pytest.mark.parametrize("stated", ["YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "ybr_full"])
def test_colours_of_a_jpeg_become_rgb_whatever_the_header_calls_them(tmp_path, stated):
    codestream, colours = jpeg_of(np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8))
    dataset = make_dicom(colours, **XRAY | RGB | {"Modality": "US", "PhotometricInterpretation": stated})
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    save(dataset, tmp_path / "a")
    [image], _, _ = read(tmp_path)
    assert np.abs(image - np.moveaxis(colours, -1, 0)).max() <= 1


@pytest.mark.parametrize("stated", ["YBR_PARTIAL_420", "YBR_RCT"])
def test_colours_that_a_coding_does_not_have_are_refused(tmp_path, stated):
    colours = rng.integers(0, 256, (6, 6, 3))
    write_dicom(tmp_path / "a", colours, **XRAY | RGB | {"Modality": "US", "PhotometricInterpretation": stated})
    with pytest.raises(Unreadable, match=f"its colours are {stated}, which this coding .* does not have; expected RGB"):
        read(tmp_path)


@pytest.mark.parametrize("name, kind", [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
def test_floats_have_no_nan_no_infinity_and_no_padding_left(tmp_path, name, kind):
    values = rng.random((8, 8)).astype(kind) + 1
    bad = values.copy()
    bad[0, 0], bad[0, 1], bad[0, 2], bad[1], bad[2, 0] = np.nan, np.inf, -np.inf, -99999, -3.4e38
    write_dicom(
        tmp_path / "a",
        bad,
        **MR | {"BitsStored": None, "PixelRepresentation": None, "PixelData": None, "BitsAllocated": 8 * int(kind[-1])},
        **{name: bad.tobytes(), name.replace("Data", "PaddingValue"): -99999.0},
    )
    [image], [row], scan = read(tmp_path)
    kept = np.ones((8, 8), bool)
    kept[0, :3] = kept[1] = kept[2, 0] = False
    assert np.allclose(image[0][kept], values[kept]) and (image[0][~kept] == image[0][kept].min()).all()
    assert row["non_finite"] == 4 and scan.items[0].depth is None
    assert any("floating-point pixels" in warning for warning in scan.warnings)


def test_floats_without_a_finite_value_are_refused(tmp_path):
    bad = np.full((4, 4), np.nan, "<f4")
    write_dicom(tmp_path / "a", bad, BitsStored=None, PixelData=None, FloatPixelData=bad.tobytes(), BitsAllocated=32)
    source = DicomReader(tmp_path)
    with pytest.raises(Exception, match="none of its pixels is a finite number"):
        list(source.read(source.scan().items[0]))


@pytest.mark.parametrize("frames", [2**31 - 1, 1000, -3])
@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_a_header_that_promises_more_frames_than_its_file_can_hold_is_unreadable(tmp_path, frames, syntax):
    dataset = make_dicom(VALUES)
    if syntax:
        dataset.compress(syntax)
    dataset.NumberOfFrames = frames
    save(dataset, tmp_path / "a.dcm")
    scan = DicomReader(tmp_path).scan()
    assert not scan.items and [r.kind for r in scan.refused] == ["unreadable"]
    assert f"{frames} frames of 32 x 32 pixels" in scan.refused[0].reason


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    dataset = make_dicom(VALUES)
    dataset.compress(JPEG2000Lossless)
    data = bytearray(dataset.PixelData)
    start = data.index(b"\xff\x4f\xff\x51")
    data[start + 8 : start + 12] = (14_540_801).to_bytes(4, "big")  # width
    data[start + 24 : start + 28] = (1).to_bytes(4, "big")  # of a tile
    dataset.PixelData = bytes(data)
    save(dataset, tmp_path / "a.dcm")
    source = DicomReader(tmp_path)
    with pytest.raises(Exception, match=r"frame 0 has 14540801 tiles|compressed as 32 x 14540801"):
        list(source.read(source.scan().items[0]))


def test_a_file_of_more_pixels_than_the_limit_is_filtered(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_transfer.data.readers.dicom_header.MOST_PIXELS", 1000)
    write_dicom(tmp_path / "a", VALUES)
    [refused] = DicomReader(tmp_path).scan().refused
    assert refused.kind == "filtered" and "more than 1000 pixels in one file" in refused.reason


def test_twelve_bit_jpeg_extended_of_several_frames_is_read(tmp_path):
    import pydicom
    from pydicom.encaps import encapsulate, get_frame

    dataset = pydicom.dcmread(SAMPLES / "JPGExtended.dcm")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData, dataset.NumberOfFrames = encapsulate([frame, frame, frame]), 3
    dataset.save_as(tmp_path / "a.dcm")
    images, rows, _ = read(tmp_path)
    [single], _, _ = read(SAMPLES / "JPGExtended.dcm")
    assert len(images) == 3 and all(np.array_equal(image, single) for image in images)
    assert [row["slice"] for row in rows] == [0, 1, 2]


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "store"
