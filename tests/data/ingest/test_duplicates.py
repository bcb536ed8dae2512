"""Images with identical pixels, and what is said about them."""

import numpy as np
from PIL import Image

from ssl_transfer.data.ingest.duplicates import duplicate_warnings, repeated_images
from ssl_transfer.data.ingest.stage import ingest


def rows(digests, patient=None, split=None, label=None):
    n = len(digests)
    return {
        "pixel_digest": list(digests),
        "patient": list(patient or [None] * n),
        "split": list(split or ["train"] * n),
        "label": list(label or [None] * n),
    }


def digest(letter):
    return f"{ord(letter):032x}"[::-1]


def found(table, blank=""):
    digests = table["pixel_digest"]
    groups = repeated_images(map(digest, digests), lambda position: digests[position] in blank)
    return duplicate_warnings(table, groups, lambda position: f"f{position}.png")


def test_groups_have_all_positions_of_identical_images_in_order():
    groups = repeated_images(map(digest, "abcabx"), lambda position: False)
    assert [group.tolist() for group in groups] == [[0, 3], [1, 4]]
    assert repeated_images(map(digest, "abc"), lambda position: False) == []
    assert repeated_images([], lambda position: False) == []


def test_blank_images_are_no_duplicates():
    assert found(rows("aab", patient="PQR"), blank="a") == ([], dict.fromkeys(COUNTS, 0))


COUNTS = ("images", "groups", "across_patients", "across_splits", "across_labels")


def test_copies_within_a_patient_are_counted():
    warnings, counts = found(rows("aabbc", patient="PPQQQ"))
    assert len(warnings) == 1 and "2 of 5 images repeat the pixels of another image of the same patient" in warnings[0]
    assert counts == dict(zip(COUNTS, (2, 2, 0, 0, 0), strict=True))


def test_images_of_two_patients_on_both_sides_of_a_split_are_named():
    warnings, counts = found(rows("ab" * 2, patient="PPQQ", split=["train", "train", "test", "train"]))
    assert len(warnings) == 2 and "under several patients" in warnings[0]
    assert "1 images with identical pixels stand on both sides of a split" in warnings[1]
    assert "f0.png" in warnings[1] and "f2.png" in warnings[1] and "in train and test" in warnings[1]
    assert counts == dict(zip(COUNTS, (2, 2, 2, 1, 0), strict=True))


def test_identical_images_with_different_labels_are_named():
    warnings, counts = found(rows("aab", label=["ill", "well", None]))
    assert "different labels" in warnings[-1] and "'ill' and 'well'" in warnings[-1] and counts["across_labels"] == 1
    assert found(rows("aab", label=["ill", None, np.nan]))[1]["across_labels"] == 0


def test_ingest_warns_of_images_that_two_patients_share(tmp_path, capsys):
    random = np.random.default_rng(0)
    for patient in range(12):
        for number in range(3):
            pixels = random.integers(0, 255, (8, 8), dtype=np.uint8) if number else np.zeros((8, 8), np.uint8)
            for copy in ("", "x"):
                folder = tmp_path / "in" / "all"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"{copy}{patient}_{number}.png")
    store = ingest(tmp_path / "in", tmp_path / "store", patient_from="{patient}_*", compress=True)
    error = capsys.readouterr().err
    assert (
        "24 images occur with identical pixels under several patients, for example all/0_1.png and all/x0_1.png"
        in error
    )
    assert "stand on both sides of a split" in error
    assert store.card.decisions["duplicates"]["across_patients"] == 24  # and none of the 24 blank ones
    assert store.card.decisions["duplicates"]["across_splits"] > 0
    assert not any("all/" in warning for warning in store.card.warnings)
