"""Features from a file in place of a backbone: `features:FILE.parquet|.npz`, for 3-D encoders, closed models and other programs.

A file has one row per image, file or series of a store, with the key of the row and its feature vector. Parquet: one column with
the key, and a numeric column per dimension, or one column `features` of lists. npz: an array of keys, and `features` (N, D). The
name of the key says what it is:

- `file` (in npz `files`: `numpy.savez` takes no array of that name): path below the source, as `ingest` saw it; a store with
  hashed names is matched by the keyed hash of the path
- `series`: series id, raw or as stored; several rows of a series are averaged
- `image`: `pixel_digest` of the image
- `row`: number of the image in the store, from 0

Every image gets the vector of its key, so that all slices of a series have the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ssl_transfer.cards import BackboneCard, TrainingStage, lineage
from ssl_transfer.data.altered import AlteredStore, NoisyStore
from ssl_transfer.data.images import Images
from ssl_transfer.data.ingest.pseudonyms import KEY_VARIABLE, file_pseudonym, key_digest, pseudonym
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.domains import UNKNOWN, Domain
from ssl_transfer.errors import BackboneError, UsageError, nearest
from ssl_transfer.records import parquet_rows

PREFIX = "features:"
ARCHITECTURE = "features"  # of their card
STORE = "{store}"  # in a path: the name of the store's folder
KEYS = {"file": "file", "series": "series", "image": "pixel_digest", "row": None}  # key -> column of a store
VALUES = "features"
SETTINGS = ("domain", "method")
_SHOWN = 3  # keys in a message


class GivenFeatures(nn.Module):
    """Stands where a model does; it has features of images that it never sees."""

    def __init__(self, path: Path, dim: int):
        super().__init__()
        self.path, self.num_features = path, dim

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Refuse images.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{PREFIX}{self.path}: {WITHOUT_IMAGES}")

    def of(self, store: Images) -> np.ndarray:
        """The vector of every image of a store, float32 (N, D).

        Raises:
            UsageError: If the images are altered by noise, or keys of the file and the store differ.
        """
        return FeatureFile.read(self.path).of(store)


WITHOUT_IMAGES = (
    "these are features, not a backbone: nothing can be trained, and no other image can be computed. They serve linear_probe, "
    "knn, rank, analyze and studies of these."
)


@dataclass(frozen=True)
class FeatureFile:
    """The content of a file of features.

    Attributes:
        path: The file.
        key: A key of `KEYS`.
        keys: Key of each row, (N,).
        values: Feature vectors, float32 (N, D).
    """

    path: Path
    key: str
    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def read(cls, path: Path) -> FeatureFile:
        """Read a Parquet or npz file.

        Raises:
            BackboneError: If it is none, has no key or several, or no finite vectors, or states a key twice.
        """
        readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {".parquet": _parquet, ".npz": _npz}
        if path.suffix not in readers:
            raise BackboneError(f"{PREFIX}{path}: expected a .parquet or .npz file.")
        if not path.is_file():
            raise BackboneError(f"{PREFIX}{path}: no such file.")
        columns = readers[path.suffix](path)
        found = [name for name in KEYS if name in columns]
        if len(found) != 1:
            raise BackboneError(
                f"{PREFIX}{path}: found {' and '.join(found) or 'none'} of the keys {', '.join(KEYS)}; expected one. Columns: "
                f"{', '.join(list(columns)[:8])}."
            )
        keys, values = columns.pop(found[0]), _vectors(path, columns)
        if len(keys) != len(values):
            raise BackboneError(f"{PREFIX}{path}: found {len(keys)} keys and {len(values)} vectors.")
        return cls(path, found[0], keys, values)._checked()

    def _checked(self) -> FeatureFile:
        broken = np.flatnonzero(~np.isfinite(self.values).all(1))
        if len(broken):
            raise BackboneError(
                f"{PREFIX}{self.path}: {len(broken)} vectors are NaN or infinite (first: {self.key} {self.keys[broken[0]]})."
            )
        names, counts = np.unique(self.keys.astype(str), return_counts=True)
        if self.key != "series" and counts.max(initial=0) > 1:
            raise BackboneError(
                f"{PREFIX}{self.path}: {self.key} {names[counts.argmax()]} occurs {counts.max()} times."
            )
        if not len(names):
            raise BackboneError(f"{PREFIX}{self.path}: has no rows.")
        return self

    def of(self, store: Images) -> np.ndarray:
        """The vector of every image of a store, see `GivenFeatures.of`."""
        whole, selected = _whole(self.path, store)
        wanted = self._wanted(whole)
        names, values = self._by_key()
        stored = set(wanted)
        translated = [self._as_stored(name, stored) for name in names]
        position = {name: number for number, name in enumerate(translated) if name is not None}
        missing = list(dict.fromkeys(name for name in wanted if name not in position))
        surplus = [name for name, found in zip(names, translated, strict=True) if found not in stored]
        if missing or surplus:
            raise UsageError(self._difference(whole, missing, surplus))
        rows = np.array([position[name] for name in wanted])
        return values[rows if selected is None else rows[selected]]

    def _by_key(self) -> tuple[list[str], np.ndarray]:
        """Distinct keys and their vectors; the mean of the rows of a series."""
        names, codes = np.unique(self.keys.astype(str), return_inverse=True)
        if len(names) == len(self.keys):
            return self.keys.astype(str).tolist(), self.values
        sums = np.zeros((len(names), self.values.shape[1]))
        np.add.at(sums, codes, self.values)
        return names.tolist(), (sums / np.bincount(codes)[:, None]).astype(np.float32)

    def _wanted(self, store: Images) -> list[str]:
        """The key of each image of a store, as the store has it.

        Raises:
            UsageError: If the store has none.
        """
        column = KEYS[self.key]
        if column is None:
            return [str(number) for number in range(len(store))]
        if column not in store.columns:
            raise UsageError(
                f"{PREFIX}{self.path}: its key is {self.key}, and {store.path} has no column {column}. Use the key image or row."
            )
        return [str(value) for value in store.column(column)]

    def _as_stored(self, name: str, stored: set[str]) -> str | None:
        """A key as the store has it, also if it is hashed there; None if the store does not have it."""
        hashed = {"file": lambda: file_pseudonym(name), "series": lambda: pseudonym("series", name)}.get(self.key)
        if name in stored:
            return name
        other = hashed() if hashed else None
        return other if other in stored else None

    def _difference(self, store: Images, missing: Sequence[str], surplus: Sequence[str]) -> str:
        """What the file lacks and what the store lacks, in words."""
        parts = [
            f"{len(keys)} {self.key} keys of {where} ({', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''})"
            for keys, where in (
                (missing, f"the store {store.path} are missing"),
                (surplus, "the file are not in the store"),
            )
            if keys
        ]
        hint = ""
        if self.key in ("file", "series") and len(surplus) == len(set(self.keys.astype(str))):
            hint = " Paths are those below the ingested source."
            if store.card.patient_key not in (None, key_digest()):
                hint += f" The store was hashed with another {KEY_VARIABLE}: set it as it was then."
        return f"{PREFIX}{self.path}: {'; '.join(parts)}.{hint} One row for every {self.key} of the store is expected."


def given_card(spec: str, store: Images) -> tuple[GivenFeatures, BackboneCard]:
    """Features of a store from a file, and their card.

    Args:
        spec: `features:FILE[,domain=DOMAIN][,method=METHOD]`: what the encoder was trained on, where it is known. `{store}` in
            FILE stands for the name of the store's folder.
        store: The store.

    Raises:
        BackboneError: If the file cannot be read, or a setting does not exist.
        UsageError: If its keys are not those of the store.
    """
    text, *settings = spec.removeprefix(PREFIX).split(",")
    stated = dict.fromkeys(SETTINGS, UNKNOWN)
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in stated:
            raise BackboneError(f"{spec}: no setting '{key}'.{nearest(key, SETTINGS)}")
        stated[key] = value
    path = Path(text.replace(STORE, Path(store.path).name))
    file = FeatureFile.read(path)
    file.of(store)  # differing keys are refused at once
    dim = file.values.shape[1]
    domain = " + ".join(str(Domain.parse(part)) for part in stated["domain"].split(" + "))
    stage = TrainingStage(name=path.stem, method=stated["method"], domain=domain, images={})
    digest = hashlib.blake2b(f"{domain} {stated['method']}".encode() + path.read_bytes(), digest_size=8)
    channels, height, width = store.shape
    card = BackboneCard(
        name=Path(text).stem.replace(STORE, "").strip("_-. ") or path.parent.name,
        architecture=ARCHITECTURE,
        in_channels=channels,
        image_size=max(height, width),
        stem="standard",
        options={},
        feature_dim=dim,
        intensity=Intensity(mean=(0.5,) * channels, std=(0.25,) * channels),
        method=stated["method"],
        **lineage(stage),
        licence="not known",
        id=digest.hexdigest(),
    )
    return GivenFeatures(path, dim), card


def _whole(path: Path, store: Images) -> tuple[Images, np.ndarray | None]:
    """The whole store of a view, and the selected rows (None: all).

    Raises:
        UsageError: If the view adds noise.
    """
    selected: np.ndarray | None = None
    while isinstance(store, AlteredStore):
        if isinstance(store, NoisyStore):
            raise UsageError(f"{PREFIX}{path}: noise needs images. {WITHOUT_IMAGES}")
        rows = getattr(store, "selected", None)
        if rows is not None:
            selected = rows if selected is None else rows[selected]
        store = store.store
    return store, selected


def _parquet(path: Path) -> dict[str, np.ndarray]:
    table = parquet_rows(path, BackboneError, "Write the file again.")
    return {str(name): table[name].to_numpy() for name in table.columns}


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {"file" if name == "files" else name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile and numpy raise errors of their own
        text = " ".join(str(error).split())[:200]
        raise BackboneError(f"{PREFIX}{path}: cannot be read: {text}. Write the file again.") from None


def _vectors(path: Path, columns: dict[str, np.ndarray]) -> np.ndarray:
    """The vectors (N, D) of a file's other columns.

    Raises:
        BackboneError: If they are not numbers.
    """
    try:
        if VALUES in columns:
            values = np.stack(list(columns[VALUES])) if columns[VALUES].dtype == object else columns[VALUES]
            others = [name for name in columns if name != VALUES]
        else:
            values, others = np.stack([column.astype(np.float32) for column in columns.values()], 1), []
        values = np.asarray(values, np.float32)
    except (ValueError, TypeError):
        raise BackboneError(
            f"{PREFIX}{path}: expected numbers in every column besides the key, or one column {VALUES} of equally long lists."
        ) from None
    if others or values.ndim != 2 or not values.shape[1]:
        raise BackboneError(
            f"{PREFIX}{path}: expected {VALUES} of shape (N, D) and the key; found {values.shape} and "
            f"{', '.join(others) or 'no more'}."
        )
    return values
