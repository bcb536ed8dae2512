"""Rankings for a task with a label per patient: features of its images are pooled, and every patient is a case."""

import numpy as np
import pytest
from support.rankings import cohort, criteria_of, plain, ranked, reader
from support.tiny_tasks import write_task

from ssl_transfer.errors import RecipeError
from ssl_transfer.features import extract_features
from ssl_transfer.measures.transferability import scores
from ssl_transfer.ranking.sample import Sample
from ssl_transfer.ranking.text import as_text
from ssl_transfer.result import Ranking

pytestmark = pytest.mark.usefixtures("one_thread")
PATIENTS, IMAGES = 48, 6
BACKBONES = {"lesion": (0, 2), "level": (1, 2), "noise": (2, 3)}  # the pixels that each reads


def patients_task(folder, shuffled=None, **card):
    """Every other patient is ill: one of its images has a bright pixel 0, all have a somewhat brighter pixel 1."""
    draw = np.random.default_rng(0)
    owner, ill = np.repeat(np.arange(PATIENTS), IMAGES), np.arange(PATIENTS) // 3 % 2
    values = draw.normal(size=(len(owner), 16))
    values[:, 1] += 0.8 * ill[owner]
    values[np.arange(PATIENTS)[ill == 1] * IMAGES + draw.integers(0, IMAGES, (ill == 1).sum()), 0] += 6
    images = np.clip(np.rint(100 + 15 * values), 0, 255).astype(np.uint8).reshape(-1, 1, 4, 4)
    order = np.arange(len(owner)) if shuffled is None else np.random.default_rng(shuffled).permutation(len(owner))
    splits = np.array(["train", "train", "val"])[owner % 3]
    splits[owner == PATIENTS - 1] = "test"
    columns = {
        "label": np.array(["well", "ill"])[ill[owner]][order],
        "patient": np.array([f"p{number:02d}" for number in owner])[order],
    }
    return write_task(
        folder, images[order], splits[order], columns, **{"target_of": "patient", "metric": "auroc", **card}
    )


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return patients_task(tmp_path_factory.mktemp("patients"))


@pytest.fixture(scope="module")
def answer(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranking")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return ranked(task, BACKBONES, folder / "out")


def test_each_backbone_is_scored_at_the_pooling_that_validation_selects(answer):
    pooling = {backbone["name"]: backbone["group_pool"] for backbone in answer["backbones"]}
    assert (pooling["lesion"], pooling["level"]) == ("max", "mean")
    probe = {name: criteria_of(answer, name)["linear_probe"] for name in BACKBONES}
    assert min(probe["lesion"], probe["level"]) > 0.9 > 0.75 > probe["noise"]
    assert answer["n"] == {"images": 47 * IMAGES, "patients": 47, "groups": 47}
    assert any("max of lesion" in caveat and "mean of level" in caveat for caveat in answer["caveats"])
    assert "47 groups of 282 images" in as_text(Ranking.of_json(answer))


def test_scores_are_those_of_one_vector_per_patient(task, answer, workdir):
    kept = np.flatnonzero(task.store.column("split") != "test")
    features = extract_features(reader(*BACKBONES["lesion"]), task.store).values[kept]
    expected = scores(features.reshape(-1, IMAGES, 2).max(1).astype(float), task.labels[kept][::IMAGES])
    found = criteria_of(answer, "lesion")
    for name in ("logme", "h_score", "gbc"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4)


def test_the_order_of_the_images_does_not_matter(answer, workdir):
    again = ranked(patients_task(workdir / "task", shuffled=1), BACKBONES, workdir / "out")
    for one, other in zip(plain(answer)["backbones"], plain(again)["backbones"], strict=True):
        assert one["linear_probe"] == pytest.approx(other["linear_probe"], abs=1e-6)
        assert one["scores"]["logme"] == pytest.approx(other["scores"]["logme"], abs=1e-6)


def test_a_ranking_of_groups_of_one_image_is_that_of_the_images(workdir):
    alone = {"patients": 40, "images": 1}
    of_images = ranked(cohort(workdir / "a", **alone), {"it": (0, 3, 6)}, workdir / "images")
    grouped = cohort(workdir / "b", **alone, target_of="patient")
    of_groups = ranked(grouped, {"it": (0, 3, 6)}, workdir / "groups", group_pool=["mean"])
    assert criteria_of(of_groups, "it") == pytest.approx(criteria_of(of_images, "it"), abs=1e-6)
    assert of_images["backbones"][0]["group_pool"] is None


def test_posteriors_of_a_patient_are_the_mean_of_those_of_its_images(task):
    drawn = Sample.of(task, 1.0, 0, 3, 0, ["mean"])
    values = np.random.default_rng(0).random((len(drawn.rows), 5))
    patients = task.patients[drawn.rows]
    expected = [values[patients == name].mean(0) for name in sorted(set(patients))]
    assert np.allclose(drawn.means(values), expected, atol=1e-12)


def test_a_stated_pooling_is_taken_and_refused_without_groups(task, workdir):
    stated = ranked(task, {"lesion": (0, 2)}, workdir / "out", group_pool=["mean"], resamples=0)
    assert stated["backbones"][0]["group_pool"] == "mean" and stated["settings"]["group_pool"] == ["mean"]
    with pytest.raises(RecipeError, match="group_pool: it is for tasks with target_of"):
        ranked(cohort(workdir / "images"), {"it": reader(0)}, workdir / "refused", group_pool=["mean"])
