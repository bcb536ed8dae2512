"""Contamination: what an evaluation states of its test cases, for chains, other sizes and other splits of an archive."""

from dataclasses import replace

import numpy as np
import pandas
import pytest
from PIL import Image
from scipy import ndimage
from support.families import family_backbone
from support.tiny_tasks import judge, mask_task, write_task

from ssl_transfer.cards import TrainingStage, lineage
from ssl_transfer.cli.evaluate import as_text
from ssl_transfer.data.passport import Passport, TrainingRecord
from ssl_transfer.data.store import StoreWriter
from ssl_transfer.evaluation import contamination as module
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.fingerprint import query
from ssl_transfer.measures.metrics import classification_metrics

SIDE = 48

pytestmark = pytest.mark.usefixtures("one_thread")


def texture(seed, side=SIDE):
    """A made-up image, uint8 (1, side, side)."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
    return np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)[None]


def made_store(folder, images, patients, domain="ct", key=None):
    with StoreWriter(folder, images[0].shape, images[0].dtype) as writer:
        for image, patient in zip(images, patients, strict=True):
            writer.append(image, {"patient": patient})
        return writer.finish(np.full(len(images), "train"), units="display", domain=domain, patient_key=key)


def made_task(folder, test_images, test_patients, train=8):
    """A task of two classes with these test images; its training and validation images are others."""
    images = [*(texture(5000 + n) for n in range(train + 4)), *test_images]
    splits = ["train"] * train + ["val"] * 4 + ["test"] * len(test_images)
    patients = [*(f"t{n}" for n in range(train + 4)), *test_patients]
    labels = [str(n % 2) for n in range(len(images))]
    return write_task(folder, np.stack(images), splits, {"label": labels, "patient": patients}, metric="accuracy")


def trained_on(*stores, public=False):
    """A backbone with the passport and the stages of trainings on all images of stores."""
    backbone = family_backbone("resnet")
    stages = [
        TrainingStage(name=f"stage {n}", method="simclr", domain=store.card.domain, images={store.id: len(store)})
        for n, store in enumerate(stores)
    ]
    if public:
        stages.insert(0, TrainingStage(name="public", method="public weights", domain="photograph", images={}))
    records = [TrainingRecord.of_store(store, np.arange(len(store))) for store in stores]
    backbone.card = replace(backbone.card, id="made up", method="simclr", **lineage(*stages))
    backbone.passport = Passport().with_records(*records)
    return backbone


def smaller(image):
    return np.asarray(Image.fromarray(image[0]).resize((SIDE - 8,) * 2).resize((SIDE,) * 2))[None]


@pytest.fixture
def planted(tmp_path):
    """A store of 30 patients, and a task with six test images: same pixels, two near-duplicates, a patient, two clean ones."""
    store = made_store(tmp_path / "known", [texture(n) for n in range(30)], [f"p{n}" for n in range(30)])
    images = [texture(3), smaller(texture(4)), texture(5)[:, :, ::-1], texture(900), texture(901), texture(902)]
    return store, made_task(tmp_path / "task", images, ["a", "b", "c", "p6", "d", "e"])


def judged(backbone, task, folder):
    result = evaluate("knn", backbone, task, folder / "result", folder / "features", k=(1,), resamples=0)
    return result, pandas.read_parquet(folder / "result/predictions.parquet")


def test_every_test_case_has_a_statement_with_its_evidence(planted, tmp_path):
    store, task = planted
    result, predictions = judged(trained_on(store), task, tmp_path)
    assert list(predictions["seen_in_pretraining"]) == ["pixels+near", "near", "near", "patient", "no", "no"]
    assert result.seen_in_pretraining is True
    counts = {
        name: result.contamination[name] for name in ("cases", "images", "seen", "patient", "pixels", "near", "unknown")
    }
    assert counts == {"cases": 6, "images": 6, "seen": 4, "patient": 1, "pixels": 1, "near": 3, "unknown": 0}


def test_the_metrics_of_the_clean_cases_are_those_of_their_rows_alone(planted, tmp_path):
    store, task = planted
    result, predictions = judged(trained_on(store), task, tmp_path)
    clean = predictions[predictions["seen_in_pretraining"] == "no"]
    codes, scores = clean["label"].astype(int).to_numpy(), clean[["score_0", "score_1"]].to_numpy()
    expected = classification_metrics(codes, scores, "macro", ["0", "1"])
    for name, value in expected.items():
        assert result.contamination["metrics_clean"][name] == (
            None if value != value else pytest.approx(value, abs=1e-6)
        )


def test_the_text_of_a_result_has_the_counts_and_the_score_on_the_others(planted, tmp_path):
    result, _ = judged(trained_on(planted[0]), planted[1], tmp_path)
    text = as_text({**result.to_json(), "result": "result.json"})
    assert "seen in pretraining: 4 of 6 test cases (same patient 1, same pixels 1, near-duplicate 3)" in text
    assert "on the 2 others: accuracy " in text


def test_stages_and_mixtures_add_up(planted, tmp_path):
    _, task = planted
    first = made_store(tmp_path / "first", [texture(n) for n in range(4)], [f"p{n}" for n in range(4)])
    second = made_store(tmp_path / "second", [texture(n) for n in range(4, 30)], [f"p{n}" for n in range(4, 30)])
    assert judged(trained_on(first), task, tmp_path / "a")[0].contamination["seen"] == 1
    assert judged(trained_on(second, first), task, tmp_path / "b")[0].contamination["seen"] == 4


def test_without_any_overlap_no_case_is_seen_and_the_metrics_are_those_of_all(planted, tmp_path):
    other = made_store(tmp_path / "other", [texture(n) for n in range(2000, 2030)], [f"q{n}" for n in range(30)])
    result, predictions = judged(trained_on(other), planted[1], tmp_path)
    assert result.seen_in_pretraining is False and set(predictions["seen_in_pretraining"]) == {"no"}
    assert result.contamination["seen"] == 0 and result.contamination["metrics_clean"] == result.metrics["test"]


def test_public_weights_are_unknown_and_a_stage_that_is_known_still_counts(planted, tmp_path):
    store, task = planted
    result, predictions = judged(trained_on(public=True), task, tmp_path / "public")
    assert result.seen_in_pretraining == "unknown" and set(predictions["seen_in_pretraining"]) == {"unknown"}
    assert (result.contamination["unknown"], result.contamination["metrics_clean"]) == (6, None)
    text = as_text({**result.to_json(), "result": "result.json"})
    assert "seen in pretraining: unknown for all 6 test cases: the training images of public are not recorded" in text
    result, predictions = judged(trained_on(store, public=True), task, tmp_path / "chain")
    assert result.seen_in_pretraining is True and (predictions["seen_in_pretraining"] == "unknown").sum() == 2
    assert result.contamination["unknown_stages"] == ["public"]


def test_random_initialisation_has_seen_nothing(planted, tmp_path):
    result, _ = judged(family_backbone("resnet"), planted[1], tmp_path)
    assert result.seen_in_pretraining is False and result.contamination["seen"] == 0


@pytest.mark.parametrize(
    ("domain", "key", "patient"), [("ct", None, 1), ("ct", "other", None), ("fluorescence", None, None)]
)
def test_patients_are_compared_where_equal_hashes_mean_equal_patients(planted, tmp_path, domain, key, patient):
    """Another key gives other hashes; archives of another family number their subjects alike."""
    images, patients = [texture(n) for n in range(2000, 2008)], [f"p{n}" for n in range(8)]
    other = made_store(tmp_path / "other", images, patients, domain, key)
    result, _ = judged(trained_on(other), planted[1], tmp_path)
    assert result.contamination["patient"] == patient


def test_images_of_the_store_outside_of_test_are_counted_apart(planted, tmp_path):
    other = made_store(tmp_path / "other", [texture(5000 + n) for n in range(5)], [f"q{n}" for n in range(5)])
    result, _ = judged(trained_on(other), planted[1], tmp_path)
    assert result.seen_in_pretraining is True and result.contamination["seen"] == 0
    assert result.contamination["other_images"] == {"images": 12, "seen": 5}


def test_a_volume_was_seen_if_one_of_its_slices_was(tmp_path):
    task = mask_task(tmp_path / "task", slices=3)
    volume = task.store.positions("test")
    known = made_store(tmp_path / "known", [task.store[int(volume[1])]], ["someone"])
    result = judge("segment", trained_on(known), task, tmp_path / "result", "train.steps=1")
    rows = pandas.read_parquet(tmp_path / "result/predictions.parquet").set_index("case")["seen_in_pretraining"]
    assert "pixels" in rows["p010/s10"] and (result.contamination["images"], result.contamination["cases"]) == (6, 2)


def test_empty_images_are_equal_everywhere_and_no_evidence(tmp_path):
    empty = np.zeros((1, SIDE, SIDE), np.uint8)
    known = made_store(tmp_path / "known", [texture(0), empty], ["p0", "p1"])
    result, _ = judged(trained_on(known), made_task(tmp_path / "task", [empty, texture(900)], ["a", "b"]), tmp_path)
    assert (result.seen_in_pretraining, result.contamination["without_content"]) == (False, 1)


def test_a_long_search_is_done_once_and_again_if_its_file_is_damaged(planted, tmp_path, monkeypatch):
    store, task = planted
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "WORTH_KEEPING", 1)
    rows, searches = np.asarray(task.store.positions("test")), []
    compare = module._compare
    monkeypatch.setattr(module, "_compare", lambda *given: searches.append(1) or compare(*given))

    def seen():
        module._seen_images.cache_clear()
        passport = replace(trained_on(store).passport, id="known")
        return module._seen_images(passport, task.store.path, task.store.id, rows.tobytes())

    first, second = seen(), seen()
    assert len(searches) == 1 and (first.any == second.any).all() and second.patients_compared
    next((tmp_path / "runs/contamination").glob("*.npz")).write_bytes(b"PK")
    assert (seen().any == first.any).all() and len(searches) == 2


def test_images_of_a_scaled_store_are_looked_up_as_ingest_has_fingerprinted_them(tmp_path):
    """Values below the range of an image are no CT in HU."""
    image = texture(0).astype(np.float32) * 40 - 900
    with StoreWriter(tmp_path / "scaled", image.shape, image.dtype) as writer:
        writer.append(image, {"patient": "p0"})
        store = writer.finish(np.array(["train"]), units="scaled", domain="mri")
    looked_up = module._queries(store.path, store.id, np.arange(1).tobytes())[0]
    assert (looked_up == query(np.clip(image, 0, 10_000))).all() and (looked_up != query(image)).any()


@pytest.mark.parametrize(("most", "computed"), [(30, 3), (20, 6)])
def test_codes_of_several_targets_in_turn_are_computed_once_as_long_as_they_are_small(
    most, computed, monkeypatch, tmp_path
):
    stores = []
    monkeypatch.setattr(module, "MOST_KEPT", most)
    monkeypatch.setattr(module, "ImageStore", lambda path: path)
    monkeypatch.setattr(module, "_computed_queries", lambda store, _: stores.append(store) or np.zeros(10, np.uint8))
    for _ in range(2):
        for name in ("ct", "xray", "cells"):
            module._queries(tmp_path / name, name, b"")
    assert len(stores) == computed
