"""A control: labels exchanged between patients, from which nothing can be learnt."""

from __future__ import annotations

import numpy as np

from ssl_transfer.data.splits import permuted_labels
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import TaskError

NOTE = "a control: labels of training and validation images were permuted between patients"


def with_permuted_labels(task: Task, rows: dict[str, np.ndarray], seed: int) -> Task:
    """The task with labels permuted within the training rows and within the validation rows; those of test stay.

    Validation labels are permuted too: selecting among models by true labels would keep what agrees with them by chance. Images
    of a group with one label (`target_of`) keep a common label: the labels of groups move between patients.

    Args:
        task: A task whose target belongs to images.
        rows: Split -> positions of its images.
        seed: Fixes the permutations.

    Raises:
        TaskError: If the target is the mask.
    """
    if task.kind == "segmentation":
        raise TaskError(f"task {task.name}: permute_labels is for targets of images, and this is segmentation.")
    labels, patients = task.labels.copy(), task.groups()
    for number, split in enumerate(("train", "val")):
        positions = rows[split]
        bags = task.bags(positions)
        first = positions[bags.first]
        labels[positions] = permuted_labels(labels[first], patients[first], (seed, number))[bags.codes]
    return task.with_labels(labels)
