"""TIFF: every depth, photometric interpretation, layout and orientation; tifffile is the independent reader."""

from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_transfer.data.form import StoreForm
from ssl_transfer.data.ingest import stage
from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.data.readers.reader import Unreadable

ingest = partial(stage.ingest, keep_paths=True)

GREY = (np.arange(12, dtype=np.uint8).reshape(3, 4) * 20).astype(np.uint8)
COLOUR = np.stack([GREY, GREY + 1, 255 - GREY], -1)
UPRIGHT = {  # orientation -> the image as it is stored
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.swapaxes(image, 0, 1),
    6: np.rot90,
    7: lambda image: np.swapaxes(np.rot90(image, 2), 0, 1),
    8: lambda image: np.rot90(image, -1),
}


def read(path):
    """All images of a file, and its items."""
    reader = ImagesReader(path)
    scan = reader.scan()
    assert not scan.refused, scan.refused
    images = []
    for item in scan.items:
        for image, columns, _ in reader.read(item):
            assert image.dtype == item.dtype and image.shape == (item.channels, *item.size)
            images.append((image, item.row | columns))
    return images, scan.items


def one(path):
    [(image, row)], [item] = read(path)
    return image, row, item


def refusal(path):
    reader = ImagesReader(path)
    scan = reader.scan()
    if scan.refused:
        return scan.refused[0].reason
    with pytest.raises(Unreadable) as error:
        list(reader.read(scan.items[0]))
    return str(error.value)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.float16, np.float32, np.float64]
)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_values_are_kept_in_every_type(tmp_path, dtype, byteorder):
    values = (GREY.astype(int) // 2 - (100 if np.dtype(dtype).kind == "i" else 0)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", byteorder=byteorder)
    image, row, item = one(tmp_path / "a.tif")
    assert np.array_equal(image[0], values) and np.array_equal(tifffile.imread(tmp_path / "a.tif"), values)
    assert row["bits"] == 8 * np.dtype(dtype).itemsize and row["photometric"] == "MINISBLACK"
    assert item.depth == {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "uint32": (0, 2**32 - 1)}.get(
        np.dtype(dtype).name
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.float32])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_is_inverted_at_every_depth(tmp_path, dtype, compression):
    dark_left = np.tile(np.linspace(0, 120, 8), (4, 1)).astype(dtype)
    highest = {"u": lambda: np.iinfo(dtype).max, "i": lambda: -1, "f": lambda: 120.0}[np.dtype(dtype).kind]()
    tifffile.imwrite(
        tmp_path / "a.tif",
        (dtype(highest) - dark_left).astype(dtype),
        photometric="miniswhite",
        compression=compression,
    )
    image, row, _ = one(tmp_path / "a.tif")
    assert image[0] == pytest.approx(dark_left, abs=1e-4 if dtype == np.float32 else 0)
    assert row["photometric"] == "MINISWHITE"


def test_16_and_8_bit_white_is_zero_show_the_same_picture(tmp_path):
    ramp = np.tile(np.linspace(0, 4000, 32).astype(np.uint16), (32, 1))
    for name, values, photometric in (("black", ramp, "minisblack"), ("white", 65535 - ramp, "miniswhite")):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric=photometric)
    assert np.array_equal(one(tmp_path / "black.tif")[0], one(tmp_path / "white.tif")[0])
    store = ingest(tmp_path, tmp_path.parent / f"{tmp_path.name}_store")
    assert np.array_equal(store[0], store[1]) and store.card.value_range == (0, 4095)


@pytest.mark.parametrize("compression", [None, "group4"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_is_black_and_white(tmp_path, compression, photometric):
    bits = Image.fromarray(GREY > 100)
    tag = {"minisblack": 1, "miniswhite": 0}[photometric]
    bits.save(tmp_path / "a.tif", compression=compression, tiffinfo={262: tag})
    image, row, _ = one(tmp_path / "a.tif")
    seen = np.asarray(Image.open(tmp_path / "a.tif"))
    assert np.array_equal(image[0] == 255, seen) and row["bits"] == 1 and set(np.unique(image)) == {0, 255}


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "tiff_ccitt", "zstd", "jpeg"])
def test_compressions_are_those_of_pillow(tmp_path, compression):
    picture = Image.fromarray(GREY > 100) if compression == "tiff_ccitt" else Image.fromarray(GREY)
    picture.save(tmp_path / "a.tif", compression=compression)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("L"))
    assert np.array_equal(one(tmp_path / "a.tif")[0][0], expected)


