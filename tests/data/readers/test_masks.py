"""Masks: one coding for all files of a source, ignored pixels, thresholds, and refusals that name the values."""

import json
from functools import partial

import numpy as np
import pytest
import tifffile
from PIL import Image

from ssl_transfer.data.ingest import stage
from ssl_transfer.data.readers.masks import Masks
from ssl_transfer.errors import SourceError, UsageError

ingest = partial(stage.ingest, keep_paths=True)

DISC = np.hypot(*np.mgrid[-15:17, -14:18]) < 9.5


@pytest.fixture
def archive(tmp_path):
    """A function that writes masks beside images of noise and ingests them."""

    def store_of(masks, ending="png", save=None, **options):
        for number, mask in enumerate(masks):
            for folder in ("images", "masks"):
                (tmp_path / folder).mkdir(exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 255, np.asarray(mask).shape[:2]).astype(np.uint8)
            Image.fromarray(noise).save(tmp_path / f"images/{number}.png")
            picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
            picture.save(tmp_path / f"masks/{number}.{ending}", **(save or {}))
        names = options.pop("names", None)
        if isinstance(names, dict):
            (tmp_path / "names.json").write_text(json.dumps(names))
            names = str(tmp_path / "names.json")
        out = tmp_path / f"store{len(list(tmp_path.iterdir()))}"
        return ingest(tmp_path / "images", out, masks=tmp_path / "masks", mask_names=names, **options)

    return store_of


def values(store):
    return [np.unique(mask).tolist() for mask in store.masks(np.arange(len(store)))]


def said(store):
    return " ".join(store.card.warnings)


def levels():
    """Cytoplasm 128 and nucleus 255; every second cell has a nucleus only."""
    cell = np.zeros((32, 32), np.uint8)
    cell[8:24, 8:24], cell[12:18, 12:18] = 128, 255
    return [cell, np.where(cell == 255, cell, 0).astype(np.uint8)] * 2


def with_band():
    """Class 1 inside a band of 255; every second image has the band only."""
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24], mask[7, 7:25] = 1, 255
    return [mask, np.where(mask == 255, mask, 0).astype(np.uint8)] * 2


def test_a_tissue_has_one_value_in_all_masks_of_a_source(archive):
    store = archive(levels())
    assert values(store) == [[0, 128, 255], [0, 255]] * 2
    assert store.card.masks.classes == {"128": "128", "255": "255"}


def test_as_many_names_as_values_name_them_in_ascending_order(archive):
    store = archive(levels(), names="cytoplasm,nucleus")
    assert store.card.masks.classes == {"128": "cytoplasm", "255": "nucleus"} and "ascending order" in said(store)


def test_more_values_than_names_is_an_error_with_values_and_counts(archive):
    with pytest.raises(SourceError, match=r"2 values have no name: 128 \(440 px\), 255 \(144 px\); named are 1 lesion"):
        archive(levels(), names="lesion")


@pytest.mark.parametrize("white", [255, 65535])
def test_black_and_white_masks_are_background_and_class_1(archive, white):
    store = archive([DISC * np.array(white, np.uint8 if white == 255 else np.uint16)] * 3, names="lesion")
    assert np.array_equal(store.masks([0])[0], DISC) and f"{white} is read as class 1" in said(store)
    assert store.card.masks.dtype == "|u1" and store.card.masks.ignore is None


def test_a_name_for_255_keeps_it(archive):
    store = archive([DISC.astype(np.uint8) * 255] * 3, names={"255": "lesion"})
    assert values(store)[0] == [0, 255] and store.card.masks.classes == {"255": "lesion"}


def test_ignored_pixels_are_no_class_and_the_card_says_so(archive):
    store = archive(with_band(), mask_ignore="255")
    assert store.card.masks.ignore == 255 and store.card.masks.classes == {"1": "1"}
    assert values(store) == [[0, 1, 255], [0, 255]] * 2 and "value 255 are ignored (1.8% of all)" in said(store)


def test_an_ignored_value_leaves_white_its_meaning(archive):
    masks = [np.where(DISC, np.uint8(255), np.uint8(0)) for _ in range(3)]
    masks[0][0] = 128
    store = archive(masks, mask_ignore="128", names="lesion")
    assert values(store) == [[0, 1, 255], [0, 1], [0, 1]] and store.card.masks.classes == {"1": "lesion"}


def test_class_255_beside_ignored_pixels_needs_16_bits(archive):
    masks = [np.where(DISC, np.uint8(255), np.uint8(0)), np.where(DISC, np.uint8(7), np.uint8(3))]
    store = archive(masks, mask_ignore="3")
    assert store.card.masks.ignore == 65535 and values(store) == [[0, 255], [7, 65535]]


def test_255_beside_class_ids_is_suspected_aloud(archive):
    store = archive(with_band())
    assert store.card.masks.classes == {"1": "1", "255": "255"} and "--mask-ignore 255" in said(store)


