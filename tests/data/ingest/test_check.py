"""`ingest --check`: what would be decided, without writing; the ingest that follows decides the same."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image
from support.command_line import ssl_transfer
from support.radiographs import MR, write_image

from ssl_transfer.data.ingest.check import check
from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.errors import LabelError, SourceError, UsageError


def x_rays(folder, patients=6):
    """Two X-rays of each patient, of 10 and 12 bits and of two shapes, a label each, and files that are not images."""
    for number in range(patients):
        for view, bits in enumerate((10, 12)):
            pixels = np.full((8, 6 + 2 * (number == 0)), 2**bits - 1, np.uint16)
            ids = {"PatientID": f"patient-{number}", "StudyInstanceUID": f"1.{number}"}
            write_image(
                folder / f"{number}_{view}.dcm", pixels, bits=bits, SeriesInstanceUID=f"1.{number}.{view}", **ids
            )
    (folder / "notes.txt").write_text("x")
    rows = [f"patient-{number},{'ab'[number % 2] if number else 'rare'}" for number in range(patients)]
    (folder.parent / "labels.csv").write_text("\n".join(["patient,label", *rows]))
    return folder


def mr_series(folder):
    """A series of even and one of uneven distances, with a slice that is there twice."""
    for series, positions in (("even", [0, 2, 4, 6]), ("uneven", [0, 2, 7, 9, 9])):
        for number, z in enumerate(positions):
            pixels = np.random.default_rng(number).integers(0, 900, (6, 6)).astype(np.uint16)
            place = {"ImagePositionPatient": [0, 0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
            ids = {"PatientID": series, "StudyInstanceUID": "1.2", "SeriesInstanceUID": f"1.2.{len(series)}"}
            write_image(folder / f"{series}{number}.dcm", pixels, sop=MR, modality="MR", **place, **ids)
    return folder


def pictures(folder):
    """8- and 16-bit PNGs in the folders of two classes."""
    for number in range(12):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        deep = number % 3 == 0
        Image.fromarray(np.full((6, 6), number * 300 if deep else number, np.uint16 if deep else np.uint8)).save(path)
    return folder


def volumes(folder):
    """NIfTI volumes that are not CT."""
    folder.mkdir()
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 500 * (number + 1), (6, 6, 3)).astype(np.int16)
        nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1])).to_filename(folder / f"v{number}.nii.gz")
    return folder


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (x_rays, {"labels": "labels.csv"}),
        (x_rays, {"range": "percentile", "size": 12, "channels": 3}),
        (mr_series, {}),
        (pictures, {}),
        (volumes, {}),
        (lambda folder: "phantom:ct,patients=3,slices=4,size=16", {}),
    ],
)
def test_ingest_decides_what_check_said(tmp_path, make, options):
    source = make(tmp_path / "in")
    options = options | ({"labels": tmp_path / options["labels"]} if "labels" in options else {})
    said = check(source, options)
    store = ingest(source, tmp_path / "out", **options)
    card = store.card
    decided = json.loads(json.dumps({name: card.decisions[name] for name in card.decisions if name != "duplicates"}))
    assert said["decisions"] == decided  # of pixels, the card counts duplicates in addition
    assert (decided["intensity"]["units"], decided["files"]["images"]) == (card.units, card.n_images)
    assert (decided["size"]["size"], decided["channels"]["channels"]) == (list(card.size), card.channels)
    assert {name: n["images"] for name, n in decided["classes"]["classes"].items()} == card.labels
    assert decided["splits"] is None or decided["splits"] == card.to_json()["splits"]
    assert sum(decided["files"]["refused"].values()) == card.n_refused and said["refused"] == store.refused
    assert said["domain"] == card.domain and len(said["warnings"]) <= len(card.warnings)
    counts = {rule["rule"]: rule["images"] for rule in decided["intensity"]["rules"]}
    assert counts == {rule: int(n) for rule, n in store.rows["intensity"].value_counts().items()}


def test_a_check_names_series_ranges_shapes_classes_and_splits(tmp_path):
    said = check(x_rays(tmp_path / "in"), {"labels": tmp_path / "labels.csv"})
    decided = said["decisions"]
    assert (said["kind"], said["format"], said["domain"]) == ("check", "dicom", "xray")
    assert decided["files"] == {"files": 12, "images": 12, "refused": {"not_an_image": 1}}
    assert (decided["series"]["series"], decided["series"]["volumes"]) == (12, 12)
    assert decided["intensity"] == {
        "units": "scaled",
        "rules": [{"rule": "bits", "images": 12, "ranges": 2, "lowest": 0.0, "highest": 4095.0}],
        "depths": [],
    }
    assert decided["size"]["shapes"] == [{"size": [8, 6], "images": 10}, {"size": [8, 8], "images": 2}]
    assert decided["size"]["resampled"] == 2
    assert decided["classes"]["classes"]["rare"] == {"images": 2, "patients": 1}
    assert decided["classes"]["tiny"] == ["a", "rare"]  # two patients and one, for three splits
    assert decided["subjects"] == {
        "patients": 6,
        "known_by": "header",
        "images_without_patient": 0,
        "split_by": "patient",
    }
    assert any("'rare' (1 patient" in warning for warning in said["warnings"])
    assert sum(split["patients"] for split in decided["splits"].values()) == 6


def test_a_check_counts_uneven_and_repeated_positions(tmp_path):
    series = check(mr_series(tmp_path / "in"), {})["decisions"]["series"]
    assert series["slices"] == {"fewest": 4, "median": 5, "most": 5}
    assert (series["spacing_mm"], series["uneven"], series["repeated_positions"]) == (
        {"smallest": 2, "largest": 2},
        1,
        1,
    )


def test_a_check_counts_files_of_one_sop_instance_uid(tmp_path):
    x_rays(tmp_path / "in")
    (tmp_path / "in" / "copy.dcm").write_bytes((tmp_path / "in" / "0_0.dcm").read_bytes())
    assert check(tmp_path / "in", {})["decisions"]["repeated_uids"] == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [({"labels": "none.csv"}, LabelError), ({"format": "dicom"}, SourceError), ({"range": "windo"}, UsageError)],
)
def test_a_check_reports_what_would_stop_an_ingest(tmp_path, options, error):
    with pytest.raises(error):
        check(pictures(tmp_path / "in"), options)


def test_the_command_writes_nothing_and_prints_a_table_or_json(tmp_path):
    pictures(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    table = ssl_transfer("ingest", "in", "--check", folder=tmp_path)
    answer = ssl_transfer("ingest", "in", "--check", "--json", folder=tmp_path).json
    assert table.status == 0 and sorted(tmp_path.rglob("*")) == before
    assert answer["decisions"]["intensity"]["units"] == "scaled"
    assert "reading pixels of 4 of 4 files of 16 bits" in table.stderr
    for line in ("intensity   scaled: several ranges", "stored bits", "8-bit grey as displayed", "nothing was written"):
        assert line in table.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--check", "--out", "s"), "--out s: with --check nothing is written"),
        ((), "expected --out STORE, the folder to write, or --check"),
        (("--range", "windw", "--check"), "invalid choice: 'windw'"),
    ],
)
def test_a_wrong_combination_is_reported(tmp_path, words, message):
    answer = ssl_transfer("ingest", "in", *words, folder=tmp_path)
    assert answer.status == 2 and message in answer.stderr


def test_inspect_prints_the_decisions_of_a_store(tmp_path):
    ingest(pictures(tmp_path / "in"), tmp_path / "out")
    text = ssl_transfer("inspect", "out", folder=tmp_path).stdout
    assert "decisions:" in text and "8-bit grey as displayed" in text
    assert ssl_transfer("inspect", "out", "--json", folder=tmp_path).json["decisions"]["files"]["images"] == 12
