"""Permuted labels, a control: training and validation labels move between patients, those of test stay."""

import numpy as np
import pytest
from support.tiny_tasks import class_task, mask_task, write_task

from ssl_transfer.errors import TaskError
from ssl_transfer.evaluation.permutation import with_permuted_labels
from ssl_transfer.evaluation.stage import evaluate, probe


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Two classes of different brightness."""
    return class_task(tmp_path_factory.mktemp("task"), train=200, held_out=100)


def rows(task):
    return {split: task.rows(split) for split in ("train", "val", "test")}


def test_labels_move_within_training_and_within_validation_rows(task):
    permuted = with_permuted_labels(task, rows(task), 0)
    for split in ("train", "val"):
        before, after = (each.labels[rows(task)[split]] for each in (task, permuted))
        assert not np.array_equal(before, after) and np.array_equal(np.sort(before), np.sort(after))
    assert np.array_equal(task.labels[rows(task)["test"]], permuted.labels[rows(task)["test"]])


def test_the_task_itself_keeps_its_labels(task):
    before = task.labels.copy()
    with_permuted_labels(task, rows(task), 0)
    assert np.array_equal(task.labels, before)


def test_rows_of_a_fraction_permute_among_themselves(task):
    chosen = {**rows(task), "train": task.rows("train", 0.1, 0)}
    permuted, others = with_permuted_labels(task, chosen, 0), np.setdiff1d(task.rows("train"), chosen["train"])
    assert np.array_equal(permuted.labels[others], task.labels[others])


def test_nothing_can_be_learnt_from_them(task, tmp_path):
    true = probe("trivial", task, out=tmp_path / "true", resamples=0)
    aurocs = [
        probe("trivial", task, seed=seed, out=tmp_path / str(seed), resamples=0, permute_labels=True).metrics["test"][
            "auroc"
        ]
        for seed in range(12)
    ]
    assert true.metrics["test"]["auroc"] == 1
    assert abs(np.mean(aurocs) - 0.5) < 4 * np.std(aurocs, ddof=1) / np.sqrt(len(aurocs))


KINDS = {  # card -> metric whose chance is known, and chance
    "multiclass": ({"target": "label"}, "auroc", 0.5),
    "multilabel": ({"target": ["bright", "large"]}, "auroc", 0.5),
    "ordinal": ({"target": "ordinal", "column": "grade"}, "auroc", 0.5),
    "regression": ({"target": "regression", "column": "age"}, "spearman", 0.0),
    "survival": ({"target": "survival", "time": "days", "event": "died"}, "c_index", 0.5),
}
PATIENTS, SLICES = 64, 4


def cohort(folder, kind, **card):
    """Patients with two series of two slices each; targets of a series follow its brightness."""
    draw = np.random.default_rng(0)
    level = np.repeat(2 * draw.random(2 * PATIENTS), 2)
    series = np.arange(PATIENTS * SLICES) // 2
    images = 40 + 80 * level[:, None, None, None] + 20 * draw.random((len(level), 1, 16, 16))
    columns = {
        "label": np.where(level > 1, "a", "b"),
        "bright": (level > 1).astype(int),
        "large": (level > 0.5).astype(int),
        "grade": np.floor(level * 1.5).astype(int),
        "age": np.round(30 + 20 * level, 1),
        "days": np.round(100 - 40 * level, 1),
        "died": np.where(series % 3, "yes", "no"),
        "patient": [f"p{n // SLICES}" for n in range(len(level))],
        "study": [f"s{n // SLICES}" for n in range(len(level))],
        "series": [f"s{n}" for n in series],
    }
    splits = np.array(["train", "train", "val", "test"])[np.arange(len(level)) // SLICES % 4]
    stated, metric, _ = KINDS[kind]
    return write_task(folder, images.astype(np.uint8), splits, columns, **{**stated, "metric": metric, **card})


@pytest.mark.parametrize(
    ("kind", "grouped"), [*((kind, kind == "survival") for kind in KINDS), ("multiclass", True), ("ordinal", True)]
)
def test_of_no_kind_of_target_anything_can_be_learnt(kind, grouped, tmp_path):
    task, (_, metric, chance) = cohort(tmp_path, kind, **({"target_of": "series"} if grouped else {})), KINDS[kind]
    settings = {"resamples": 0, "strengths": (0.1,), **({"group_pool": ["mean"]} if grouped else {})}
    true = probe("trivial", task, out=tmp_path / "true", features=tmp_path / "f", **settings)
    permuted = [
        probe("trivial", task, 1.0, n, out=tmp_path / f"{n}", features=tmp_path / "f", permute_labels=True, **settings)
        for n in range(6)
    ]
    values = [result.metrics["test"][metric] for result in permuted]
    assert abs(true.metrics["test"][metric] - chance) > 0.35
    assert abs(np.mean(values) - chance) < 4 * np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_groups_stay_together_and_move_between_patients(kind, tmp_path):
    task = cohort(tmp_path, kind, target_of="series")
    permuted = with_permuted_labels(task, rows(task), 0)
    for split in ("train", "val"):
        bags, positions = task.bags(rows(task)[split]), rows(task)[split]
        labels, before = permuted.labels[positions], task.labels[positions][bags.first]
        assert np.array_equal(labels, labels[bags.first][bags.codes])
        assert np.array_equal(np.sort(labels[bags.first], 0), np.sort(before, 0)) and not np.array_equal(
            labels[bags.first], before
        )


def test_a_result_says_that_its_labels_were_permuted(task, tmp_path):
    results = [
        probe("trivial", task, out=tmp_path / str(permuted), resamples=0, permute_labels=permuted)
        for permuted in (True, False)
    ]
    assert "a control: labels of training and validation images were permuted between patients" in results[0].notes
    assert results[0].settings["permute_labels"] and "permute_labels" not in results[1].settings
    assert results[0].run_id != results[1].run_id


def test_masks_are_not_permuted(tmp_path):
    with pytest.raises(TaskError, match="permute_labels is for targets of images"):
        evaluate("segment", "scratch:resnet10t", mask_task(tmp_path), tmp_path / "result", permute_labels=True)
