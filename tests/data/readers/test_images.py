"""Image folders: depth and colour, classes and splits from folders, masks beside the images."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames
from support.dicom_files import SAMPLES

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.images import ImagesReader
from ssl_transfer.errors import SourceError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 1, GREY + 2], -1)


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "store"


def save(path, array=GREY, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **options)
    return path


def one(path):
    """The only image at `path`, and what the scan promised."""
    scan = ImagesReader(path).scan()
    [item] = scan.items
    [(image, _, _)] = ImagesReader(path).read(item)
    assert image.shape == (item.channels, *item.size) and image.dtype == item.dtype
    return image, scan


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "TIFF"])
def test_8_bit_grey_is_kept(tmp_path, ending):
    image, scan = one(save(tmp_path / f"a.{ending}"))
    assert np.array_equal(image[0], GREY) and scan.units == "display"


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_kept_as_float(tmp_path, ending):
    deep = GREY.astype(np.uint16) * 257
    image, scan = one(save(tmp_path / f"a.{ending}", deep))
    assert image.dtype == np.float32 and np.array_equal(image[0], deep) and scan.units == "stored"


def deep_png(path, values, colour_type):
    """Write a PNG of 16 bits, (H, W, S), which Pillow cannot write: each row without a filter, four chunks."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
            crc = zlib.crc32(name + content)
            file.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc))


def test_16_bit_grey_with_alpha_is_kept(tmp_path):
    grey = (np.arange(30 * 20).reshape(30, 20) * 6).astype(np.uint16)
    deep_png(tmp_path / "a.png", np.dstack([grey, np.full_like(grey, 65535)]), 4)
    image, scan = one(tmp_path / "a.png")
    assert np.array_equal(image[0], grey) and (scan.items[0].row["bits"], scan.units) == (16, "stored")


def test_colours_of_12_bits_in_a_16_bit_png_are_as_bright_as_they_are(tmp_path, out):
    colours = np.random.default_rng(0).integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    deep_png(tmp_path / "in/a.png", colours, 2)
    store = ingest(tmp_path / "in", out)
    assert np.abs(store[0].astype(int) - np.moveaxis(colours >> 4, -1, 0)).max() < 16
    assert any("use 12" in warning and "only 4 bits" in warning for warning in store.card.warnings)


@pytest.mark.parametrize("dtype", [np.float64, np.uint32, np.int16])
def test_deep_tiffs_of_other_types_are_read(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(dtype))
    image, _ = one(tmp_path / "a.tif")
    assert np.array_equal(image[0], GREY)


def test_colour_is_rgb_whatever_its_coding(tmp_path):
    rgb = Image.fromarray(COLOUR)
    alpha = rgb.copy()
    alpha.putalpha(100)
    for number, image in enumerate((rgb, alpha, rgb.convert("P", palette=Image.Palette.ADAPTIVE))):
        found, scan = one(save(tmp_path / f"{number}.png", image))
        assert np.array_equal(found, np.moveaxis(COLOUR, -1, 0)) and scan.items[0].channels == 3


def test_one_bit_images_are_black_and_white(tmp_path):
    image, _ = one(save(tmp_path / "a.png", Image.fromarray(GREY > 100)))
    assert set(np.unique(image)) == {0, 255} and np.array_equal(image[0] > 0, GREY > 100)


def test_a_photograph_is_rotated_by_its_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image, _ = one(save(tmp_path / "a.png", exif=exif))
    assert np.array_equal(image[0], np.rot90(GREY, -1))


def test_pages_of_a_tiff_are_slices(tmp_path):
    save(tmp_path / "a.tif", save_all=True, append_images=[Image.fromarray(GREY + 1)])
    source = ImagesReader(tmp_path)
    [item] = source.scan().items
    pages = list(source.read(item))
    assert item.n_images == 2 and [own for _, own, _ in pages] == [{"slice": 0}, {"slice": 1}]
    assert np.array_equal(pages[1][0], pages[0][0] + 1)


def test_folders_give_classes_and_splits(tmp_path, out):
    for number, split in enumerate(("train", "valid", "test")):
        for name in ("cat", "dog"):
            save(tmp_path / split / name / "deep" / "1.png", GREY + number)
    store = ingest(tmp_path, out)
    rows = store.rows
    assert list(zip(rows["split"], rows["label"], strict=True)) == [
        ("test", "cat"),
        ("test", "dog"),
        ("train", "cat"),
        ("train", "dog"),
        ("val", "cat"),
        ("val", "dog"),
    ]
    assert store.card.classes == ("cat", "dog") and store.card.split_by == "source"


def test_only_train_and_test_are_kept_as_they_are(tmp_path, out):
    for split in ("train", "test"):
        save(tmp_path / split / "cat" / "1.png")
    assert list(ingest(tmp_path, out).card.splits) == ["train", "test"]


def test_equal_images_are_never_in_two_splits(tmp_path, out):
    for number in range(40):
        save(tmp_path / f"{number:02d}.png", GREY + number % 10)
    rows = ingest(tmp_path, out).rows
    assert len(set(rows["pixel_digest"])) == 10 and set(rows["split"]) == {"train", "val", "test"}
    assert (rows.groupby("pixel_digest")["split"].nunique() == 1).all()


def test_masks_in_a_separate_folder_are_matched_by_stem(tmp_path, out):
    for name in ("a", "b"):
        save(tmp_path / "images" / f"{name}.png")
        save(tmp_path / "masks" / f"{name}.png", (GREY > 100).astype(np.uint8) * 255)
    store = ingest(tmp_path, out, masks=tmp_path / "masks", mask_names="cell", keep_paths=True)
    assert sorted(store.column("file")) == ["images/a.png", "images/b.png"]
    assert np.array_equal(store.masks([0])[0], GREY > 100)  # 0 and 255 are a binary mask


