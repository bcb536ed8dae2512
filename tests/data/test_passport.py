"""The passport of a backbone: saved beside the weights, opened without the stores, refused when it is not whole."""

import copy
import json
import shutil

import numpy as np
import pytest

from ssl_transfer.data.passport import FOLDER, Passport, TrainingRecord, hashed_patients, hashed_pixels
from ssl_transfer.errors import BackboneError


@pytest.fixture
def record(ct_store):
    return TrainingRecord.of_store(ct_store, ct_store.positions("train"))


def test_a_record_has_the_patients_pixels_and_fingerprints_of_its_rows_alone(record, ct_store):
    rows = ct_store.rows.iloc[ct_store.positions("train")]
    assert (record.images, record.patients, record.domain) == (len(rows), rows["patient"].nunique(), "ct")
    assert set(record.array("patients")) == set(hashed_patients(rows["patient"].to_numpy()))
    assert (record.array("digests") == np.sort(hashed_pixels(rows["pixel_digest"].to_numpy()))).all()
    assert (record.array("fingerprints") == ct_store.fingerprints(ct_store.positions("train"))).all()


def test_a_saved_passport_is_read_without_the_store(record, tmp_path):
    identity = Passport((record,)).save(tmp_path)
    opened = Passport.load(tmp_path, identity)
    assert opened.stores == {record.store} and opened.records[0].facts() == record.facts()
    for name in ("patients", "digests", "fingerprints"):
        assert (opened.records[0].array(name) == record.array(name)).all()
    (tmp_path / "again").mkdir()
    assert opened.save(tmp_path / "again") == identity


def test_its_arrays_are_plain_files_of_numpy(record, tmp_path):
    Passport((record,)).save(tmp_path)
    array = np.load(tmp_path / FOLDER / "000-digests.npy", allow_pickle=False)
    assert array.dtype == np.uint64 and len(array) == record.images and (np.diff(array.astype(float)) >= 0).all()


def test_a_store_that_two_stages_share_is_kept_once_and_other_images_of_it_beside(record, ct_store):
    other = TrainingRecord.of_store(ct_store, ct_store.positions("train")[:12])
    passport = Passport().with_records(record).with_records(record, other)
    assert [kept.images for kept in passport.records] == [36, 12]


def test_copies_of_a_backbone_share_it(record):
    passport = Passport((record,))
    assert copy.deepcopy(passport) is passport


def test_without_records_nothing_is_written(tmp_path):
    assert Passport().save(tmp_path) is None and not list(tmp_path.iterdir())
    assert not Passport.load(tmp_path, None).records


@pytest.mark.parametrize("damage", ["missing", "json", "other", "short", "array", "facts"])
def test_what_is_not_whole_is_refused_with_what_to_do(record, tmp_path, damage):
    identity = Passport((record,)).save(tmp_path)
    folder = tmp_path / FOLDER
    if damage == "missing":
        shutil.rmtree(folder)
    elif damage == "json":
        (folder / "passport.json").write_text("{")
    elif damage == "other":
        identity = "0" * 32
    elif damage == "short":
        path = folder / "000-fingerprints.npy"
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "array":
        (folder / "000-patients.npy").unlink()
    else:
        content = json.loads((folder / "passport.json").read_text())
        content["records"][0]["images"] = 7
        (folder / "passport.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match="Copy the whole folder"):
        Passport.load(tmp_path, identity)


def test_verify_finds_a_changed_byte_of_an_array(record, tmp_path):
    identity = Passport((record,)).save(tmp_path)
    assert Passport.load(tmp_path, identity).content_digest() == identity
    path = tmp_path / FOLDER / "000-fingerprints.npy"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert Passport.load(tmp_path, identity).content_digest() != identity
