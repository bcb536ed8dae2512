"""Columns of a store that describe its images: they are compared between neighbours, probed, and shown as colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssl_transfer.data.demographics import are_ages
from ssl_transfer.data.images import Images
from ssl_transfer.data.subgroups import subgroup_names
from ssl_transfer.errors import UsageError, nearest

FILES = ("pixel_digest", "mask_digest", "file")  # unique for each image
KEYS = ("patient", "study", "series", "slice", "split")  # identifiers; `slice_position` is a property
NUISANCES = (  # columns of an acquisition, which should not decide about a label
    *("manufacturer", "scanner_model", "scanner", "site", "kernel", "kvp", "slice_thickness_mm"),
    *("contrast", "view_position", "patient_position"),
)
MOST_NUMBERS = 30  # distinct values; in a numeric column with more, equal values mean little


def descriptive_columns(store: Images, requested: Sequence[str] = ()) -> pd.DataFrame:
    """The columns that describe images, a row per image: those that vary and do not merely recode an earlier column.

    Args:
        store: The store.
        requested: Columns that must be included.

    Raises:
        UsageError: If the store lacks a requested column, or the column has a single value.
    """
    table = pd.DataFrame({name: store.column(name) for name in store.columns if name not in FILES})
    for name in requested:
        if name not in table:
            raise UsageError(f"{store.path}: there is no column '{name}'.{nearest(name, map(str, table))}")
        if table[name].nunique(dropna=True) < 2:
            raise UsageError(f"{store.path}: column '{name}' has fewer than two values, so no two images differ in it.")
    codes = {name: pd.factorize(table[name])[0] for name in table if table[name].nunique(dropna=True) > 1}
    first_of = {factor.tobytes(): name for name, factor in reversed(codes.items())}  # the first column with these codes
    return table[[name for name, factor in codes.items() if first_of[factor.tobytes()] == name or name in requested]]


def repeating_columns(table: pd.DataFrame, requested: Sequence[str] | None) -> list[str]:
    """The requested columns, or those whose values repeat: on average at least twice, and at most 30 different numbers."""
    if requested is not None:
        return list(dict.fromkeys(requested))
    names = []
    for name in table:
        values = table[name].dropna()
        distinct = values.nunique()
        many_numbers = pd.api.types.is_numeric_dtype(values.infer_objects()) and distinct > MOST_NUMBERS
        if name != "slice" and not many_numbers and distinct <= len(values) / 2:
            names.append(name)
    return names


def in_order(columns: list[str], requested: Sequence[str]) -> list[str]:
    """The columns of an explorer, which opens with the first: the requested ones, the others, and the splits at the end."""
    last = [name for name in ("split",) if name in columns]
    return list(dict.fromkeys([*requested, *(name for name in columns if name not in last), *last]))


def nuisance_columns(table: pd.DataFrame, requested: Sequence[str] | None, domain: str | None) -> list[str]:
    """The columns that should not decide about a label: the requested ones, or the domain and those of `NUISANCES`."""
    names = requested if requested is not None else [domain, *NUISANCES]
    return [name for name in dict.fromkeys(names) if name in table]


def with_age_bands(table: pd.DataFrame) -> pd.DataFrame:
    """A table of images with ages in bands of five years, as it may be passed on: `90+` joins the oldest."""
    ages = [name for name in table if are_ages(str(name), pd.to_numeric(table[name], errors="coerce").dropna())]
    return table.assign(**{str(name): subgroup_names(str(name), table[name].to_numpy(object)) for name in ages})


def patients_of(store: Images) -> np.ndarray:
    """Patient of each row; a row with an unknown patient is its own group."""
    patients = pd.Series(store.column("patient"), dtype=object)
    return patients.where(patients.notna(), [f"image {row}" for row in range(len(patients))]).to_numpy(object)


def sample_of_patients(groups: np.ndarray, images: int, seed: int) -> np.ndarray:
    """Rows of randomly drawn patients, in random order; patients are drawn until they have at least `images` images."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(groups)[0]
    order = rng.permutation(codes.max() + 1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    total = np.cumsum(np.bincount(rank[codes]))
    last = int(np.searchsorted(total, min(images, len(codes))))
    return rng.permutation(np.flatnonzero(rank[codes] <= last))