@pytest.mark.parametrize("names", [None, "lesion"])
def test_jpeg_masks_are_refused_with_their_values(archive, names):
    with pytest.raises(SourceError, match=r"JPEG compression.*\(\d+ px\).*--mask-threshold 1\d\d"):
        archive([DISC.astype(np.uint8) * 255] * 3, "jpg", names=names)


def test_a_threshold_gives_the_shape_that_was_compressed(archive):
    store = archive([DISC.astype(np.uint8) * 255] * 3, "jpg", names="lesion", mask_threshold=128.0)
    assert np.array_equal(store.masks([0])[0], DISC) and store.card.masks.classes == {"1": "lesion"}
    assert "values from 128 on are class 1" in said(store)


def test_smoothed_edges_are_refused_and_named_values_are_not(archive):
    smooth = [
        np.asarray(Image.fromarray(DISC).convert("L").resize((32 - n, 32), Image.Resampling.BICUBIC)) for n in (1, 3)
    ]
    with pytest.raises(SourceError, match="smoothed edges"):
        archive(smooth)
    present = {int(value) for mask in smooth for value in np.unique(mask)} - {0}
    assert len(archive(smooth, names={str(value): f"class {value}" for value in present}).card.masks.classes) > 3


def test_instances_have_values_of_their_own_and_no_names(archive):
    store = archive([np.arange(1024).reshape(32, 32).astype(np.uint16) * (n + 1) // 4 for n in range(2)])
    assert store.card.masks.classes == {} and store.card.masks.dtype == "<u2"


def test_grey_masks_saved_as_rgb_are_read_and_coloured_ones_are_not(archive):
    grey = DISC.astype(np.uint8) * 255
    assert np.array_equal(archive([np.dstack([grey] * 3)] * 2).masks([0])[0], DISC)
    assert np.array_equal(archive([np.dstack([grey] * 3 + [grey * 0 + 255])] * 2).masks([0])[0], DISC)
    with pytest.raises(SourceError, match=r"is in colour \(2 colours\)"):
        archive([np.dstack([grey, grey, grey * 0])] * 2)


def test_a_mask_in_the_alpha_channel_is_named(archive):
    alpha = Image.fromarray(np.zeros((32, 32, 4), np.uint8))
    alpha.putalpha(Image.fromarray(DISC.astype(np.uint8) * 255))
    with pytest.raises(SourceError, match="a shape in its alpha channel"):
        archive([alpha] * 2)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_values_of_few_bits_are_class_ids(tmp_path, archive, bits):
    """Pillow enlarges them to 0..255, and cannot write them: the file is made by hand."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    archive([DISC.astype(np.uint8)] * 2)
    ids = (np.arange(32) % 3)[None].repeat(32, 0)
    packed = [bytes([0]) + bytes(_packed(row, bits)) for row in ids]
    head = struct.pack(">IIBBBBB", 32, 32, bits, 0, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"".join(packed)))
        + chunk(b"IEND", b"")
    )
    for number in range(2):
        (tmp_path / f"masks/{number}.png").write_bytes(png)
    store = ingest(tmp_path / "images", tmp_path / "few", masks=tmp_path / "masks")
    assert np.array_equal(store.masks([0])[0], ids)


def _packed(row, bits):
    per_byte = 8 // bits
    for start in range(0, len(row), per_byte):
        byte = 0
        for value in row[start : start + per_byte]:
            byte = byte << bits | int(value)
        yield byte


def test_gif_masks_are_read_by_folder_and_by_pattern(tmp_path, archive):
    store = archive([DISC.astype(np.uint8) * 255] * 2, "gif")
    other = ingest(tmp_path / "images", tmp_path / "pattern", masks="../masks/{stem}.gif")
    assert np.array_equal(store.masks([0])[0], DISC) and np.array_equal(other.masks([0])[0], DISC)


TISSUE, LESION = DISC.copy(), np.roll(DISC, 9, 1)
IDS = np.where(TISSUE, 1, np.where(LESION, 2, 0)).astype(np.uint8)
BLACK, WHITE, RED, GREEN, BLUE = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)


def palette_mask(indices, *colours):
    """A picture whose values are indices of these colours."""
    picture = Image.fromarray(np.asarray(indices, np.uint8)).convert("P")
    picture.putpalette([part for colour in colours for part in colour])
    return picture


def test_palettes_whose_colours_are_in_another_order_are_refused(archive):
    exchanged = np.array([0, 2, 1], np.uint8)[IDS]
    message = r"order of their colours: index 1 is \(255, 0, 0\) in 0.png and \(0, 255, 0\) in 1.png"
    with pytest.raises(SourceError, match=message):
        archive([palette_mask(IDS, BLACK, RED, GREEN), palette_mask(exchanged, BLACK, GREEN, RED)])
    store = archive([palette_mask(IDS, BLACK, RED, GREEN), palette_mask(TISSUE, BLACK, RED, BLUE)])
    assert values(store) == [[0, 1, 2], [0, 1]] and "palettes differ" not in said(
        store
    )  # in colours that are not in use


def test_palettes_with_another_colour_are_read_by_index_aloud(archive):
    store = archive([palette_mask(IDS, BLACK, RED, GREEN), palette_mask(IDS, BLACK, RED, BLUE)])
    assert np.array_equal(store.masks([1])[0], IDS)
    assert "palettes differ, and are read by index: index 2 is (0, 255, 0) in" in said(store)


def test_black_and_white_palettes_are_read_as_they_are_shown_in_either_order(archive):
    masks = [palette_mask(DISC, BLACK, WHITE), palette_mask(~DISC, WHITE, BLACK), palette_mask(DISC | 1, WHITE, BLACK)]
    store = archive(masks)
    assert np.array_equal(store.masks([0, 1, 2]), [DISC, DISC, DISC & 0])


def test_white_may_be_the_background_of_a_palette_with_other_colours(archive):
    store = archive([palette_mask(IDS, WHITE, BLACK, RED), palette_mask(DISC, WHITE, BLACK, RED)])
    assert np.array_equal(store.masks([0, 1]), [IDS, DISC])


def test_white_of_8_and_of_16_bits_is_one_class(archive):
    store = archive([DISC * np.uint8(255), DISC * np.uint16(65535)])
    assert np.array_equal(store.masks([0, 1]), [DISC, DISC])
    assert "values 0, 255 and 65535 only: 255 and 65535 are read as class 1" in said(store)


def test_1_and_255_that_are_never_in_one_file_are_suspected_aloud(archive):
    masks = [DISC * np.uint8(1), DISC * np.uint8(255)]
    assert "No file has both 1 and 255: if both mean the same, ingest with --mask-threshold 1" in said(archive(masks))
    assert np.array_equal(archive(masks, mask_threshold=1.0).masks([0, 1]), [DISC, DISC])
    assert "No file has both" not in said(archive(with_band()))


@pytest.mark.parametrize("values_of", [bool, np.uint8], ids=["1 bit", "8 bits"])
def test_tiff_masks_in_which_0_is_white_are_read_as_stored_aloud(tmp_path, archive, values_of):
    archive([DISC.astype(np.uint8)] * 2)
    for number in range(2):
        mask = DISC if values_of is bool else DISC * np.uint8(255)
        tifffile.imwrite(tmp_path / f"masks/{number}.tif", mask, photometric="miniswhite")
        (tmp_path / f"masks/{number}.png").unlink()
        assert np.array_equal(tifffile.imread(tmp_path / f"masks/{number}.tif") > 0, DISC)
    store = ingest(tmp_path / "images", tmp_path / "white", masks=tmp_path / "masks")
    assert np.array_equal(store.masks([0])[0], DISC) and "2 TIFF file(s) say that 0 is white" in said(store)


def test_masks_are_turned_by_their_own_orientation(archive):
    exif = Image.Exif()
    exif[0x0112] = 6
    store = archive([np.rot90(DISC * np.uint8(1), 1)] * 2, save={"exif": exif})
    assert np.array_equal(store.masks([0])[0], DISC)


@pytest.mark.parametrize("values", ["a", "1;2", ""])
def test_ignored_values_are_whole_numbers(values):
    with pytest.raises(UsageError, match="--mask-ignore"):
        Masks(ignore=values)


def test_a_threshold_has_one_name(archive):
    with pytest.raises(SourceError, match="makes one class"):
        archive([DISC.astype(np.uint8)] * 2, names="a,b", mask_threshold=1.0)


def test_the_message_about_a_missing_mask_says_where_it_was_searched(tmp_path, archive):
    archive([DISC.astype(np.uint8)] * 2)
    message = rf"Patterns are relative to the source {tmp_path}/images: searched for {tmp_path}/images/masks/0.png"
    with pytest.raises(SourceError, match=message):
        ingest(tmp_path / "images", tmp_path / "s", masks="masks/{stem}.png")


def test_masks_beside_images_are_left_out_aloud_and_make_no_class(tmp_path, archive):
    archive([DISC.astype(np.uint8)] * 3)
    (tmp_path / "names.json").unlink(missing_ok=True)
    source = tmp_path / "source"
    source.mkdir()
    for folder in ("images", "masks"):
        (tmp_path / folder).rename(source / folder)
    store = ingest(source, tmp_path / "beside")
    assert len(store) == 3 and store.card.classes is None
    assert {refusal["kind"] for refusal in store.card.refused} == {"filtered"} and "--masks 'masks'" in said(store)
    assert len(ingest(source, tmp_path / "paired", masks=source / "masks")) == 3


def test_a_mask_beside_its_image_is_left_out_aloud(tmp_path):
    for name in ("benign (1)", "benign (1)_mask", "benign (2)", "benign (2)_mask", "benign (2)_mask_1"):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(DISC).save(tmp_path / "in" / f"{name}.png")
    store = ingest(tmp_path / "in", tmp_path / "s")
    assert len(store) == 2 and "--masks '{stem}_mask.png'" in said(store)
