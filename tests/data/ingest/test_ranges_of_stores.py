"""Intensity ranges of whole stores: what a backbone reads of archives with several depths, modalities and scales."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.dicom_files import XRAY, item, write_dicom
from support.radiographs import MR, PET, US, write_image

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.intensity import Scale, physical_values

RAMP = np.outer(np.linspace(0, 1, 8), np.ones(8))  # from the darkest row to the brightest


def unit(store):
    """Unit intensities of all images, as a backbone gets them."""
    images = torch.from_numpy(store.read(np.arange(len(store))).astype(np.float32))
    return Scale.of_store(store.card, (-160, 240)).unit(images).numpy()


def by_file(store):
    """Physical values of the images (H, W), by the first words of their files' names."""
    values = physical_values(store, np.arange(len(store)))
    return {name.split(".")[0]: image[0] for name, image in zip(store.column("file"), values, strict=True)}


def stored(bits):
    return np.rint(RAMP * (2**bits - 1)).astype(np.uint16)


def extremes(store):
    """Smallest and largest unit intensity of each image."""
    values = unit(store)
    return [(float(v.min()), float(v.max())) for v in values]


def test_x_rays_of_every_depth_reach_a_backbone_from_0_to_1(tmp_path):
    for number, bits in enumerate((8, 10, 12, 14) * 2):
        write_image(tmp_path / "in" / f"p{number}.dcm", stored(bits), bits=bits)
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert (store.units, store.card.value_range, store.card.dtype) == ("scaled", (0, 10000), "<i2")
    assert extremes(store) == [(0, 1)] * 8
    assert sorted(set(store.column("range_high"))) == [255, 1023, 4095, 16383]
    assert set(store.column("intensity")) == {"bits"}


def test_a_voi_window_goes_before_the_depth(tmp_path):
    for number in range(4):
        write_image(tmp_path / "in" / f"p{number}.dcm", stored(12), WindowCenter=1000 + number, WindowWidth=1001)
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    # linear window of DICOM PS3.3 C.11.2.1.2: centre - 0.5 ± (width - 1) / 2
    assert sorted(zip(store.column("range_low"), store.column("range_high"), strict=True)) == [
        (499.5 + number, 1499.5 + number) for number in range(4)
    ]
    bits = ingest(tmp_path / "in", tmp_path / "bits", range="bits")
    assert (bits.units, bits.card.value_range) == ("stored", (0, 4095))


def window(center, width, **elements):
    """A functional group with a VOI window."""
    return item(FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=width, **elements)])


@pytest.mark.parametrize("inverted", [False, True])
def test_each_frame_of_an_object_has_its_own_voi_window_or_that_of_all(tmp_path, inverted):
    """Windows of 12 bits by hand: linear, centre - 0.5 ± (width - 1) / 2; exact, centre ± width / 2; the shared one."""
    frames = [item(), window(2000, 400, VOILUTFunction="LINEAR_EXACT"), window(1000, 1001)]
    for number, frame in enumerate(frames):  # the last one lies lowest, and is the first of the store
        frame.PlanePositionSequence = [item(ImagePositionPatient=[0, 0, -number])]
    spans = [(499.5, 1499.5), (1800, 2200), (2994.5, 3004.5)]
    pixels = np.stack([np.full((8, 8), value, np.uint16) for value in (2999, 2100, 600)])
    write_dicom(
        tmp_path / "in" / "a.dcm",
        pixels,
        **XRAY,
        NumberOfFrames=3,
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
        PerFrameFunctionalGroupsSequence=frames,
        SharedFunctionalGroupsSequence=[window(3000, 11)],
    )
    store = ingest(tmp_path / "in", tmp_path / "out")
    found = list(zip(store.column("range_low"), store.column("range_high"), strict=True))
    units = [(600 - 499.5) / 1000, (2100 - 1800) / 400, (2999 - 2994.5) / 10]
    assert found == [(4095 - high, 4095 - low) if inverted else (low, high) for low, high in spans]
    assert np.allclose(unit(store)[:, 0, 0, 0], [1 - value if inverted else value for value in units], atol=1e-4)
    [rule] = store.card.decisions["intensity"]["rules"]
    assert (rule["rule"], rule["ranges"]) == ("window", 3)


def test_an_object_of_which_a_frame_states_no_window_is_read_by_its_bits(tmp_path):
    frames = [window(1000, 1001), item()]
    pixels = np.stack([stored(12)] * 2)
    write_dicom(tmp_path / "in" / "a.dcm", pixels, **XRAY, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=frames)
    store = ingest(tmp_path / "in", tmp_path / "out")
    assert (store.units, store.card.value_range, set(store.column("intensity"))) == ("stored", (0, 4095), {"bits"})


