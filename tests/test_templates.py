"""`init` writes a recipe, a task card and a study that fit their store, and explains every line."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_transfer.data.ingest.stage import ingest
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import UsageError
from ssl_transfer.pretraining.setup import PretrainSetup, resolve
from ssl_transfer.recipe import PretrainRecipe, load_recipe
from ssl_transfer.study.design import load_study
from ssl_transfer.study.planning import plan_study
from ssl_transfer.templates.stage import init


@pytest.fixture(scope="module")
def breast(tmp_path_factory):
    """A store of 40 grey pictures, with a table of a finding, a grade, an age and two yes-or-no columns."""
    folder, rng = tmp_path_factory.mktemp("breast"), np.random.default_rng(0)
    (folder / "png").mkdir()
    with open(folder / "table.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "patient", "diagnosis", "grade", "age", "mass", "cyst"])
        for number in range(40):
            Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(folder / "png" / f"{number}.png")
            words = ("benign", "malignant")[number % 2], number % 3, 40.5 + number, number % 2, number // 20
            table.writerow([f"{number}.png", f"p{number // 2}", *words])
    return ingest(folder / "png", folder / "breast", labels=folder / "table.csv", domain="ultrasound/breast", workers=1)


def lines(path):
    return [line for line in Path(path).read_text().splitlines() if line]


def test_every_line_is_explained(breast, tmp_path):
    answer = init(breast.path, tmp_path)
    for kind in ("recipe", "task", "study"):
        assert [line for line in lines(answer[kind]) if "# " not in line] == []
        assert "ssl-transfer" in lines(answer[kind])[1]


def test_the_recipe_has_the_views_of_the_modality_and_a_batch_that_the_store_can_fill(breast, tmp_path):
    path = init(breast.path, tmp_path)["recipe"]
    recipe = resolve(load_recipe(PretrainRecipe, path), path)
    assert recipe.data.views.name == "ultrasound" and recipe.backbone.in_channels == 1 and recipe.data.size == 32
    assert recipe.train.batch_size <= len(PretrainSetup.build(recipe, path).training_set) / 2


@pytest.mark.parametrize(
    ("target", "kind", "metric", "n_classes"),
    [
        (None, "multiclass", "balanced_accuracy", 2),
        ("grade", "ordinal", "quadratic_kappa", 3),
        ("age", "regression", "r2", 0),
        ("mass", "multiclass", "balanced_accuracy", 2),
        ("mass,cyst", "multilabel", "auroc", 2),
    ],
)
def test_the_card_has_the_kind_of_the_column_and_its_metric(breast, tmp_path, target, kind, metric, n_classes):
    task = Task.load(init(breast.path, tmp_path, target)["task"])
    assert (task.kind, task.card.metric, len(task.classes)) == (kind, metric, n_classes)
    assert len(task.labels) == 40


@pytest.mark.parametrize("target", [None, "age", "mass,cyst"])
def test_the_study_can_be_planned_and_compares_with_imagenet_and_random_initialisation(breast, tmp_path, target):
    path = init(breast.path, tmp_path, target)["study"]
    plan = plan_study(load_study(path), tmp_path / "study", write=False)
    study = load_study(path)
    assert plan.jobs and set(study.pretrainings) == {"own pretraining", "ImageNet", "random initialisation"}
    assert study.statistics.gate and len(study.statistics.primary) == 1


def test_few_test_patients_are_warned_of(breast, tmp_path, capsys):
    patients = breast.card.splits["test"].patients
    init(breast.path, tmp_path)
    assert (
        f"{patients} test patients: an accuracy of one half is known to ±{0.98 / patients**0.5:.2f}"
        in capsys.readouterr().err
    )


def test_masks_are_the_target_where_asked_for_or_without_labels(ct_store, photo_store, tmp_path):
    answer = init(ct_store.path, tmp_path / "masks", "mask")
    assert Task.load(answer["task"]).kind == "segmentation"
    plan_study(load_study(answer["study"]), tmp_path / "study", write=False)
    with pytest.raises(UsageError, match="has no masks"):
        init(photo_store.path, tmp_path / "no", "mask")


def test_any_name_of_a_folder_is_a_value_in_the_files(breast, tmp_path):
    shutil.copytree(breast.path, store := tmp_path / "breast, {2024}: new #1")
    answer = init(store, tmp_path / "files")
    recipe, task, study = (yaml.safe_load(Path(answer[kind]).read_text()) for kind in ("recipe", "task", "study"))
    assert [recipe["data"]["store"], task["store"], study["stores"]["own"]["path"]] == [str(store)] * 3


def test_photographs_in_colour_have_the_natural_views(photo_store, tmp_path):
    recipe = yaml.safe_load(Path(init(photo_store.path, tmp_path)["recipe"]).read_text())
    assert recipe["data"]["views"] == "natural" and recipe["backbone"]["in_channels"] == 3


def test_without_labels_there_is_only_a_recipe(tmp_path):
    for number in range(12):
        (tmp_path / "png").mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16), 20 * number, np.uint8)).save(tmp_path / "png" / f"{number}.png")
    store = ingest(tmp_path / "png", tmp_path / "plain", domain="xray", workers=1)
    answer = init(store.path, tmp_path / "files")
    assert (answer["task"], answer["study"]) == (None, None) and answer["target"].startswith("none")
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["pretrain_plain.yaml"]


def test_nothing_is_overwritten(breast, tmp_path):
    answer = init(breast.path, tmp_path)
    (tmp_path / "study_breast.yaml").write_text("mine")
    with pytest.raises(UsageError, match="already there, and is left as it is"):
        init(breast.path, tmp_path)
    assert Path(answer["study"]).read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("grad", "no such column. Did you mean 'grade'"),
        ("file", "40 different values .* 2 to 13 classes, .* Columns with classes: "),
    ],
)
def test_a_column_that_is_no_target_is_refused(breast, tmp_path, target, message):
    with pytest.raises(UsageError, match=message):
        init(breast.path, tmp_path, target)
