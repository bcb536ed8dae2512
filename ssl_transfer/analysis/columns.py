"""What is known of the images beside their pixels: columns of a store that neighbours, probes and colours may go by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError, nearest

FILES = ("pixel_digest", "mask_digest", "file")  # one to each image: they say nothing of it
KEYS = ("patient", "study", "series", "slice", "split")  # who and where, not what: `slice_position` has its own meaning
MOST_NUMBERS = 30  # different values above which a column of numbers has no equals to look for


def described(store: ImageStore, asked_for: Sequence[str] = ()) -> pd.DataFrame:
    """The columns that say something of an image, one row each: of several values, and not those of a column before it.

    Args:
        store: Whose columns.
        asked_for: Columns that are to be among them.

    Raises:
        UsageError: If the store has none of that name, or it has one value only.
    """
    table = pd.DataFrame({name: store.column(name) for name in store.columns if name not in FILES})
    for name in asked_for:
        if name not in table:
            raise UsageError(f"{store.path}: there is no column '{name}' to go by.{nearest(name, map(str, table))}")
        if table[name].nunique(dropna=True) < 2:
            raise UsageError(
                f"{store.path}: column '{name}' has a single value or none, so no two images differ in it."
            )
    codes = {name: pd.factorize(table[name])[0] for name in table if table[name].nunique(dropna=True) > 1}
    kinds = {own.tobytes(): name for name, own in reversed(codes.items())}  # the first of each kind
    return table[[name for name, own in codes.items() if kinds[own.tobytes()] == name or name in asked_for]]


def shared(table: pd.DataFrame, chosen: Sequence[str] | None) -> list[str]:
    """Columns by which images can be alike: words of which most come twice, numbers of few values; or those asked for."""
    if chosen is not None:
        return list(dict.fromkeys(chosen))
    found = []
    for name in table:
        values = table[name].dropna()
        different = values.nunique()
        numbers = pd.api.types.is_numeric_dtype(values.infer_objects()) and different > MOST_NUMBERS
        if name != "slice" and not numbers and different <= len(values) / 2:
            found.append(name)
    return found


def patients_of(store: ImageStore) -> np.ndarray:
    """Patient of each row; a row of its own where unknown."""
    patients = pd.Series(store.column("patient"), dtype=object)
    return patients.where(patients.notna(), [f"image {row}" for row in range(len(patients))]).to_numpy(object)


def drawn_sample(groups: np.ndarray, images: int, seed: int) -> np.ndarray:
    """Rows of whole patients, drawn until there are so many images, in random order."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(groups)[0]
    order = rng.permutation(codes.max() + 1)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    total = np.cumsum(np.bincount(place[codes]))
    last = int(np.searchsorted(total, min(images, len(codes))))
    return rng.permutation(np.flatnonzero(place[codes] <= last))
