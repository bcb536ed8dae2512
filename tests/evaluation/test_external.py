"""External tests: a model is selected on its own store, and then tested on further stores."""

import numpy as np
import pandas
import pytest
from scipy import ndimage
from support.families import family_backbone
from support.tiny_tasks import judge, mask_task, spots, write_task

from ssl_transfer.cli.evaluate import as_text
from ssl_transfer.data.external_tests import external_tests
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import SplitError, TaskError
from ssl_transfer.evaluation import probes, stage
from ssl_transfer.evaluation.stage import evaluate
from ssl_transfer.measures.metrics import classification_metrics
from ssl_transfer.result import EvalResult

pytestmark = pytest.mark.usefixtures("one_thread")
PROBES = {"linear_probe": {"strengths": (0.1, 1.0)}, "knn": {"k": (1, 3)}}


def classes_of(folder, labels, seed, prefix, splits=None, **card):
    """A task of spots, the brighter the later the class, a patient per image."""
    labels = np.asarray(labels)
    names = np.array(["dark", "bright", "glaring"])
    images, _ = spots(labels, seed=seed)
    patients = [f"{prefix}{n:03d}" for n in range(len(labels))]
    splits = ["train", "val", "test"] * (len(labels) // 3) if splits is None else splits
    return write_task(folder, images, splits, {"label": names[labels], "patient": patients}, **card)


@pytest.fixture
def tasks(tmp_path):
    """A task of two classes, and the path of an external store with images of three."""
    own = classes_of(tmp_path / "own", np.arange(24) // 3 % 2, 0, "own")
    external = classes_of(tmp_path / "other", np.arange(18) // 3 % 3, 1, "other")
    return own, str(external.store.path)


def evaluated(protocol, task, folder, external, backbone=None, **settings):
    features = [folder / "features", folder / "features-other"] if protocol in PROBES else None
    options = {"resamples": 50, "external": external, **PROBES.get(protocol, {}), **settings}
    return evaluate(protocol, backbone or family_backbone("resnet"), task, folder / "result", features, **options)


@pytest.mark.parametrize("protocol", PROBES)
def test_what_is_measured_is_what_the_predictions_of_the_file_say(tasks, protocol, tmp_path):
    result = evaluated(protocol, tasks[0], tmp_path, [tasks[1]])
    test = result.external["store"]
    predictions = pandas.read_parquet(tmp_path / "result/predictions-store.parquet")
    codes = predictions["label"].map({"bright": 0, "dark": 1}).to_numpy()
    scores = predictions[["score_bright", "score_dark"]].to_numpy()
    expected = classification_metrics(codes, scores, "macro", ["bright", "dark"], temperature=result.temperature)
    assert test["metrics"] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert test["own"] == result.metrics["test"]
    assert test["gap"]["auroc"] == pytest.approx(test["metrics"]["auroc"] - result.metrics["test"]["auroc"], abs=2e-6)
    low, high = test["gap_intervals"]["brier"]
    assert low <= test["gap"]["brier"] <= high
    assert test["n"] == {"images": 12, "patients": 12}
    assert list(predictions["seen_in_pretraining"]) == ["no"] * 12
    assert set(result.files) >= {"predictions.parquet", "predictions-store.parquet"}
    assert EvalResult.load(tmp_path / "result").external == result.external


def test_a_class_that_one_of_the_stores_lacks_is_said_and_enters_neither_side_of_the_gap(tasks, tmp_path):
    result = evaluated("knn", tasks[0], tmp_path / "a", [tasks[1]])
    assert (
        "images of classes that the task does not have are left out: glaring (6 images)"
        in result.external["store"]["notes"]
    )
    three = Task.load(tmp_path / "other/task.yaml")
    reverse = evaluated("knn", three, tmp_path / "b", [str(tasks[0].store.path)])
    test = reverse.external["store"]
    assert "has no class glaring: metrics and gap are of dark, bright" in test["notes"][0].replace(
        "bright, dark", "dark, bright"
    )
    own = pandas.read_parquet(tmp_path / "b/result/predictions.parquet")
    own = own[own["label"] != "glaring"]
    codes = own["label"].map({"bright": 0, "dark": 1, "glaring": 2}).to_numpy()
    expected = classification_metrics(
        codes, own[["score_bright", "score_dark", "score_glaring"]].to_numpy(), "macro", ["bright", "dark", "glaring"]
    )
    assert test["own"]["balanced_accuracy"] == pytest.approx(expected["balanced_accuracy"], abs=1e-6)


def test_external_pixels_are_not_read_before_selection_is_finished(tasks, tmp_path, monkeypatch):
    selected, read = [], ImageStore.read

    def guarded(store, positions):
        if str(store.path) == tasks[1] and not selected:
            raise AssertionError("read before selection")
        return read(store, positions)

    def noted(*arguments):
        result = chosen(*arguments)
        selected.append(result)
        return result

    chosen = probes.selected_probe
    monkeypatch.setattr(ImageStore, "read", guarded)
    with pytest.raises(AssertionError, match="before selection"):
        evaluated("knn", tasks[0], tmp_path / "a", [tasks[1]])  # the guard works: the store is read in the end
    monkeypatch.setattr(stage, "selected_probe", noted)
    assert evaluated("knn", tasks[0], tmp_path / "b", [tasks[1]]).external["store"]["n"]["images"] == 12


def test_a_patient_of_both_stores_is_refused_by_its_hash(tasks, tmp_path):
    classes_of(tmp_path / "shared", [0, 1, 0], 2, "own")
    with pytest.raises(SplitError, match=r"3 patient\(s\) are in .*own/store, too: own000, own001, own002"):
        evaluated("knn", tasks[0], tmp_path, [str(tmp_path / "shared/store")])


def test_images_with_the_pixels_of_an_own_image_are_left_out(tasks, tmp_path):
    both = np.concatenate([tasks[0].store.read([0, 4]), spots([0, 1, 0, 1], seed=5)[0]])
    columns = {"label": ["dark", "bright"] * 3, "patient": list("abcdef")}
    write_task(tmp_path / "copy", both, ["train", "val", "test"] * 2, columns)
    test = evaluated("knn", tasks[0], tmp_path, [str(tmp_path / "copy/store")]).external["store"]
    assert test["n"]["images"] == 4
    assert "2 of 6 images are left out: their pixels are in the task's own store" in test["notes"]


def test_a_store_without_the_classes_is_refused_with_the_names_of_both(tasks, tmp_path):
    images, _ = spots([0, 1, 0])
    columns = {"label": ["0", "1", "0"], "patient": list("abc")}
    write_task(tmp_path / "named", images, ["train", "val", "test"], columns)
    with pytest.raises(TaskError, match="expected some of bright, dark, found 0, 1"):
        evaluated("knn", tasks[0], tmp_path, [str(tmp_path / "named/store")])
    with pytest.raises(TaskError, match="2 stores are called 'store'"):
        evaluated("knn", tasks[0], tmp_path, [tasks[1], tasks[1]])


def test_a_store_whose_images_have_no_label_is_refused(tmp_path):
    def aged(name, ages):
        columns = {"age": ages, "patient": [f"{name}{number}" for number in range(3)]}
        card = {"target": "regression", "column": "age", "metric": "mae"}
        return write_task(tmp_path / name, spots([0] * 3)[0], ["train", "val", "test"], columns, **card)

    with pytest.raises(TaskError, match="none of its 3 images has a label"):
        external_tests(aged("own", [50.0, 60.0, 70.0]), [aged("other", [None] * 3).store.path])


def test_a_card_names_external_stores_and_a_result_without_them_keeps_its_id(tasks, tmp_path):
    named = Task.opened("task", tasks[0].card.model_copy(update={"external": (tasks[1],)}))
    with_it = evaluated("knn", named, tmp_path / "a", None)
    assert list(with_it.external) == ["store"]
    without = evaluated("knn", named, tmp_path / "b", [])
    assert not without.external
    assert without.run_id == evaluated("knn", tasks[0], tmp_path / "c", None).run_id != with_it.run_id
    assert "external test on store: 12 images of 12 patients" in as_text({**with_it.to_json(), "result": "result.json"})


def with_other_test(folder, own, other):
    """The task with the images of another one as its test images; its own ones stay at their positions, in no split."""
    images = np.concatenate([store.read(np.arange(len(store))) for store in (own.store, other.store)])
    rows = [own.store.rows.replace({"split": {"test": "none"}}), other.store.rows.assign(split="test")]
    columns = pandas.concat(rows)[["label", "patient", "split"]].to_dict("list")
    return write_task(folder, images, columns.pop("split"), columns)


@pytest.mark.parametrize("protocol", ["linear_probe", "knn", "finetune"])
def test_an_external_store_gets_the_scores_that_it_would_get_as_the_task_s_own_test(tasks, protocol, tmp_path):
    other = classes_of(tmp_path / "two", [0, 1, 1, 0, 1, 1], 3, "two")
    as_own_test = with_other_test(tmp_path / "joined", tasks[0], other)
    path = str(other.store.path)
    if protocol == "finetune":
        judge(protocol, family_backbone("resnet"), tasks[0], tmp_path / "a/result", f"external={path}")
        judge(protocol, family_backbone("resnet"), as_own_test, tmp_path / "b/result")
    else:
        evaluated(protocol, tasks[0], tmp_path / "a", [path])
        evaluated(protocol, as_own_test, tmp_path / "b", [])
    external = pandas.read_parquet(tmp_path / "a/result/predictions-store.parquet")
    expected = pandas.read_parquet(tmp_path / "b/result/predictions.parquet")
    assert list(external["label"]) == list(expected["label"])
    assert np.allclose(external["score_bright"], expected["score_bright"], atol=1e-5)


def test_masks_of_an_external_store_are_matched_by_name(tmp_path):
    own = mask_task(tmp_path / "own", train=2, held_out=1, classes=2)
    images, middle = spots(np.ones(3), seed=4)
    masks = [np.where(middle, 7, 0)] * 3
    columns = {"patient": list("xyz"), "series": list("xyz")}
    splits, names = ["train", "val", "test"], {"7": "band2", "9": "bone"}
    other = write_task(tmp_path / "other", images, splits, columns, masks, names, target="mask", metric="dice")
    result = judge("segment", family_backbone("resnet"), own, tmp_path / "run", f"external={other.store.path}")
    test = result.external["store"]
    assert test["classes"] == ["band2"]
    assert {"dice", "dice_band2"} <= set(test["metrics"])
    assert "dice_band1" not in test["own"]
    assert test["own"]["dice"] == result.metrics["test"]["dice_band2"]
    assert test["notes"][:2] == [
        "masks of classes that the task does not have count as background: bone",
        "has no class band1: metrics and gap are of band2",
    ]
    predictions = pandas.read_parquet(tmp_path / "run/predictions-store.parquet")
    assert list(predictions["truth_voxels"]) == [int(middle.sum())] * 3


def test_labels_of_an_external_store_are_matched_by_column(tmp_path):
    labels = np.arange(18) // 3 % 2
    columns = {"a": labels, "b": 1 - labels, "patient": [f"p{n}" for n in range(18)]}
    target = {"target": ["a", "b"], "metric": "auroc"}
    own = write_task(tmp_path / "own", spots(labels)[0], ["train", "val", "test"] * 6, columns, **target)
    columns = {"b": columns["b"], "patient": [f"q{n}" for n in range(18)]}
    other = spots(labels, seed=1)[0]
    write_task(tmp_path / "other", other, ["train", "val", "test"] * 6, columns, target="b", metric="auroc")
    result = evaluated("linear_probe", own, tmp_path, [str(tmp_path / "other/store")])
    test = result.external["store"]
    assert test["classes"] == ["b"]
    assert test["own"]["auroc"] == result.metrics["test"]["auroc_b"]
    assert test["metrics"]["auroc"] == test["metrics"]["auroc_b"]


def textures(count):
    """Different images of structures that a fingerprint recognises, uint8 (count, 1, 48, 48)."""
    draw = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(draw.normal(size=(48, 48)), 1.5) for _ in range(count)]
    return np.clip(128 + 90 * np.array(smooth) / 0.2, 0, 255).astype(np.uint8)[:, None]


def test_near_duplicates_of_own_images_are_left_out(tmp_path):
    images = textures(18)
    labels = ["a", "b"] * 6
    columns = {"label": labels, "patient": [f"p{n}" for n in range(12)]}
    own = write_task(tmp_path / "own", images[:12], np.repeat(["train", "val", "test"], 4), columns)
    copies = np.concatenate([images[:2, :, :, ::-1], images[12:16]])
    columns = {"label": ["a", "b"] * 3, "patient": [f"q{n}" for n in range(6)]}
    write_task(tmp_path / "other", copies, ["train", "val", "test"] * 2, columns)
    test = evaluated("knn", own, tmp_path, [str(tmp_path / "other/store")]).external["store"]
    assert test["left_out"] == {"near_duplicates": 2}
    assert test["n"] == {"images": 4, "patients": 4}


@pytest.mark.parametrize("mirrored", [True, False], ids=["near-duplicates", "same pixels"])
def test_a_class_whose_external_images_are_all_left_out_enters_neither_side_of_the_gap(tmp_path, mirrored):
    images = textures(26)
    columns = {"label": ["a", "b", "c"] * 6, "patient": [f"p{n}" for n in range(18)]}
    own = write_task(tmp_path / "own", images[:18], np.repeat(["train", "val", "test"], 6), columns)
    copies = images[[2, 5]]  # of class c
    other = np.concatenate([copies[..., ::-1] if mirrored else copies, images[18:]])
    columns = {"label": ["c", "c", *(["a", "b"] * 4)], "patient": [f"q{n}" for n in range(10)]}
    write_task(tmp_path / "other", other, ["test"] * 10, columns)
    result = evaluated("knn", own, tmp_path, [str(tmp_path / "other/store")])
    test = result.external["store"]
    assert (test["classes"], test["n"]["images"]) == (["a", "b"], 8)
    assert "all its images of class c are left out: metrics and gap are of a, b" in test["notes"]
    predictions = pandas.read_parquet(tmp_path / "result/predictions.parquet")
    kept = predictions[predictions["label"] != "c"]
    right = kept["label"] == kept[["score_a", "score_b", "score_c"]].idxmax(axis=1).str.removeprefix("score_")
    assert test["own"]["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert test["gap"]["accuracy"] == pytest.approx(test["metrics"]["accuracy"] - right.mean(), abs=2e-6)


def test_external_cases_have_the_subgroups_of_the_task_card(tmp_path):
    def task_of(name, count, **columns):
        labels = np.arange(count) // 3 % 2
        columns = {
            "label": np.array(["a", "b"])[labels],
            "patient": [f"{name}{n:02d}" for n in range(count)],
            **columns,
        }
        images, splits = spots(labels, seed=count)[0], ["train", "val", "test"] * (count // 3)
        card = {"metric": "accuracy", "subgroups": ["sex", "site"]} if "site" in columns else {}
        return write_task(tmp_path / name, images, splits, columns, **card)

    own = task_of("own", 24, sex=["F", "M"] * 12, site=["x"] * 24)
    task_of("other", 48, sex=["female"] * 20 + ["male"] * 28)
    result = evaluated("knn", own, tmp_path, [str(tmp_path / "other/store")])
    test = result.external["store"]
    assert list(test["subgroups"]["columns"]) == ["sex"]
    assert "has no column site: no subgroups by it" in test["notes"]
    predictions = pandas.read_parquet(tmp_path / "result/predictions-store.parquet")
    right = predictions["label"] == predictions[["score_a", "score_b"]].idxmax(axis=1).str.removeprefix("score_")
    sex = np.where(predictions["row"] < 20, "F", "M")
    for group in test["subgroups"]["columns"]["sex"]["groups"]:
        assert group["cases"] == (sex == group["value"]).sum()
        assert group["score"] == pytest.approx(right[sex == group["value"]].mean(), abs=1e-6)
        assert group["interval"][0] <= group["score"] <= group["interval"][1]
    assert result.subgroups == evaluated("knn", own, tmp_path / "alone", []).subgroups
    assert as_text({**result.to_json(), "result": "result.json"}).count("accuracy by sex:") == 2
