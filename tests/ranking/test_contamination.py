"""The caveat about images that a backbone has seen: by the images of its passport, not by the name of their store."""

from dataclasses import replace

import numpy as np
import pytest
from support.rankings import reader

from ssl_transfer.cards import TrainingStage, lineage
from ssl_transfer.data.altered import SelectedRows
from ssl_transfer.data.passport import Passport, TrainingRecord
from ssl_transfer.ranking.contamination import contamination_caveats
from ssl_transfer.ranking.sample import Sample


@pytest.fixture
def sample(task):
    return Sample.of(task, 1.0, 0, 3, 0)


def trained(store, positions=None, recorded=True):
    """A backbone that was trained on images of a store."""
    backbone = reader(0)
    images = {store.card.id: len(store)}
    stage = TrainingStage(name="stage", method="simclr", domain=store.card.domain, images=images)
    backbone.card = replace(backbone.card, **lineage(stage))
    if recorded:
        rows = np.arange(len(store)) if positions is None else positions
        backbone.passport = Passport().with_records(TrainingRecord.of_store(store, rows))
    return backbone


def test_images_and_patients_that_the_passport_knows_are_counted(sample):
    store, rows = sample.task.store, sample.rows
    other = np.setdiff1d(np.arange(len(store)), rows)  # test patients
    backbones = {"all": trained(store), "some": trained(store, rows[:3]), "others": trained(store, other)}
    patients = sample.task.groups()
    of_patients = np.isin(patients[rows], patients[rows[:3]]).sum()
    (caveat,) = contamination_caveats(backbones, sample)
    assert f"all ({len(rows)} of {len(rows)} images: {len(rows)} by patient, {len(rows)} by pixels)" in caveat
    assert f"some ({of_patients} of {len(rows)} images: {of_patients} by patient, 3 by pixels)" in caveat
    assert "others" not in caveat  # trained on images of the same store, but of other patients


def test_without_a_passport_the_store_is_all_that_is_known(sample):
    backbones = {
        "old": trained(sample.task.store, recorded=False),
        "fresh": reader(1),
    }  # of both no training image is recorded
    caveat, unknown = contamination_caveats(backbones, sample)
    assert "old (trained on this store)" in caveat and "fresh" not in caveat
    assert unknown.endswith(": fresh.")


def test_of_public_weights_nothing_is_known(sample):
    backbone = reader(0)
    stage = TrainingStage(name="public", method="public weights", domain="photograph", images={})
    backbone.card = replace(backbone.card, **lineage(stage))
    (caveat,) = contamination_caveats({"public": backbone}, sample)
    assert "is unknown" in caveat and caveat.endswith(": public.")


def test_a_sample_of_a_large_store_is_compared_by_its_own_rows(sample):
    store = sample.task.store
    drawn = SelectedRows(store, np.sort(sample.rows)[::2])
    smaller = replace(sample, task=replace(sample.task, store=drawn), rows=np.arange(len(drawn)))
    (caveat,) = contamination_caveats({"all": trained(store), "none": trained(store, np.array([], int))}, smaller)
    assert f"all ({len(drawn)} of {len(drawn)} images" in caveat and "none" not in caveat
