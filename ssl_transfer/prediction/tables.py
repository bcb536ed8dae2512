"""Tables of predictions: a row per image, and a row per patient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas

from ssl_transfer.data.images import Images

PREFIX = "score_"  # of the columns with probabilities, as in the predictions of an evaluation
LOCATING = ("file", "patient", "study", "series", "volume", "slice", "frame")  # columns that say which image it is
LABEL_ABOVE = 0.5  # multi-label: a label is predicted if it is more probable than not


def image_table(store: Images, probabilities: np.ndarray, classes: Sequence[str], multilabel: bool) -> pandas.DataFrame:
    """A row per image: what says which image it is, the probability of each class, and the predicted class.

    Args:
        store: The images.
        probabilities: Of each image, shape (N, C).
        classes: Names of the classes or labels.
        multilabel: Whether the prediction is every label above 0.5, joined by `|`, and not the most probable class.
    """
    columns = {name: store.column(name) for name in LOCATING if name in store.columns}
    table = pandas.DataFrame({"image": np.arange(len(store)), **columns})
    return _with_scores(table, probabilities, classes, multilabel)


def patient_table(images: pandas.DataFrame, classes: Sequence[str], multilabel: bool) -> pandas.DataFrame:
    """A row per known patient: number of images, mean probability of each class over them, and the predicted class."""
    scores = [f"{PREFIX}{name}" for name in classes]
    known = images[images["patient"].notna()] if "patient" in images else images.iloc[:0].assign(patient=None)
    groups = known.groupby("patient", sort=True)
    table = groups.size().rename("images").reset_index()
    return _with_scores(table, groups[scores].mean().to_numpy(), classes, multilabel)


def _with_scores(
    table: pandas.DataFrame, probabilities: np.ndarray, classes: Sequence[str], multilabel: bool
) -> pandas.DataFrame:
    scores = pandas.DataFrame(probabilities, columns=[f"{PREFIX}{name}" for name in classes])
    names = np.array(classes, object)
    if multilabel:
        predicted = ["|".join(names[row > LABEL_ABOVE]) for row in probabilities]
    else:
        predicted = names[probabilities.argmax(1)].tolist() if len(probabilities) else []
    return pandas.concat([table, scores], axis=1).assign(predicted=predicted)
