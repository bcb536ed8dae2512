"""Positives from other images: of the same volume within a distance, or of the same patient, never of another one."""

import numpy as np
import pytest
import torch

from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.positives import Partners
from ssl_transfer.data.presets import VIEWS
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.data.training_set import StoreShare, TrainingSet
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.errors import RecipeError

SLICES = 6
SERIES = np.repeat(
    ["a1", "a2", "b1", "c1"], SLICES
)  # of patients a, a, b and c, whose last series has volumes of its own
PATIENTS = np.array([name[0] for name in SERIES])
ORDER = np.random.default_rng(0).permutation(len(SERIES))


@pytest.fixture
def store(tmp_path):
    """Slices 2.5 mm apart in random order; the grey value of each is its number. Patient b is not for training."""
    place = np.arange(len(SERIES)) % SLICES
    with StoreWriter(tmp_path / "store", (1, 8, 8), np.dtype(np.uint8)) as writer:
        for number in ORDER:
            row = {
                "patient": PATIENTS[number],
                "series": SERIES[number],
                "volume": int(SERIES[number] == "c1" and place[number] > 2),
            }
            writer.append(
                np.full((1, 8, 8), number, np.uint8), row | {"slice": int(place[number]), "z_mm": 2.5 * place[number]}
            )
        return writer.finish(
            np.where(PATIENTS[ORDER] == "b", "test", "train"), units="display", domain="ct", split_by="patient"
        )


def drawn(store, positive, distance_mm=None, epochs=60):
    """Number of each training image -> numbers of its partners over some epochs."""
    positions = np.asarray(store.positions("train"))
    partners = Partners(store, positions, positive, distance_mm)
    found = np.stack([ORDER[partners.of(positions, 0, epoch)] for epoch in range(epochs)])
    return {int(number): set(found[:, place].tolist()) for place, number in enumerate(ORDER[positions])}


def test_the_next_slices_of_the_same_volume_are_partners(store):
    found = drawn(store, "slice")
    assert found[0] == {1} and found[2] == {1, 3} and found[SLICES - 1] == {SLICES - 2}
    assert found[18] == {19} and found[20] == {19} and found[21] == {22}  # two volumes of c1


def test_slices_within_a_distance_are_partners(store):
    found = drawn(store, "slice", 5.0)
    assert found[0] == {1, 2} and found[2] == {0, 1, 3, 4} and found[20] == {18, 19}
    assert drawn(store, "slice", 1.0)[2] == {2}  # none is so near


def test_all_images_of_the_same_patient_are_partners(store):
    found = drawn(store, "patient", epochs=200)
    assert found[0] == set(range(12)) - {0} and found[20] == set(range(18, 24)) - {20}


def test_partners_depend_on_seed_epoch_and_image_alone(store):
    positions = np.asarray(store.positions("train"))
    partners = Partners(store, positions, "patient", None)
    whole = partners.of(positions, 3, 7)
    assert np.array_equal(partners.of(positions[4:9], 3, np.full(5, 7)), whole[4:9])
    assert not np.array_equal(partners.of(positions, 4, 7), whole)
    assert not np.array_equal(partners.of(positions, 3, 8), whole)


def test_the_first_view_is_of_the_image_and_the_second_of_its_partner(store):
    still = {"flip": 0.0, "crop_scale": (1.0, 1.0), "rotation_degrees": 0.0, "blur_share": 0.0, "noise": 0.0}
    still |= dict.fromkeys(("window_shift", "window_stretch", "brightness", "contrast"), 0.0)
    preset = VIEWS["ct"](8, 1, "display", **still)
    maker = ViewMaker([preset, preset], Scale.of_store(store.card, preset.intensity.window_hu), 0, channels=1)
    positions = np.array(store.positions("train"))
    partners = Partners(store, positions, "slice", None)
    training_set = TrainingSet([StoreShare(store, positions, maker, partners=partners)], seed=0)
    batch = training_set.views(training_set.read(positions, 2), positions, 2)
    expected = maker(torch.from_numpy(store.read(partners.of(positions, 0, 2))), positions, 2)
    own = maker(torch.from_numpy(store.read(positions)), positions, 2)
    assert torch.equal(batch.views[0], own[0]) and torch.equal(batch.views[1], expected[1])
    assert not torch.equal(batch.views[1], own[1])


def test_a_store_that_does_not_know_what_belongs_together_is_refused(tmp_path):
    with StoreWriter(tmp_path / "store", (1, 8, 8), np.dtype(np.uint8)) as writer:
        for number in range(4):
            writer.append(np.zeros((1, 8, 8), np.uint8), {"series": "a", "slice": number})
        bare = writer.finish(np.array(["train"] * 4), units="display", domain="ct", split_by="image")
    with pytest.raises(RecipeError, match="patient needs the patient of the images"):
        Partners(bare, np.arange(4), "patient", None)
    with pytest.raises(RecipeError, match=r"the distance of slices in .* is unknown"):
        Partners(bare, np.arange(4), "slice", 5.0)
    assert Partners(bare, np.arange(4), "slice", None).of(np.array([0, 3]), 0, 0).tolist() == [1, 2]


def test_equal_names_of_series_are_not_one_series_and_unknown_slices_have_no_neighbours(tmp_path):
    slices = [0, 1, None, 0, 1, 2]
    with StoreWriter(tmp_path / "store", (1, 8, 8), np.dtype(np.uint8)) as writer:
        for patient, number in zip("aaabbb", slices, strict=True):
            writer.append(np.zeros((1, 8, 8), np.uint8), {"patient": patient, "series": "t1", "slice": number})
        store = writer.finish(np.array(["train"] * 6), units="display", domain="ct", split_by="patient")
    partners = Partners(store, np.arange(6), "slice", None)
    found = np.stack([partners.of(np.arange(6), 0, epoch) for epoch in range(30)])
    assert [set(column) for column in found.T.tolist()] == [{1}, {0}, {2}, {4}, {3, 5}, {4}]
    with StoreWriter(tmp_path / "bare", (1, 8, 8), np.dtype(np.uint8)) as writer:
        for _ in range(4):
            writer.append(np.zeros((1, 8, 8), np.uint8), {"series": "a"})
        bare = writer.finish(np.array(["train"] * 4), units="display", domain="ct", split_by="image")
    with pytest.raises(RecipeError, match="slice needs the order of the slices"):
        Partners(bare, np.arange(4), "slice", None)
