"""The ingest stage: forms, pseudonyms, repeated calls, limits, and what is left behind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ssl_transfer.data.ingest.fit import Fit
from ssl_transfer.data.ingest.pseudonyms import file_pseudonym, pseudonym
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.inspect import contact_sheet, store_summary
from ssl_transfer.data.readers import workers
from ssl_transfer.data.readers.reader import Item, Scan, walk
from ssl_transfer.data.readers.registry import READERS
from ssl_transfer.errors import LabelError, RecipeError, SourceError, UsageError


@pytest.fixture
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "store"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def folder(root, count=12, size=(6, 8)):
    random = np.random.default_rng(0)
    for number in range(count):
        save(root / f"c{number % 2}" / f"P{number // 2:03d}_{number:03d}.png", random.integers(0, 255, size))
    return root


def test_there_are_four_sources():
    assert list(READERS) == ["dicom", "nifti", "images", "npz"]


def test_ingest_and_inspect_import_no_torch():
    code = "import sys, ssl_transfer.data.ingest, ssl_transfer.data.inspect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()}).returncode == 0


def test_the_most_common_shape_wins_and_others_keep_their_aspect(tmp_path, out):
    folder(tmp_path, 4, (6, 8))
    save(tmp_path / "c0" / "wide.png", np.full((6, 16), 200))
    store = ingest(tmp_path, out, keep_paths=True)
    [position] = np.flatnonzero(store.column("file") == "c0/wide.png")
    image = store[position][0]
    assert store.shape == (1, 6, 8)
    assert (image[1:4] == 200).all() or (image[2:5] == 200).all()
    assert (image == 0).sum() == 3 * 8  # 6 x 16 became 3 x 8; the rest is padding


def test_size_and_channels_can_be_chosen(tmp_path, out):
    save(tmp_path / "a.png", np.full((4, 4, 3), (255, 0, 0)))
    save(tmp_path / "b.png", np.full((4, 4), 7))
    grey = ingest(tmp_path, out, size=5)
    assert grey.shape == (1, 5, 5) and grey.units == "display" and grey[0].max() == 76  # 0.299 x 255
    colour = ingest(tmp_path, out.parent / "colour", channels=3)
    assert colour.shape == (3, 4, 4) and colour.units == "rgb" and (colour[1] == 7).all()


def test_shrinking_averages_and_masks_stay_class_ids():
    fit = Fit((4, 4), 1, np.dtype(np.uint8), np.dtype(np.uint8), 0)
    stripes = np.tile([0, 200], (16, 8)).astype(np.uint8)
    assert np.abs(fit.image(stripes[None]).astype(int)[0, :, 1:-1] - 100).max() <= 15
    assert set(np.unique(fit.mask(np.repeat(np.arange(16), 16).reshape(16, 16)))) <= set(range(16))
    assert fit.spacing({"spacing_row_mm": 1.0, "spacing_col_mm": 2.0}, (16, 16)) == {
        "spacing_row_mm": 4.0,
        "spacing_col_mm": 8.0,
    }


def test_hu_are_padded_with_air():
    image = Fit((4, 8), 1, np.dtype(np.int16), None, -1024).image(np.full((1, 4, 4), 40, np.int16))
    assert (image[0, :, 2:6] == 40).all() and (image[0, :, :2] == -1024).all()


def test_a_patient_has_the_same_hash_in_every_store(tmp_path, out, monkeypatch):
    folder(tmp_path)
    rows = [f"{p.name},{p.name[:4]}" for p in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,patient", *rows]))
    store = ingest(tmp_path, out, labels=tmp_path / "labels.csv", label_key="file")
    text = (out / "card.json").read_text() + store.rows.to_csv()
    assert store.card.n_patients == 6 and "P003_" not in text
    assert store.column("patient")[0] == pseudonym("patient", "P000") == pseudonym("patient", "P000")
    assert store.column("file")[0] == file_pseudonym("c0/P000_000.png")
    monkeypatch.setenv("SSL_TRANSFER_PATIENT_KEY", "secret")
    assert pseudonym("patient", "P000") != store.column("patient")[0]


def test_the_name_of_a_refused_file_contains_no_patient_id(tmp_path, out):
    folder(tmp_path)
    (tmp_path / "c0" / "P003_scan.txt").write_text("x")
    rows = [f"{p.name},{p.name[:4]}" for p in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,patient", *rows]))
    store = ingest(tmp_path, out, labels=tmp_path / "labels.csv")
    assert [r["file"] for r in store.card.refused] == [file_pseudonym("c0/P003_scan.txt")]
    assert [r["file"] for r in store.refused] == ["c0/P003_scan.txt"]  # for the user


def test_the_same_inputs_again_are_already_there_and_other_inputs_are_refused(tmp_path, out, capsys):
    folder(tmp_path)
    first = ingest(tmp_path, out)
    stamp = (out / "card.json").stat().st_mtime_ns
    assert ingest(tmp_path, out).id == first.id and (out / "card.json").stat().st_mtime_ns == stamp
    assert "already there" in capsys.readouterr().err
    with pytest.raises(UsageError, match=r"already holds a store of inputs .* another --out"):
        ingest(tmp_path, out, size=4)
    save(tmp_path / "c0" / "new.png", np.zeros((6, 8)))
    with pytest.raises(UsageError, match="already holds a store of inputs"):
        ingest(tmp_path, out)


def test_an_occupied_folder_and_a_folder_inside_the_source_are_refused(tmp_path, out):
    folder(tmp_path)
    out.mkdir()
    (out / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="already holds other files"):
        ingest(tmp_path, out)
    with pytest.raises(UsageError, match="inside the source"):
        ingest(tmp_path, tmp_path / "store")


def test_too_many_unreadable_files_fail_and_leave_nothing(tmp_path, out):
    folder(tmp_path)
    (tmp_path / "bad.png").touch()
    with pytest.raises(SourceError, match=r"1 of 13 image files \(7.7%\).*more than 5.0%.*--max-refused[\s\S]*bad.png"):
        ingest(tmp_path, out)
    assert list(out.parent.iterdir()) == []
    assert ingest(tmp_path, out, max_refused=0.08).card.n_refused == 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"format": "dicomm"}, UsageError, "Did you mean 'dicom'"),
        ({"channels": 2}, UsageError, "--channels 2"),
        ({"size": 0}, UsageError, "--size 0"),
        ({"domain": "cat"}, RecipeError, "no modality is called 'cat'"),
        ({"modality": "CT"}, UsageError, "is not an option for images"),
        ({"label_key": "file"}, UsageError, "no --labels"),
        ({"mask_names": "a"}, UsageError, "no --masks"),
        ({"max_refused": 5}, UsageError, "--max-refused 5"),
        ({"format": "dicom"}, SourceError, "no image to ingest"),
        ({"labels": "none.csv"}, LabelError, "none.csv"),
    ],
)
def test_a_wrong_option_is_reported_and_nothing_is_written(tmp_path, out, options, error, message):
    folder(tmp_path)
    with pytest.raises(error, match=message):
        ingest(tmp_path, out, **options)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_missing_or_empty_source_is_reported(tmp_path, out, make):
    make(tmp_path / "source")
    with pytest.raises(SourceError, match=r"no such file or folder|found no image file of a known kind"):
        ingest(tmp_path / "source", out)


def test_worker_processes_give_the_same_store(tmp_path, out, monkeypatch):
    folder(tmp_path, 30)
    alone = ingest(tmp_path, out, workers=1)
    monkeypatch.setattr(workers, "MEASURED", 2)
    monkeypatch.setattr(workers, "WORTH_SECONDS", 0)
    assert ingest(tmp_path, out.parent / "pooled", workers=2).id == alone.id


def test_phantoms_are_ingested_like_other_sources(out):
    store = ingest("phantom:ct,patients=3,slices=6,size=16", out, size=12)
    assert store.shape == (1, 12, 12) and store.units == "hu" and str(store.domain) == "ct"
    assert store.card.source.startswith("phantom:ct") and store.card.n_patients == 3
    assert ingest("phantom:ct,patients=3,slices=6,size=16", out, size=12).id == store.id


def test_the_summary_has_the_keys_that_scripts_rely_on(tmp_path, out):
    summary = json.loads(json.dumps(store_summary(ingest(folder(tmp_path), out))))
    assert {
        "n_images",
        "n_patients",
        "n_refused",
        "refused",
        "splits",
        "channels",
        "size",
        "dtype",
        "units",
        "domain",
        "labels",
        "store",
        "id",
        "warnings",
        "columns",
        "value_range",
        "classes",
        "masks",
    } <= set(summary)
    assert summary["n_images"] == 12 and summary["n_patients"] is None and summary["dtype"] == "uint8"
    assert summary["labels"] == {"c0": 6, "c1": 6} and sum(s["images"] for s in summary["splits"].values()) == 12


def test_the_contact_sheet_shows_every_label_and_outlines_masks(tmp_path, out):
    for name in ("a", "b"):
        save(tmp_path / "in" / name / f"{name}.png", np.full((8, 8), 50))
        mask = np.zeros((8, 8))
        mask[2:6, 2:6] = 1
        save(tmp_path / "m" / name / f"{name}.png", mask)
    store = ingest(tmp_path / "in", out, masks=tmp_path / "m", mask_names="cell")
    sheet = np.asarray(Image.open(contact_sheet(store, tmp_path / "sheet.png")).convert("RGB")).astype(int)
    grey = (sheet == 50).all(-1)
    tiles = np.diff(np.concatenate([[0], grey.any(1), [0]])).clip(0).sum()
    assert tiles == 2  # a row of tiles for each label
    assert (np.ptp(sheet[grey.any(1)], axis=-1) > 100).any()  # an outline in colour


@pytest.mark.parametrize("values", [("s0", "s1", "s2"), (9, 10, 100)])
@pytest.mark.parametrize("by", ["scanner", "label"])
def test_a_contact_sheet_has_a_row_for_each_value_of_a_column_numbers_by_size(tmp_path, out, values, by):
    with open(tmp_path / "t.csv", "w") as file:
        file.write(f"file,{by}\n" + "".join(f"{number}.png,{values[number % 3]}\n" for number in range(12)))
    for number in range(12):
        save(tmp_path / "in" / f"{number}.png", np.full((8, 8), 50 + 50 * (number % 3)))
    store = ingest(tmp_path / "in", out, labels=tmp_path / "t.csv")
    sheet = np.asarray(Image.open(contact_sheet(store, tmp_path / "sheet.png", by=by)).convert("RGB"))
    rows = [np.flatnonzero((sheet == grey).all(-1).sum(1) > 200) for grey in (50, 100, 150)]
    assert rows[0].max() < rows[1].min() and rows[1].max() < rows[2].min()
    with pytest.raises(UsageError, match="no such column"):
        contact_sheet(store, tmp_path / "sheet.png", by="scaner")


class RawReader:
    """A kind of files that the package does not know: 16 bytes, a grey image of 4 x 4."""

    suffixes = (".raw",)
    magic = ((0, b"RAW4"),)
    reads_folders = True
    worth_workers = False

    def __init__(self, root, *, domain=None):
        self.root = root

    def scan(self) -> Scan:
        """Every file is an image."""
        row = {"label": "raw"}
        items = [Item(file, path, 1, (4, 4), 1, np.dtype(np.uint8), dict(row)) for file, path in walk(self.root)]
        return Scan(items, [], "display")

    def read(self, item):
        """The bytes as pixels."""
        yield np.frombuffer(item.path.read_bytes(), np.uint8).reshape(1, 4, 4), {}, None


@pytest.mark.parametrize("name", ["a.raw", "a"])
def test_a_new_reader_is_a_class_and_an_entry(tmp_path, out, monkeypatch, name):
    monkeypatch.setitem(READERS, "raw", RawReader)
    (tmp_path / name).write_bytes(b"RAW4" + bytes(range(12)))
    store = ingest(tmp_path, out)
    assert store[0].ravel().tolist() == [*b"RAW4", *range(12)]
    with pytest.raises(UsageError, match="--axis coronal: is not an option for raw files"):
        ingest(tmp_path, out.parent / "other", axis="coronal")
