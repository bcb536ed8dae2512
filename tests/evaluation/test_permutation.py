"""Permuted labels, a control: training and validation labels move between patients, those of test stay."""

import numpy as np
import pytest
from support.tiny_tasks import class_task, mask_task

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
