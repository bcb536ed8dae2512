"""Tables of predictions: a row per image and a row per patient, or a row per group of images with one prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas

from ssl_transfer.data.groups import Bags
from ssl_transfer.data.images import Images
from ssl_transfer.measures.classification import PREDICTED_ABOVE, decided_classes
from ssl_transfer.target_kinds import KINDS

PREFIX = "score_"  # of the columns with probabilities, as in the predictions of an evaluation
LOCATING = ("file", "patient", "study", "series", "volume", "slice", "frame")  # columns that say which image it is


def image_table(store: Images, predictions: np.ndarray, classes: Sequence[str], kind: str) -> pandas.DataFrame:
    """A row per image: what says which image it is, the probability of each class, and what is predicted.

    Args:
        store: The images.
        predictions: Of each image, probabilities (N, C); or numbers or log hazards (N,).
        classes: Names of the classes, grades or labels.
        kind: Kind of the task. `predicted` is the most probable class, the median grade, every label above 0.5 joined by `|`, or
            the number; the log hazard of survival is in `risk`.
    """
    columns = {name: store.column(name) for name in LOCATING if name in store.columns}
    table = pandas.DataFrame({"image": np.arange(len(store)), **columns})
    return _with_predictions(table, predictions, classes, kind)


def group_table(
    store: Images, bags: Bags, rows: np.ndarray, predictions: np.ndarray, classes: Sequence[str], kind: str
) -> pandas.DataFrame:
    """A row per patient, study or series: its name, its patient, number of images, and what `image_table` has of predictions.

    Args:
        store: The images.
        bags: Their groups.
        rows: Positions of the images that are in a group.
        predictions, classes, kind: See `image_table`, of the groups.
    """
    patients = store.column("patient")[rows[bags.first]] if "patient" in store.columns else None
    table = pandas.DataFrame({"group": bags.names, "patient": patients, "images": bags.sizes})
    return _with_predictions(table, predictions, classes, kind)


def patient_table(images: pandas.DataFrame, classes: Sequence[str], kind: str) -> pandas.DataFrame:
    """A row per known patient: number of images, means over them of what `image_table` has, and what is predicted."""
    scores = KINDS[kind].number or [f"{PREFIX}{name}" for name in classes]
    known = images[images["patient"].notna()] if "patient" in images else images.iloc[:0].assign(patient=None)
    groups = known.groupby("patient", sort=True)
    table = groups.size().rename("images").reset_index()
    return _with_predictions(table, groups[scores].mean().to_numpy(), classes, kind)


def _with_predictions(
    table: pandas.DataFrame, predictions: np.ndarray, classes: Sequence[str], kind: str
) -> pandas.DataFrame:
    if (number := KINDS[kind].number) is not None:
        return table.assign(**{number: predictions})
    probabilities = predictions
    scores = pandas.DataFrame(probabilities, columns=[f"{PREFIX}{name}" for name in classes])
    names = np.array(classes, object)
    if kind == "multilabel":
        predicted = ["|".join(names[row > PREDICTED_ABOVE]) for row in probabilities]
    else:
        predicted = names[decided_classes(probabilities, kind == "ordinal")].tolist() if len(probabilities) else []
    return pandas.concat([table, scores], axis=1).assign(predicted=predicted)
