"""Groups of images with one label: which they are, that labels agree, and that fractions count them."""

import numpy as np
import pytest
from support.groups import SLICES, lesion_task
from support.tiny_tasks import spots, write_task

from ssl_transfer.data.groups import Bags
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import TaskError


def task_of(folder, target_of, labels, **columns):
    """A task of six images, two per patient."""
    columns = {"label": labels, "patient": ["a", "a", "b", "b", "c", "c"], **columns}
    splits = ["train", "train", "val", "val", "test", "test"]
    return write_task(folder, spots([0] * 6)[0], splits, columns, target_of=target_of)


def test_an_image_without_a_label_has_that_of_its_patient(tmp_path):
    task = task_of(tmp_path, "patient", ["x", None, "y", "y", None, None])
    assert list(task.labels) == [0, 0, 1, 1, -1, -1]
    assert list(task.bags(np.arange(4)).codes) == [0, 0, 1, 1]


def test_contradicting_labels_are_refused_with_their_counts(tmp_path):
    task = task_of(tmp_path, "patient", ["x", "y", "y", "y", "x", "y"])
    with pytest.raises(TaskError, match=r"2 of 3 patients have contradicting labels: a \(1 x, 1 y\), c \(1 x, 1 y\)"):
        _ = task.labels


def test_series_of_a_patient_may_differ_and_need_a_name(tmp_path):
    task = task_of(tmp_path / "a", "series", ["x", "y", "y", "y", "x", "y"], series=list("112233"))
    with pytest.raises(TaskError, match="2 of 3 series have contradicting labels"):
        _ = task.labels
    task = task_of(tmp_path / "b", "series", ["x", "y", "y", "y", "x", "y"], series=list("121212"))
    assert list(task.bags(np.arange(6)).names) == ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"]
    with pytest.raises(TaskError, match="knows no studies"):
        _ = task_of(tmp_path / "c", "study", ["x", "y", "y", "y", "x", "y"]).labels


def test_labels_of_several_columns_agree_label_by_label(tmp_path):
    columns = {"a": [1, None, 0, 0, 1, 1], "b": [0, 0, 1, 0, 1, 1], "patient": list("ppqqrr")}
    card = {"target": ["a", "b"], "metric": "auroc", "target_of": "patient"}
    task = write_task(tmp_path, spots([0] * 6)[0], ["train", "train", "val", "val", "test", "test"], columns, **card)
    with pytest.raises(TaskError, match=r"1 of 3 patients have contradicting labels of b: q \(1 0, 1 1\)"):
        _ = task.labels


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_fractions_are_of_groups_and_whole(tmp_path, fraction):
    task = lesion_task(tmp_path)
    chosen, every = task.rows("train", fraction, 0), task.rows("train")
    groups = set(task.patients[chosen].tolist())
    assert len(groups) == round(fraction * len(set(task.patients[every].tolist())))
    assert len(chosen) == SLICES * len(groups)
    assert task.count(chosen) == {"images": len(chosen), "patients": len(groups), "groups": len(groups)}


def test_the_id_of_a_card_without_groups_is_that_of_older_versions(tmp_path):
    card = lesion_task(tmp_path).card
    assert card.identity()["target_of"] == "patient"
    assert "target_of" not in Task.opened("task", card.model_copy(update={"target_of": None})).card.identity()


def test_groups_are_sorted_by_name_whatever_the_order_of_images():
    bags = Bags.of(np.array(["b", "a", "b", "c"], object))
    assert (list(bags.names), list(bags.codes), list(bags.first)) == (["a", "b", "c"], [1, 0, 1, 2], [1, 0, 3])
    assert list(bags.sizes) == [1, 2, 1]