def test_monochrome1_of_12_bits_in_a_header_of_16_is_as_bright_as_the_others(tmp_path):
    for number in range(3):
        write_image(tmp_path / "in" / f"m2_{number}.dcm", stored(12))
        inverted = {"PhotometricInterpretation": "MONOCHROME1", "bits": 16}
        write_image(tmp_path / "in" / f"m1_{number}.dcm", 4095 - stored(12), **inverted)
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert extremes(store) == [(0, 1)] * 6
    assert np.abs(unit(store)[:, 0] - RAMP).max() < 2e-4


def test_mr_series_of_different_scale_look_alike_and_their_slices_keep_their_contrast(tmp_path):
    draw = np.random.default_rng(0).gamma(2, 50, (4, 16, 16))
    for series, scale in (("a", 1), ("b", 9)):
        for number, pixels in enumerate(draw):
            write_image(
                tmp_path / "in" / series / f"{number}.dcm",
                np.rint(pixels * scale).astype(np.uint16),
                sop=MR,
                modality="MR",
                PatientID=series,
                StudyInstanceUID="1.2",
                SeriesInstanceUID=f"1.2.{scale}",
                ImagePositionPatient=[0, 0, number],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                WindowCenter=100 * (number + 1),  # differs from slice to slice, and is not used
                WindowWidth=50,
            )
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    values = unit(store)[:, 0]
    assert store.units == "scaled" and set(store.column("intensity")) == {"percentile"}
    assert len(set(store.column("range_high"))) == 2  # one of each volume
    assert np.abs(values[:4] - values[4:]).max() < 0.02
    low, high = np.percentile(np.rint(draw), [0.5, 99.5])
    assert np.abs(values[:4] - (np.rint(draw) - low) / (high - low)).max() < 1e-3


def test_8_and_16_bit_pictures_have_one_scale(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(stored(8).astype(np.uint8)).save(tmp_path / "in" / f"eight_{number}.png")
        Image.fromarray(stored(16)).save(tmp_path / "in" / f"sixteen_{number}.png")
        tifffile.imwrite(tmp_path / "in" / f"twelve_{number}.tif", stored(16))
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert store.units == "scaled" and extremes(store) == [(0, 1)] * 9
    assert set(store.column("intensity")) == {"display", "bits"}


def test_pictures_of_16_bits_alone_keep_their_values_in_the_depth_that_is_in_use(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray((stored(12) // (number + 1)).astype(np.uint16)).save(tmp_path / "in" / f"{number}.png")
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert (store.units, store.card.value_range) == ("stored", (0, 4095))
    assert np.array_equal(by_file(store)["1"], stored(12) // 2)


def test_8_bit_ultrasound_is_stored_as_displayed(tmp_path):
    for number in range(3):
        write_image(tmp_path / "in" / f"{number}.dcm", stored(8).astype(np.uint8), sop=US, modality="US", bits=8)
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    assert (store.units, store.card.dtype) == ("display", "|u1") and extremes(store) == [(0, 1)] * 3


@pytest.mark.parametrize("rule", ["auto", "window", "bits", "percentile"])
def test_physical_values_come_back_from_every_rule(tmp_path, rule):
    for number, bits in enumerate((10, 12, 14)):
        write_image(
            tmp_path / "in" / f"p{number}.dcm", stored(bits), bits=bits, WindowCenter=2**bits / 2, WindowWidth=2**bits
        )
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True, range=rule)
    back = by_file(store)
    for number, bits in enumerate((10, 12, 14)):
        assert np.abs(back[f"p{number}"] - stored(bits)).max() <= 2**bits / 20000  # half a step of the scale


def test_pet_keeps_lesions_far_above_the_percentiles(tmp_path):
    for series, slope in (("a", 0.5), ("b", 2.25)):
        pixels = np.random.default_rng(0).integers(0, 40, (32, 32)).astype(np.uint16)
        pixels[3, 3] = 30000  # of a bladder: hundreds of times the 99.5 percentile
        write_image(
            tmp_path / "in" / f"{series}.dcm",
            pixels,
            sop=PET,
            modality="PT",
            bits=16,
            RescaleSlope=slope,
            RescaleIntercept=0,
        )
    store = ingest(tmp_path / "in", tmp_path / "out", keep_paths=True)
    values = physical_values(store, [0, 1])
    assert store.units == "scaled" and store.card.dtype == "<f4"
    assert sorted(values[:, 0, 3, 3]) == pytest.approx([15000, 67500], rel=1e-6)
