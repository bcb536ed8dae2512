"""Source classifiers, and the posteriors of source classes that they predict for the images of a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import softmax

from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import BackboneError, StoreError, nearest
from ssl_transfer.evaluation.linear_probe import LinearProbe
from ssl_transfer.measures.standardize import Standardizer
from ssl_transfer.models.backbone import Backbone

MOST_ROWS = 20_000  # images that a head is trained on; of more images, a random sample
LABEL = "label"


@dataclass(frozen=True)
class SourceLabels:
    """A labelled store that backbones may have been pretrained on."""

    store: ImageStore
    column: str

    @classmethod
    def open(cls, spec: str) -> SourceLabels:
        """Open `STORE` or `STORE:COLUMN`.

        Raises:
            StoreError: If there is no such store or column.
        """
        path, column = spec, LABEL
        if ":" in spec and not Path(spec).exists():
            path, _, column = spec.rpartition(":")
        store = ImageStore(path)
        if column not in store.columns:
            raise StoreError(f"--source {spec}: {path} has no column '{column}'.{nearest(column, store.columns)}")
        return cls(store, column)

    @property
    def id(self) -> str:
        """The store's id, with the column."""
        return f"{self.store.id}:{self.column}"

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Training rows with a label, and their labels as text."""
        rows = np.asarray(self.store.positions("train"))
        values = self.store.column(self.column)[rows]
        labelled = np.array([value is not None and value == value for value in values])
        return rows[labelled], values[labelled].astype(str)


@dataclass(frozen=True)
class SourcePosteriors:
    """Probabilities of source classes, (N, S), and the classifier they come from."""

    probabilities: np.ndarray
    origin: str


def source_posteriors(
    backbone: Backbone,
    features: np.ndarray,
    sources: Iterable[SourceLabels],
    extract: Callable[[ImageStore], np.ndarray],
    seed: int,
) -> SourcePosteriors | None:
    """Predict source classes with the classifier of a public backbone, or with a head that is trained on labels of the stores
    that the backbone was pretrained on.

    Args:
        backbone: The backbone; its card names these stores.
        features: Features of the task's images, (N, D).
        sources: Available labelled stores.
        extract: Computes the features of a store, (M, D).
        seed: Seed of the sample of `MOST_ROWS` rows.

    Returns:
        The posteriors; None if there is neither a classifier nor such a store.

    Raises:
        StoreError: If a store has too few patients to train a head.
        BackboneError: If features of a source are NaN or infinite.
    """
    if backbone.classifier is not None:
        weights, biases = backbone.classifier
        return SourcePosteriors(softmax(features.astype(float) @ weights.T + biases, axis=1), "its own classifier")
    used, inputs, classes, groups = [], [], [], []
    for number, source in enumerate(sources):
        rows, names = source.classes()
        if source.store.id in backbone.card.stores and len(set(names)) > 1:
            used.append(source)
            inputs.append(extract(source.store)[rows])
            classes += [f"{number} {name}" for name in names]
            patients = source.store.column("patient")[rows]
            groups += [
                f"{number} {patient if patient is not None else row}"
                for patient, row in zip(patients, rows, strict=True)
            ]
    if not inputs:
        return None
    inputs, classes, groups = np.concatenate(inputs), np.array(classes), np.array(groups)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(inputs))[:MOST_ROWS])
    inputs, classes, groups = inputs[drawn], classes[drawn], groups[drawn]
    if not np.isfinite(inputs).all():
        stores = " and ".join(str(source.store.path) for source in used)
        raise BackboneError(
            f"{backbone.card.name}: some of its features on {stores} are NaN or infinite. Extract them in fp32, or check its "
            "training."
        )
    standardize = Standardizer.of(inputs)
    names = " and ".join(f"{source.store.path} ({source.column})" for source in used)
    try:
        head = LinearProbe(random_state=seed).fit(standardize(inputs), classes, groups=groups)
    except ValueError as error:  # too few patients
        raise StoreError(
            f"--source {names}: no head can be trained on these labels: {str(error).splitlines()[0]}"
        ) from None
    return SourcePosteriors(head.predict_proba(standardize(features)), f"a head trained on the labels of {names}")