@pytest.mark.parametrize("mode", ["I;16", "RGB", "P", "CMYK", "RGBA", "F"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_colours_and_depths_are_read_compressed_and_not(tmp_path, mode, compression):
    picture = {
        "I;16": lambda: Image.fromarray(GREY.astype(np.uint16) * 257),
        "RGB": lambda: Image.fromarray(COLOUR),
        "P": lambda: Image.fromarray(COLOUR).quantize(12),
        "CMYK": lambda: Image.fromarray(COLOUR).convert("CMYK"),
        "RGBA": lambda: Image.fromarray(np.dstack([COLOUR, GREY])),
        "F": lambda: Image.fromarray(GREY.astype(np.float32) / 7),
    }[mode]()
    picture.save(tmp_path / "a.tif", compression=compression)
    image, row, _ = one(tmp_path / "a.tif")
    expected = np.asarray(picture if mode in ("I;16", "F") else picture.convert("RGB")).astype(float)
    expected = np.moveaxis(expected, -1, 0) if expected.ndim == 3 else expected[None]
    assert np.abs(image - expected).max() <= (1 if mode == "CMYK" else 0)
    words = {"P": ("PALETTE", "palette"), "I;16": ("MINISBLACK", None), "F": ("MINISBLACK", None)}
    photometric, intensity = words.get(mode, ("CMYK" if mode == "CMYK" else "RGB", "colour"))
    assert (row["photometric"], row.get("intensity")) == (photometric, intensity)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_16_bit_colour_is_cut_to_8_bits_in_both_layouts(tmp_path, planar):
    deep = COLOUR.astype(np.uint16) * 256 + 200
    stored = deep if planar == "contig" else np.moveaxis(deep, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert np.array_equal(one(tmp_path / "a.tif")[0], np.moveaxis(COLOUR, -1, 0))


@pytest.mark.parametrize("bits", [8, 12, 14, 16])
def test_16_bit_colour_is_read_in_the_depth_that_its_source_uses(tmp_path, bits):
    colours = np.random.default_rng(bits).integers(0, 2**bits, (3, 20, 30, 3)).astype(np.uint16)
    colours[0, 0, 0] = 2**bits - 1
    (tmp_path / "in").mkdir()
    for number, image in enumerate(colours):
        tifffile.imwrite(tmp_path / f"in/{number}.tif", image, photometric="rgb")
    store = stage.ingest(tmp_path / "in", tmp_path / "s", keep_paths=True)
    assert np.array_equal(store.read(np.arange(3)), np.moveaxis(colours >> (bits - 8), -1, 1))
    assert set(store.rows["bits"]) == {bits} and any(f"use {bits}" in w for w in store.card.warnings) == (bits < 16)
    assert StoreForm.of(store.card).depths  # new files are read in the same depth


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_of_a_grey_pixel_are_channels_unless_they_are_alpha(tmp_path, planar):
    samples = np.arange(3 * 6 * 8, dtype=np.uint16).reshape(3, 6, 8)
    stored = samples if planar == "separate" else np.moveaxis(samples, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar)
    images, items = read(tmp_path / "a.tif")
    assert np.array_equal(np.concatenate([image for image, _ in images]), samples)
    assert [item.row["channel"] for item in items] == [0, 1, 2]
    with_alpha = stored[:2] if planar == "separate" else stored[..., :2]
    options = {"photometric": "minisblack", "planarconfig": planar, "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "alpha.tif", with_alpha, **options)
    assert np.array_equal(one(tmp_path / "alpha.tif")[0][0], samples[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiles_are_put_together(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 250, (50, 70)).astype(dtype)
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "a.tif", values, tile=(16, 32), compression=compression, photometric="minisblack")
        assert np.array_equal(one(tmp_path / "a.tif")[0][0], values)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_images_and_masks_are_turned_by_their_orientation(tmp_path, orientation, compression):
    for folder, upright in (("in", GREY), ("masks", (GREY > 100).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        stored = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](upright)))
        stored.save(tmp_path / folder / "a.tif", tiffinfo={274: orientation}, compression=compression)
    store = ingest(tmp_path / "in", tmp_path / "s", masks=tmp_path / "masks")
    assert np.array_equal(store[0][0], GREY) and np.array_equal(store.masks([0])[0], GREY > 100)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_other_pictures_are_turned_by_exif(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[274] = orientation
    large = np.kron(GREY, np.ones((8, 8), np.uint8))
    Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](large))).save(tmp_path / f"a.{ending}", exif=exif)
    image, _, item = one(tmp_path / f"a.{ending}")
    assert item.size == large.shape and np.abs(image[0].astype(int) - large).max() < (1 if ending == "png" else 12)


# Stacks


def stack(*lengths):
    return np.random.default_rng(0).integers(0, 255, (*lengths, 6, 5)).astype(np.uint8)


@pytest.mark.parametrize("form", ["imagej", "ome"])
def test_channels_and_times_are_volumes_and_depth_is_slices(tmp_path, form):
    values = stack(2, 3, 4) if form == "imagej" else stack(2, 4, 3)  # TZCYX and TCZYX
    axes = "TZCYX" if form == "imagej" else "TCZYX"
    path = tmp_path / ("a.ome.tif" if form == "ome" else "a.tif")
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": axes}, **{form: True})
    images, items = read(path)
    assert len(items) == 8 and {item.n_images for item in items} == {3}
    for image, row in images:
        index = {"T": row["time"], "C": row["channel"], "Z": row["slice"]}
        assert np.array_equal(image[0], values[tuple(index[axis] for axis in axes[:3])])
    assert len({item.together for item in items}) == 4  # a channel has one range at all times
    assert {row["series"] for _, row in images} == {path.name}


def test_pages_of_a_stack_stay_in_one_split(tmp_path):
    for number in range(12):
        tifffile.imwrite(tmp_path / f"{number}.tif", stack(3) + number, photometric="minisblack", metadata=None)
    store = ingest(tmp_path, tmp_path.parent / f"{tmp_path.name}_store")
    assert store.card.split_by == "series" and len(store) == 36
    assert (store.rows.groupby("file")["split"].nunique() == 1).all()


def test_thumbnails_are_left_out_and_other_pages_are_named(tmp_path):
    for name, kind in (("thumbnail", 1), ("other", 0)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            file.write(GREY, photometric="minisblack", metadata=None)
            file.write(GREY[:2, :2], photometric="minisblack", metadata=None, subfiletype=kind)
    assert np.array_equal(one(tmp_path / "thumbnail.tif")[0][0], GREY)
    assert "2 groups of shapes (3, 4), (2, 2)" in refusal(tmp_path / "other.tif")


# What is not finite, damaged, too large


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.4e38])
def test_values_that_are_not_finite_are_replaced_and_counted(tmp_path, bad):
    values = GREY.astype(np.float32) + 5
    values[0, :2] = bad
    tifffile.imwrite(tmp_path / "a.tif", values)
    image, row, _ = one(tmp_path / "a.tif")
    assert row["non_finite"] == 2 and np.array_equal(image[0][1:], values[1:])
    assert (image[0, 0, :2] == (values[2, 3] if bad > 0 else 0)).all()


def test_a_stated_padding_value_is_replaced(tmp_path):
    values = GREY.astype(np.float32)
    values[0, 0] = -9999
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=[(42113, "s", 0, "-9999", True)])
    image, row, _ = one(tmp_path / "a.tif")
    assert image.min() == 0 and row["non_finite"] == 1 and row["padding"] == "-9999"


@pytest.mark.parametrize(
    "values, options, message",
    [
        (COLOUR.astype(np.float32), {"photometric": "rgb"}, "its colours are float32"),
        (GREY.astype(np.complex64), {}, "not real numbers"),
        (COLOUR, {"photometric": "cielab"}, "photometric interpretation is CIELAB"),
    ],
)
def test_layouts_that_are_not_read_are_named(tmp_path, values, options, message):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    assert message in refusal(tmp_path / "a.tif")


def test_a_file_that_is_cut_off_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16))
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:3000])
    assert "promises 8,192 bytes, the file has 3,000" in refusal(tmp_path / "a.tif")