def test_masks_are_matched_by_number_and_wildcard(tmp_path, out):
    save(tmp_path / "image_007.png")
    save(tmp_path / "label-007-final.png", (GREY > 100).astype(np.uint8))
    store = ingest(tmp_path, out, masks="label-{number}-*.png")
    assert len(store) == 1 and store.masks([0]).sum() == (GREY > 100).sum()


def test_a_palette_mask_gives_its_indices(tmp_path, out):
    save(tmp_path / "in/a.png")
    mask = Image.fromarray((GREY > 100).astype(np.uint8) * 3, mode="P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    save(tmp_path / "m/a.png", mask)
    assert set(np.unique(ingest(tmp_path / "in", out, masks=tmp_path / "m").masks([0]))) == {0, 3}


@pytest.mark.parametrize(
    "masks, message",
    [
        ("{stem}_m.png", "a.png has no mask"),
        ("*_?.png", "has 2 masks"),
        ("{name}.png", "no field is called"),
        ("nowhere", "no such file or folder"),
    ],
)
def test_masks_that_cannot_be_matched_are_an_error(tmp_path, out, masks, message):
    for name in ("a", "x_1", "x_2"):
        save(tmp_path / f"{name}.png")
    with pytest.raises(SourceError, match=message):
        ingest(tmp_path, out, masks=masks)


def test_empty_damaged_and_foreign_files_are_listed(tmp_path, out):
    for number in range(5):
        save(tmp_path / f"{number}.png", GREY + number)
    (tmp_path / "empty.png").touch()
    (tmp_path / "short.png").write_bytes((tmp_path / "0.png").read_bytes()[:-25])
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "._0.png").write_bytes(b"x")
    store = ingest(tmp_path, out, max_refused=0.3)
    assert {r["file"]: r["kind"] for r in store.refused} == {
        "empty.png": "unreadable",
        "short.png": "unreadable",
        "notes.txt": "not_an_image",
        "._0.png": "not_an_image",
    }
    assert len(store) == 5


# Limits, and what a name does not tell


def test_a_picture_above_the_limit_says_how_to_read_it(tmp_path, out):
    for number in range(2):
        save(tmp_path / f"{number}.png", np.zeros((1200, 1000), np.uint8))
    with pytest.raises(
        SourceError, match=r"1200 x 1000 pixels are 1.2 megapixels, more than the limit of 1.*--max-megapixels 2"
    ):
        ingest(tmp_path, out, max_megapixels=1)
    assert len(ingest(tmp_path, out, max_megapixels=2)) == 2


def test_182_megapixels_are_within_the_limit(tmp_path):
    save(tmp_path / "a.png", Image.new("1", (14000, 13000)), compress_level=1)
    [item] = ImagesReader(tmp_path).scan().items
    assert item.size == (13000, 14000)


def test_a_file_of_another_format_is_never_tried(tmp_path, out, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    save(tmp_path / "a.png")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    (tmp_path / "x.png").write_bytes(eps)
    [refused] = ingest(tmp_path, out, max_refused=0.5).card.refused
    assert refused["reason"] == "its content is none of PNG, JPEG, BMP, TIFF"


def test_a_jpeg_that_is_called_png_is_read(tmp_path):
    save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert one(tmp_path / "a.png")[0].shape == (1, 3, 4)


def test_a_jpeg_of_12_bits_says_so(tmp_path):
    dataset = dcmread(SAMPLES / "JPEG-lossy.dcm")
    (tmp_path / "a.jpg").write_bytes(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    assert "a picture of 12 bits in JPEG" in ImagesReader(tmp_path).scan().refused[0].reason


def test_a_bmp_whose_bits_pillow_misreads_is_refused(tmp_path):
    """Pillow writes two palette entries and eight bits a pixel, and reads them as one bit a pixel."""
    two = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2).convert("P")
    for name, colours in (("misread", [0, 0, 0, 255, 255, 255]), ("read", [0, 0, 0, 255, 0, 0])):
        two.putpalette(colours)
        two.save(tmp_path / f"{name}.bmp")
    two.convert("RGB").convert("1").save(tmp_path / "bit.bmp")
    scan = ImagesReader(tmp_path).scan()
    assert [item.file for item in scan.items] == ["bit.bmp", "read.bmp"]
    assert scan.refused[0].reason == "a BMP of 8 bits with a palette of 2 greys cannot be decoded. Save it as PNG"


def test_images_say_how_they_are_coded(tmp_path, out):
    save(tmp_path / "grey.png")
    save(tmp_path / "deep.png", GREY.astype(np.uint16) * 257)
    save(tmp_path / "palette.png", Image.fromarray(COLOUR).quantize(8))
    save(tmp_path / "bit.png", Image.fromarray(GREY > 100))
    rows = {item.file: (item.row, item.depth) for item in ImagesReader(tmp_path).scan().items}
    assert rows["grey.png"][0] == {"photometric": "MINISBLACK", "bits": 8, "intensity": "display", "label": None}
    assert rows["deep.png"] == ({"photometric": "MINISBLACK", "bits": 16, "label": None}, (0, 65535))
    assert rows["palette.png"][0]["intensity"] == "palette" and rows["bit.png"][0]["bits"] == 1


def test_folders_called_images_are_no_class(tmp_path, out):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            save(tmp_path / split / "images" / name / "1.png")
            save(tmp_path / split / "masks" / name / "1.png", (GREY > 100).astype(np.uint8))
    store = ingest(tmp_path, out)
    assert len(store) == 4 and store.card.classes == ("cat", "dog") and set(store.card.splits) == {"train", "test"}
