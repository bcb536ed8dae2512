"""No store names a person: ids, names, dates, files, folders and free text are hashed or left out."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.planted import PERSON, archive, dicom, persons_in, pictures, volumes

from ssl_transfer.cli import main
from ssl_transfer.data import image_files
from ssl_transfer.data.ingest import progress
from ssl_transfer.data.ingest.parts import ingest_part
from ssl_transfer.data.ingest.pseudonyms import file_pseudonym, pseudonym
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.errors import UsageError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working directory in the home of a user whose name must not be stored."""
    folder = tmp_path / "home" / "planteduser" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USER", "planteduser")
    monkeypatch.setenv("LOGNAME", "planteduser")
    return folder


def test_the_search_finds_what_is_planted(home):
    dicom(home / "source")
    archive(home / "source" / "x.npz")
    assert {line.rpartition(": ")[2] for line in persons_in(home / "source")} >= {"mustermann", "19700101", "mrn4711"}


def test_a_store_of_dicom_files_names_nobody(home):
    store = ingest(dicom(home / "Mustermann"), home / "store", max_refused=0.2)
    assert len(store) == 24 and persons_in(home / "store") == []
    assert store.card.source == file_pseudonym(str(home / "Mustermann"))
    assert store.column("manufacturer")[0] == "ACME" and store.card.n_patients == 6
    assert set(store.column("age")) == {"00-04"}  # from two dates, neither of which is stored
    assert sorted(refusal["file"] for refusal in store.refused) == [
        "Geheimrat.txt",
        "MUSTERMANN_damaged.dcm",
        "Mustermann.dcm",
    ]


def test_a_column_that_the_user_names_as_the_label_is_stored_as_the_label_is(tmp_path):
    rows = "".join(f"{number}.png,{'gut' if number % 2 else 'bösartig'},Gerät A\n" for number in range(6))
    (source := tmp_path / "in").mkdir()
    (tmp_path / "t.csv").write_text(f"file,Befund,Gerät\n{rows}")
    for number in range(6):
        Image.new("L", (8, 8), 40 * number).save(source / f"{number}.png")
    store = ingest(source, tmp_path / "store", labels=tmp_path / "t.csv", label_column="befund")
    assert set(store.column("Befund")) == set(store.column("label")) == {"gut", "bösartig"}
    assert "Gerät A" not in set(store.column("Gerät"))


def test_a_store_of_pictures_and_a_csv_names_nobody_and_says_what_was_hashed(home, capsys):
    root, table = pictures(home / "Mustermann")
    store = ingest(root, home / "store", labels=table, max_refused=0.2)
    assert persons_in(home / "store") == []
    error = capsys.readouterr().err
    assert "columns that may identify persons are hashed: " in error and "x7" in error
    rows = store.rows
    assert (rows["patient_id"] == rows["patient"]).all() and rows["patient"][0] == pseudonym("patient", "MRN4711-0")
    assert store.card.labels == {"a": 12, "b": 12}


def test_a_store_of_volumes_names_nobody(home):
    ingest(volumes(home / "Mustermann"), home / "store", domain="mr", max_refused=0.2)
    assert persons_in(home / "store") == []


def test_a_store_of_an_archive_names_nobody(home):
    ingest(archive(home / "Erdmuthe" / "Mustermann.npz"), home / "store")
    assert persons_in(home / "store") == []


def stop_in(archive, out, monkeypatch, images=16, **options):
    """Let an ingest fail at an image, with a record of its progress after every file."""
    append = image_files.ImageFiles.append

    def stopping(self, *arguments, **further):
        if len(self) == images:
            raise KeyboardInterrupt
        append(self, *arguments, **further)

    with monkeypatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN", 0.0)
        patch.setattr(progress, "SHARE", 0.0)
        patch.setattr(image_files.ImageFiles, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            ingest(archive, out, workers=1, **options)


def damaged_volumes(root):
    """Volumes whose names are in every part of the record: refused with its mask, with values that are not finite."""
    volumes(root / "images")
    (root / "images" / "Geheimrat.nii.gz").unlink()
    for number in range(8):
        name = f"Mustermann_Erdmuthe_{number}.nii.gz"
        values = np.random.default_rng(number).normal(size=(16, 16, 3)).astype(np.float32)
        values[0, 0, 0] = np.nan
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / "images" / name)
        labels = np.full((16, 16, 3), 70000 if number == 1 else 1, np.int32)
        (root / "masks").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), root / "masks" / name)
    return root / "images", {"masks": str(root / "masks"), "domain": "mr", "max_refused": 0.5}


