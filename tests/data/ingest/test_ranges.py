"""Intensity ranges: which rule an image has, what depth is in use, and the ranges of volumes, by hand computations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssl_transfer.data.digests import FINGERPRINTS
from ssl_transfer.data.ingest.decoding import Decoding
from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.ranges import choose_ranges, span_of
from ssl_transfer.data.ingest.sampling import depth_in_use, evenly_spaced, percentile_range, sampled
from ssl_transfer.data.readers.reader import Item, Scan, Unreadable, shown
from ssl_transfer.measures.fingerprint import fingerprint

DEEP = np.dtype(np.int16)


class MemoryReader:
    """Reads images that it holds: `pixels` has the images (N, C, H, W) of each file."""

    worth_workers = False

    def __init__(self, pixels):
        self.pixels, self.read_files = pixels, []

    def read(self, item):
        """The images of a file; None stands for a damaged one."""
        self.read_files.append(item.file)
        if self.pixels[item.file] is None:
            raise Unreadable("damaged")
        for image in self.pixels[item.file]:
            yield image, {}, None


def item(file, *, modality=None, bits=None, window=None, together=None, dtype=DEEP, channels=1, images=1, **row):
    """An item of 4 x 4 pixels; `bits` give its depth."""
    row = ({} if modality is None else {"modality": modality}) | ({} if bits is None else {"bits": bits}) | row
    depth = None if bits is None else (0.0, float(2**bits - 1))
    return Item(file, Path(file), images, (4, 4), channels, dtype, row, window=window, depth=depth, together=together)


def image(*values):
    """An image (1, 4, 4) with these values, the last one in all other pixels."""
    full = np.full(16, values[-1], np.float64)
    full[: len(values)] = values
    return full.reshape(1, 1, 4, 4)


def decided(items, rule="auto", *, pixels=None, units="stored", **options):
    """The ranges of a store of these items."""
    reader = MemoryReader(pixels or {one.file: image(0, 4095) for one in items})
    return choose_ranges(Scan(items, [], units), reader, rule, channels=1, workers=1, **options)


def spans(items):
    return [(one.row["range_low"], one.row["range_high"]) for one in items]


@pytest.mark.parametrize(
    ("one", "rule", "chosen"),
    [
        (item("a", modality="DX", bits=12, window=(100, 3000)), "auto", "window"),
        (item("a", modality="DX", bits=12), "auto", "bits"),
        (item("a", modality="CR", bits=8, window=(10, 90), dtype=np.dtype(np.uint8)), "auto", "window"),
        (item("a", modality="CR", bits=8, dtype=np.dtype(np.uint8)), "auto", "bits"),
        (item("a", modality="US", bits=8, window=(10, 90), dtype=np.dtype(np.uint8)), "auto", "display"),
        (item("a", modality="US", bits=12), "auto", "bits"),
        (item("a", modality="MR", bits=12, window=(100, 3000)), "auto", "percentile"),
        (item("a", modality="PT", window=(0, 5), dtype=np.dtype(np.float32)), "auto", "percentile"),
        (item("a", modality="DX", dtype=np.dtype(np.float32)), "auto", "percentile"),
        (item("a.nii", bits=16, together="a"), "auto", "percentile"),
        (item("a.png", bits=8, dtype=np.dtype(np.uint8)), "auto", "display"),
        (item("a.png", bits=8, dtype=np.dtype(np.uint8)), "percentile", "display"),
        (item("a.png", bits=16), "auto", "bits"),
        (item("a.png", dtype=np.dtype(np.uint8), channels=3), "window", "colour"),
        (item("a.dcm", modality="US", channels=3, dtype=np.dtype(np.uint8), intensity="palette"), "auto", "palette"),
        (item("a", modality="MR", bits=12, window=(100, 3000)), "window", "window"),
        (item("a", modality="MR", bits=12), "window", "bits"),
        (item("a", modality="MR", dtype=np.dtype(np.float32)), "bits", "percentile"),
        (item("a", modality="DX", bits=12, window=(100, 3000)), "percentile", "percentile"),
        (item("a", modality="DX", bits=12, window=(5000, 6000)), "auto", "bits"),  # no value that 12 bits can hold
        (item("a", modality="DX", bits=12, window=(40, 40)), "auto", "bits"),
    ],
)
def test_the_rule_of_an_image_follows_from_its_header(one, rule, chosen):
    decided([one], rule)
    assert one.row["intensity"] == chosen


def test_images_in_hu_need_no_range(tmp_path):
    one = item("a", modality="CT", bits=12, window=(0, 80))
    ranges = decided([one], "percentile", units="hu")
    assert (ranges.units, ranges.value_range, one.row["intensity"]) == ("hu", None, "hu")
    assert ranges.warnings == ("--range percentile decides nothing: all images are in HU",)


@pytest.mark.parametrize(("channels", "units"), [(1, "display"), (3, "rgb")])
def test_8_bit_grey_and_colour_are_stored_as_displayed(channels, units):
    items = [item("a.png", bits=8, dtype=np.dtype(np.uint8)), item("b.png", dtype=np.dtype(np.uint8), channels=3)]
    ranges = choose_ranges(Scan(items, [], "display"), MemoryReader({}), "auto", channels=channels)
    assert ranges.units == units and ranges.value_range is None


def test_images_of_one_range_keep_their_values():
    items = [item(name, modality="DX", bits=12) for name in "abc"]
    ranges = decided(items)
    assert (ranges.units, ranges.value_range, ranges.dtype) == ("stored", (0.0, 4095.0), None)
    assert spans(items) == [(0, 4095)] * 3


def test_images_of_several_depths_are_scaled():
    items = [item(str(bits), modality="DX", bits=bits) for bits in (8, 10, 12, 14)]
    ranges = decided(items)
    assert (ranges.units, ranges.value_range, ranges.dtype) == ("scaled", (0.0, 10000.0), np.int16)
    assert spans(items) == [(0, 255), (0, 1023), (0, 4095), (0, 16383)]


def test_8_and_16_bit_pictures_get_one_scale():
    items = [item("a.png", bits=8, dtype=np.dtype(np.uint8)), item("b.png", bits=16), item("c.png", bits=16)]
    ranges = decided(items, pixels={"a.png": image(255), "b.png": image(3, 900), "c.png": image(0, 3100)})
    assert ranges.units == "scaled"
    assert spans(items) == [(0, 255), (0, 4095), (0, 4095)]  # 3100 needs 12 of the 16 bits, of all files


@pytest.mark.parametrize(
    ("highest", "bits"), [(200, 8), (255, 8), (256, 10), (1023, 10), (4000, 12), (9000, 14), (16384, 16), (65535, 16)]
)
def test_the_smallest_depth_that_contains_the_values_is_in_use(highest, bits):
    assert depth_in_use((0, 65535), 16, 0, highest) == (0, 2**bits - 1)


@pytest.mark.parametrize(
    ("depth", "lowest", "highest", "options", "expected"),
    [
        ((0, 65535), 61440, 65535, {"inverted": True}, (61440, 65535)),  # MONOCHROME1: 0 to 4095 turned
        ((0, 65535), 0, 65535, {"inverted": True}, (0, 65535)),
        ((0, 65535), 0, 4000, {"inverted": True}, (0, 4095)),  # 65535 - value, turned back
        ((-32768, 32767), 0, 4000, {}, (0, 4095)),  # signed, without negative values
        ((-32768, 32767), -5, 4000, {}, (-32768, 32767)),
        ((-1024, 64511), -1024, 2000, {}, (-1024, 3071)),  # an intercept
        ((0, 32767.5), 0, 2047.5, {}, (0, 2047.5)),  # a slope of 0.5: 4096 levels
    ],
)
def test_depths_in_use_of_turned_signed_and_rescaled_values(depth, lowest, highest, options, expected):
    assert depth_in_use(depth, 16, lowest, highest, **options) == expected


def test_12_bits_in_a_header_of_16_are_found_for_each_manufacturer():
    items = [
        item("a", modality="CR", bits=16, manufacturer="A", photometric="MONOCHROME1"),
        item("b", modality="CR", bits=16, manufacturer="B", photometric="MONOCHROME2"),
        item("c", modality="CR", bits=12, manufacturer="A", photometric="MONOCHROME2"),
    ]
    decided(items, pixels={"a": image(61440, 65535), "b": image(0, 60000), "c": None})
    assert spans(items) == [(61440, 65535), (0, 65535), (0, 4095)]


def test_slices_of_a_volume_share_a_range_and_volumes_do_not():
    draw = np.random.default_rng(0)
    pixels = {f"{v}{s}": draw.normal(v * 100, 10, (1, 1, 4, 4)) for v in (1, 9) for s in range(4)}
    items = [item(name, modality="MR", bits=12, together=name[0]) for name in pixels]
    ranges = decided(items, pixels=pixels)
    low, high = np.percentile(np.concatenate([pixels[f"9{s}"].ravel() for s in range(4)]), [0.5, 99.5])
    assert ranges.units == "scaled" and ranges.groups == 2 and len(set(spans(items))) == 2
    assert spans(items)[4:] == [(float(f"{low:.6g}"), float(f"{high:.6g}"))] * 4


def test_the_only_volume_of_a_store_keeps_its_values():
    items = [item(name, modality="MR", bits=12, together="v") for name in "ab"]
    ranges = decided(items, pixels={"a": image(100), "b": image(900)})
    assert (ranges.units, ranges.value_range) == ("stored", (100.0, 900.0))


def test_a_damaged_file_does_not_decide_about_its_volume():
    items = [item(name, modality="MR", bits=12, together=name[0]) for name in ("v1", "v2", "w1", "w2")]
    decided(items, pixels={"v1": image(7, 7, 7, 50), "v2": None, "w1": None, "w2": None})
    assert spans(items[:2]) == [(7, 50)] * 2 and "range_low" not in items[2].row


def test_a_file_that_is_a_volume_is_not_read_twice():
    items = [item(name, modality="MR", bits=12, images=2) for name in "ab"]
    reader = MemoryReader({"a": [image(1, 2)[0]] * 2, "b": [image(5, 9)[0]] * 2})
    ranges = choose_ranges(Scan(items, [], "stored"), reader, "auto", channels=1)
    assert ranges.units == "scaled" and reader.read_files == []
    assert span_of(items[1], reader.pixels["b"]) == (5, 9)


def test_without_measuring_no_file_is_read_for_percentiles():
    items = [item(name, modality="MR", bits=12, together="v") for name in "ab"]
    reader = MemoryReader({})
    ranges = choose_ranges(Scan(items, [], "stored"), reader, "auto", channels=1, measured=None)
    assert ranges.units == "stored" and reader.read_files == []


def test_a_part_of_a_source_measures_its_own_volumes_alone():
    items = [item(name, modality="MR", bits=12, together=name[0]) for name in ("v1", "v2", "w1", "w2", "x1", "x2")]
    reader = MemoryReader({one.file: image(*range(16)) for one in items})
    for measured in (lambda count: range(1, 3), lambda count: range(0)):
        choose_ranges(Scan(items, [], "stored"), reader, "auto", channels=1, workers=1, measured=measured)
    assert set(reader.read_files) == {"v1", "v2", "w1", "w2"}


@pytest.mark.parametrize(
    ("kinds", "dtype"),
    [
        ([{"modality": "MR", "bits": 12}], np.int16),
        ([{"modality": "PT", "bits": 16}], np.float32),
        ([{"modality": "NM", "bits": 16}], np.float32),
        ([{"modality": "MR", "bits": 12}, {"modality": "MR", "dtype": np.dtype(np.float32)}], np.float32),
    ],
)
def test_floats_and_counts_are_not_rounded_or_cut_to_16_bits(kinds, dtype):
    items = [item(f"{k}{name}", together=name, **kind) for k, kind in enumerate(kinds) for name in "ab"]
    assert decided(items).dtype == dtype


def test_images_to_which_the_rule_does_not_apply_are_counted():
    items = [item("a", modality="DX", bits=12, window=(5, 9)), item("b", modality="DX", bits=12)]
    assert decided(items, "window").warnings == ("--range window: 1 of 2 files have no such range; read by bits",)


def test_a_window_outside_of_the_bits_is_named():
    items = [item("a", modality="DX", bits=12, window=(5000, 6000))]
    [warning] = decided(items).warnings
    assert "1 files state a VOI window" in warning and shown(warning).endswith(": a")


def test_percentiles_are_those_of_numpy_and_ignore_what_is_not_finite():
    values = np.random.default_rng(0).normal(50, 20, (3, 1, 40, 40))
    low, high = np.percentile(values, [0.5, 99.5])
    values = np.concatenate([values, np.full((1, 1, 40, 40), np.nan), np.full((1, 1, 40, 40), np.inf)])
    assert percentile_range(sampled(values)) == (float(f"{low:.6g}"), float(f"{high:.6g}"))


@pytest.mark.parametrize(
    ("values", "expected"), [([0] * 400 + [7], (0, 7)), ([3], (3, 4)), ([], (0, 1))], ids=["background", "one", "none"]
)
def test_a_range_is_never_empty(values, expected):
    assert percentile_range(np.array(values, float)) == expected


def test_a_sample_is_evenly_spaced_and_covers_all_columns():
    assert evenly_spaced(3, 32) == [0, 1, 2] and evenly_spaced(100, 4) == [12, 37, 62, 87]
    columns = np.broadcast_to(np.arange(512.0), (1, 512, 512))
    assert len(np.unique(sampled([columns]))) == 512


def test_values_come_back_from_a_scaled_image_to_half_a_step():
    fit = Fit((4, 4), 1, np.dtype(np.int16), None, 0.0, scaled=True)
    values = np.linspace(-300, 4300, 16).reshape(1, 4, 4)
    scaled = fit.image(values, (100.0, 4100.0))
    assert scaled.dtype == np.int16
    assert np.abs(100 + scaled * 0.4 - values).max() <= 0.2 + 1e-9
    assert fit.image(np.full((1, 4, 4), 1e9), (0.0, 1.0)).max() == 32767
    exact = replace(fit, dtype=np.dtype(np.float32)).image(values, (100.0, 4100.0))
    assert np.allclose(100 + exact * 0.4, values, atol=1e-3)


def test_padding_is_the_low_end_of_the_range():
    scaled = Fit((4, 8), 1, np.dtype(np.int16), None, 0.0, scaled=True).image(np.full((1, 4, 4), 900.0), (500.0, 900.0))
    assert (scaled[0, :, 2:6] == 10000).all() and (scaled[0, :, :2] == 0).all()


def test_a_scaled_image_has_the_fingerprint_of_a_picture_in_its_range():
    pixels = np.random.default_rng(0).integers(0, 4096, (1, 1, 32, 32)).astype(np.float64)
    one = replace(item("a", modality="DX", bits=12), size=(32, 32), row={"range_low": 2000.0, "range_high": 3000.0})
    fit = Fit((32, 32), 1, np.dtype(np.int16), None, 0.0, scaled=True)
    [(scaled, columns, _, _)] = Decoding(MemoryReader({"a": pixels}), fit)(one)
    picture = np.clip((pixels[0] - 2000) * 10, 0, 10000).astype(np.int16)
    assert scaled.min() < -400 and np.array_equal(columns[FINGERPRINTS], fingerprint(picture))
