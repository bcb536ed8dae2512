"""`.npz` in MedMNIST's layout, with groups, masks and further columns."""

import re

import numpy as np
import pytest

from ssl_transfer.data.ingest.pseudonyms import file_pseudonym
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.readers.npz import NpzReader
from ssl_transfer.errors import SourceError, SplitError

RANDOM = np.random.default_rng(0)


def arrays(dtype=np.uint8, shape=(8, 8), low=0, high=255, counts=(6, 3, 3)):
    found = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        found[f"{split}_images"] = RANDOM.integers(low, high, (count, *shape)).astype(dtype)
        found[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    return found


def save(tmp_path, **content):
    np.savez(tmp_path / "a.npz", **content)
    return tmp_path / "a.npz"


def test_medmnists_layout_is_read(tmp_path):
    content = arrays()
    store = ingest(save(tmp_path, **content), tmp_path / "s", domain="xray")
    assert store.units == "display" and store.shape == (1, 8, 8) and str(store.domain) == "xray"
    for split in ("train", "val", "test"):
        images = store.read(store.positions(split))
        assert np.array_equal(images[:, 0], content[f"{split}_images"])
    assert set(store.column("label")) == {"0", "1"}
    assert store.card.n_patients is None and any("patients are unknown" in w for w in store.card.warnings)


def test_class_names_keep_their_order(tmp_path):
    store = ingest(save(tmp_path, **arrays(), class_names=np.array(["zebra", "ant"])), tmp_path / "s")
    assert store.card.classes == ("zebra", "ant")
    assert store.column("label")[store.positions("val")].tolist() == ["zebra", "ant", "zebra"]


def test_groups_files_masks_and_other_columns_are_read(tmp_path):
    content = arrays()
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        content[f"{split}_groups"] = np.array([f"{split}{n // 2}" for n in range(count)])
        content[f"{split}_files"] = np.array([f"f{n}.png" for n in range(count)])
        content[f"{split}_grade"] = np.arange(count)
        content[f"{split}_kind"] = np.arange(count) % 2
        content[f"{split}_masks"] = (content[f"{split}_images"] > 128).astype(np.uint8) * 2
    content |= {"kind_names": np.array(["x", "y"]), "mask_names": np.array(["background", "a", "b"])}
    store = ingest(save(tmp_path, **content), tmp_path / "s")
    rows = store.rows
    assert store.card.n_patients == 3 + 2 + 2 and rows["grade"].tolist()[:6] == list(range(6))
    assert rows["kind"].tolist()[:2] == ["x", "y"] and rows["file"][0] == file_pseudonym("f0.png")
    assert np.array_equal(store.masks([0])[0], content["train_masks"][0])
    assert store.card.masks.classes == {"1": "a", "2": "b"}


@pytest.mark.parametrize(
    "values, names, expected",
    [
        (np.array([0.0, 1.0, np.nan, 1.5]), None, ["0", "1", None, "1.5"]),
        (np.array([0.0, 1.0, np.nan, 1.0]), ["a", "b"], ["a", "b", None, "b"]),
        (np.array([b"a", b"b", b"a", b"NA"]), None, ["a", "b", "a", None]),
        (np.array(["a", "nan", "", "none"]), None, ["a", None, None, "none"]),
        (np.array([True, False, True, False]), None, ["True", "False", "True", "False"]),
    ],
    ids=["floats", "floats with names", "bytes", "words", "bool"],
)
def test_labels_and_groups_of_every_type_are_those_of_a_table(tmp_path, values, names, expected):
    content = {"images": RANDOM.integers(0, 255, (4, 8, 8)).astype(np.uint8), "labels": values, "groups": values}
    content |= {} if names is None else {"class_names": np.array(names)}
    scan = NpzReader(save(tmp_path, **content)).scan()
    assert [item.row["label"] for item in scan.items] == expected
    assert names or [item.row["patient"] for item in scan.items] == expected
    assert ("read as missing" in " ".join(scan.warnings)) == any("nan" in str(v) or v == b"NA" for v in values.tolist())


def test_a_class_has_one_name_in_splits_of_different_types(tmp_path):
    content = arrays()
    content["test_labels"] = content["test_labels"].astype(np.float32)
    store = ingest(save(tmp_path, **content), tmp_path / "s")
    assert store.card.classes == ("0", "1")


def test_several_labels_per_image_become_columns(tmp_path):
    content = arrays()
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        content[f"{split}_labels"] = np.eye(count, 4, dtype=np.uint8)
    store = ingest(save(tmp_path, **content), tmp_path / "s")
    assert store.column("label_1").tolist()[:3] == [0, 1, 0] and store.card.classes is None


@pytest.mark.parametrize(
    "options, domain, units, dtype",
    [
        ({"dtype": np.int16, "low": -1000}, None, "hu", "<i2"),
        ({"dtype": np.int16}, None, "stored", "<i2"),
        ({"dtype": np.int16}, "ct", "hu", "<i2"),
        ({"dtype": np.int16, "low": -1000}, "mr", "stored", "<i2"),
        ({"dtype": np.float64}, None, "stored", "<f4"),
        ({"shape": (8, 8, 3)}, None, "rgb", "|u1"),
        ({"shape": (8, 8, 1)}, None, "display", "|u1"),
    ],
)
def test_units_follow_type_and_domain(tmp_path, options, domain, units, dtype):
    store = ingest(save(tmp_path, **arrays(**options)), tmp_path / "s", domain=domain)
    assert (store.units, store.card.dtype) == (units, dtype)


def ct(dtype):
    """Tissue in air, with padding of −2000."""
    hu = RANDOM.integers(-120, 250, (6, 16, 16))
    hu[:, :4], hu[:, 0, 0] = -1000, -2000
    return hu.astype(dtype)


@pytest.mark.parametrize("domain", [None, "ct"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32, np.float64])
def test_hu_of_every_type_are_known_by_their_peak_of_air(tmp_path, dtype, domain):
    hu = ct(dtype)
    store = ingest(save(tmp_path, images=hu), tmp_path / "s", domain=domain)
    assert (store.units, store.card.dtype) == ("hu", "<i2")
    assert np.array_equal(store.read(np.arange(6))[:, 0], np.maximum(hu, -1024))


def test_nan_is_air_and_fractions_are_rounded_in_hu(tmp_path):
    hu = ct(np.float32) + 0.25
    hu[:, 1, 1] = np.nan
    store = ingest(save(tmp_path, images=hu), tmp_path / "s")
    want = np.where(np.isnan(hu), -1024, np.maximum(np.rint(hu), -1024))
    assert store.units == "hu" and np.array_equal(store.read(np.arange(6))[:, 0], want)


@pytest.mark.parametrize(
    "content, domain, units, said",
    [
        ({"images": RANDOM.random((6, 8, 8))}, "ct", "stored", r"values from 0.\d+ to \d.\d* are normalised"),
        ({"images": RANDOM.integers(0, 256, (6, 8, 8)).astype(np.int16)}, "ct", "hu", "although no value is below 0"),
        (
            {"images": RANDOM.integers(0, 256, (6, 8, 8)).astype(np.uint8)},
            "ct",
            "display",
            "values are uint8; expected",
        ),
        (
            {"train_images": ct(np.int16), "test_images": ct(np.int16).astype(np.uint8)},
            None,
            "scaled",
            "not read as HU: values are int16 and uint8; expected grey ones with a sign in all splits",
        ),
    ],
    ids=["normalised", "windowed", "8 bits", "two types"],
)
def test_values_that_are_no_hu_are_named(tmp_path, content, domain, units, said):
    store = ingest(save(tmp_path, **content), tmp_path / "s", domain=domain)
    assert store.units == units and re.search(said, " ".join(store.card.warnings))


@pytest.mark.parametrize(
    "images, factor, said",
    [
        (RANDOM.random((6, 8, 8, 3)).astype(np.float32), 255, "0 to 1"),
        (RANDOM.integers(0, 256, (6, 8, 8, 3)).astype(np.float64), 1, "0 to 255"),
        (RANDOM.integers(3000, 4096, (6, 8, 8, 3)).astype(np.uint16), 1 / 16, "12 bits"),
        (RANDOM.integers(0, 41, (6, 8, 8, 3)).astype(np.uint16), 1, "8 bits"),
        (RANDOM.integers(40000, 65536, (6, 8, 8, 3)).astype(np.int32), 1 / 256, "16 bits"),
    ],
    ids=["unit floats", "floats", "12 bits", "8 bits", "16 bits"],
)
def test_colours_of_any_type_reach_a_backbone_on_the_scale_of_8_bits(tmp_path, images, factor, said):
    store = ingest(save(tmp_path, images=images, labels=np.arange(6) % 2), tmp_path / "s")
    expected = np.moveaxis(images * factor, -1, 1)
    assert (store.units, store.card.dtype) == ("rgb", "|u1")
    assert [said in warning for warning in store.card.warnings if "colour" in warning] == [True]
    assert np.abs(store.read(np.arange(6)) - expected).max() <= (0.5 if images.dtype.kind == "f" else 1)


@pytest.mark.parametrize("low, high", [(-1, 1), (0, 5000)])
def test_colours_of_an_unknown_scale_are_refused_with_their_values(tmp_path, low, high):
    images = np.linspace(low, high, 6 * 8 * 8 * 3).reshape(6, 8, 8, 3)
    with pytest.raises(SourceError, match=f"colours have values from {low} to {high}"):
        ingest(save(tmp_path, images=images, labels=np.arange(6) % 2), tmp_path / "s")


def test_an_archive_without_splits_is_split(tmp_path):
    images = RANDOM.integers(0, 255, (40, 4, 4)).astype(np.uint8)
    store = ingest(save(tmp_path, images=images, labels=np.arange(40) % 2), tmp_path / "s")
    assert list(store.card.splits) == ["train", "val", "test"] and store.card.split_by == "image"


def test_a_group_in_two_splits_is_refused_unless_splits_are_drawn_again(tmp_path):
    content = arrays()
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        content[f"{split}_groups"] = np.arange(count)
    path = save(tmp_path, **content)
    with pytest.raises(SplitError, match=r"patient 0 has images in both train and val and test.*--resplit"):
        ingest(path, tmp_path / "s")
    rows = ingest(path, tmp_path / "s", resplit=True).rows
    assert (rows.groupby("patient")["split"].nunique() == 1).all()


@pytest.mark.parametrize(
    "content, message",
    [
        ({"pictures": np.zeros(3)}, "no array is called train_images.*Found: pictures"),
        ({"images": np.zeros((2, 4, 4, 4, 1))}, r"has the shape \(2, 4, 4, 4, 1\)"),
        ({"images": np.zeros((2, 4, 4)), "labels": np.zeros(3)}, "labels has"),
        (
            {"images": np.zeros((2, 4, 4)), "labels": np.array([0, 5]), "class_names": np.array(["a"])},
            "there are 1 names",
        ),
        (
            {"images": np.zeros((2, 4, 4)), "labels": np.array([0, 0.5]), "class_names": np.array(["a"])},
            r"labels run from 0.0 to 0.5, but there are 1 names",
        ),
        (
            {"images": np.array([np.zeros((64, 64)), {}], dtype=object)},
            "'images' cannot be read .it holds Python objects",
        ),
        ({"images": np.zeros((2, 3, 4, 4))}, r"expected .*If channels come first, save np.moveaxis\(images, 1, -1\)"),
    ],
)
def test_a_wrong_layout_is_reported(tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        ingest(save(tmp_path, **content), tmp_path / "s")


def test_a_corrupt_archive_is_reported(tmp_path):
    path = save(tmp_path, **arrays())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SourceError, match=r"cannot be read as .npz"):
        ingest(path, tmp_path / "s")


@pytest.mark.parametrize(
    "content, message",
    [
        ({"masks": np.zeros((30, 8, 8), np.uint8)}, r"masks has the shape \(30, 8, 8\), images \(30, 16, 16\)"),
        ({"masks": np.zeros((20, 16, 16), np.uint8)}, r"masks has the shape \(20, 16, 16\)"),
        ({"masks": np.zeros(30, np.uint8)}, r"masks has the shape \(30,\)"),
        ({"images": np.zeros((30, 0, 16), np.uint8)}, "has no pixels"),
        ({"split": np.array(["bogus"] * 30)}, "split has the values bogus; expected train, val, valid, test"),
        ({"masks": np.full((30, 16, 16), 0.5)}, r"not whole numbers: 0.5"),
    ],
)
def test_arrays_that_do_not_fit_the_images_are_refused(tmp_path, content, message):
    images = np.zeros((30, 16, 16), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None]
    with pytest.raises(SourceError, match=message):
        ingest(save(tmp_path, **({"images": images} | content)), tmp_path / "s")


def test_splits_of_an_array_are_kept(tmp_path):
    images = np.arange(30, dtype=np.uint8)[:, None, None] + np.zeros((30, 4, 4), np.uint8)
    store = ingest(save(tmp_path, images=images, split=np.array(["train", "valid", "test"] * 10)), tmp_path / "s")
    assert {name: size.images for name, size in store.card.splits.items()} == {"train": 10, "val": 10, "test": 10}


def test_values_that_are_not_finite_are_replaced_and_named(tmp_path):
    images = RANDOM.normal(size=(30, 4, 4))
    images[3, 0], images[4, 1, 1] = np.nan, np.inf
    store = ingest(save(tmp_path, images=images), tmp_path / "s", domain="mr")
    assert np.isfinite(store.read(np.arange(30))).all() and store.column("non_finite")[:6].tolist() == [
        0,
        0,
        0,
        4,
        1,
        0,
    ]
    assert "5 values of 2 file(s)" in " ".join(store.card.warnings)


def test_black_and_white_masks_are_class_1_and_ignored_pixels_stay(tmp_path):
    images = RANDOM.integers(0, 255, (30, 4, 4)).astype(np.uint8)
    masks = (images > 128).astype(np.uint8) * 255
    masks[:, 0, 0] = 7
    store = ingest(save(tmp_path, images=images, masks=masks), tmp_path / "s", mask_ignore="7")
    assert np.unique(store.masks(np.arange(30))).tolist() == [0, 1, 255] and store.card.masks.ignore == 255


def test_a_header_that_promises_more_than_the_archive_holds_is_reported(tmp_path):
    import zipfile

    path = save(tmp_path, images=np.zeros((30, 4, 4), np.uint8))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("images.npy").replace(b"(30, 4, 4)", b"(3000000,)")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(SourceError, match=r"its header promises 3,000,000 bytes, the file has"):
        ingest(path, tmp_path / "s")