def copied_slices(root):
    """CT files that repeat others under the same SOPInstanceUID."""
    dicom(root)
    for path in sorted(root.glob("*/*/Mustermann*-0")):
        (path.parent / "Mustermann_copy").write_bytes(path.read_bytes())
    return root, {"max_refused": 0.5}


@pytest.mark.parametrize("make", [damaged_volumes, copied_slices])
def test_an_ingest_that_is_not_finished_names_nobody_and_goes_on_with_the_names(home, monkeypatch, make):
    root, options = make(home / "Mustermann")
    whole = ingest(root, home / "whole", workers=1, **options)
    stop_in(root, home / "store", monkeypatch, **options)
    record = json.loads((home / ".store.partial" / "progress.json").read_text())
    noted = ("refused", "replaced") if make is damaged_volumes else ("copies", "seen")
    assert record["images"] and all(record[name] for name in noted)
    assert persons_in(home / ".store.partial") == []
    store = ingest(root, home / "store", workers=1, **options)
    assert store.id == whole.id and store.card.refused == whole.card.refused
    assert store.refused == whole.refused  # what the user reads has the names
    assert any("Mustermann_" in refusal["reason"] or "Mustermann." in refusal["reason"] for refusal in store.refused)
    assert store.card.warnings == whole.card.warnings


def test_the_parts_of_an_archive_name_nobody(home):
    root, options = damaged_volumes(home / "Mustermann")
    ingest_part(root, home / "store", "1/2", **options)
    assert (home / ".store.partial" / "part-1-of-2" / "done.json").exists()
    assert persons_in(home / ".store.partial") == []


def test_a_file_is_found_again_by_its_hash(home):
    root, table = pictures(home / "in")
    store = ingest(root, home / "store", labels=table, max_refused=0.2)
    [row] = np.flatnonzero(store.column("file") == file_pseudonym("scans/Mustermann_3_7.png"))
    assert store.column("patient")[row] == pseudonym("patient", "MRN4711-3")


def test_inspect_names_the_files_of_a_source(home, capsys):
    root, table = pictures(home / "in")
    store = ingest(root, home / "store", labels=table, max_refused=0.2)
    capsys.readouterr()
    assert main(["inspect", "store", "--names", "in", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["names"]
    assert names[store.column("file")[0]] == "scans/Mustermann_0_0.png" and "scans/Erdmuthe.png" in names.values()
    assert main(["inspect", "store", "--names", "nowhere"]) == 2


def test_paths_and_columns_can_be_kept(home):
    root, table = pictures(home / "in")
    store = ingest(root, home / "store", labels=table, max_refused=0.2, keep_paths=True, keep_columns="x7,remark")
    assert (
        store.column("file")[0] == "scans/Mustermann_0_0.png" and store.card.refused[0]["file"] == "scans/Erdmuthe.png"
    )
    assert store.column("x7")[0].startswith("Erdmuthe") and store.column("patient_id")[0] == store.column("patient")[0]
    assert store.card.source == "in"
    with pytest.raises(UsageError, match=r"--keep-columns y7: no column 'y7'\. Known: birthday"):
        ingest(root, home / "other", labels=table, max_refused=0.2, keep_columns="y7")


def test_hospital_data_without_a_key_of_ones_own_is_warned_of(home, monkeypatch, capsys):
    dicom(home / "in")
    store = ingest(home / "in", home / "store", max_refused=0.2)
    assert "SSL_TRANSFER_PATIENT_KEY is not set" in capsys.readouterr().err
    assert any("SSL_TRANSFER_PATIENT_KEY" in warning for warning in store.card.warnings)
    monkeypatch.setenv("SSL_TRANSFER_PATIENT_KEY", "secret")
    with pytest.raises(UsageError, match="already holds"):  # another key is another store
        ingest(home / "in", home / "store", max_refused=0.2)
    ingest(home / "in", home / "keyed", max_refused=0.2)
    assert "SSL_TRANSFER_PATIENT_KEY" not in capsys.readouterr().err


def test_phantoms_have_no_persons(home, capsys):
    store = ingest("phantom:ct,patients=3,slices=2,size=16", home / "store")
    assert "SSL_TRANSFER_PATIENT_KEY" not in capsys.readouterr().err and "/" in store.column("file")[0]
    assert store.card.source.startswith("phantom:ct")


def test_names_of_folders_are_labels_and_this_is_said(home, capsys):
    root, _ = pictures(home / "in")
    (root / "scans" / "Erdmuthe.png").unlink()
    ingest(root, home / "store")
    assert "labels are the names of the folders, stored as they are (1: scans)" in capsys.readouterr().err


def test_the_planted_words_are_many():
    assert len(PERSON) == 9
