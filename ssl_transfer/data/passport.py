"""The passport of a backbone: which images and patients it was trained on, in all stages, without the images themselves.

It lies beside the weights (`passport/`), so that an evaluation can tell which of its test cases were seen in pretraining, on a
machine that has never had the pretraining stores. Each store is a `TrainingRecord` of plain `.npy` arrays: hashes of the
patients (of the keyed hashes that ingest wrote), digests of the pixels, and fingerprints (see `measures.fingerprint`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.data.images import Images
from ssl_transfer.data.neighbours import slices_of
from ssl_transfer.data.store import ImageStore
from ssl_transfer.domains import Domain, boundary
from ssl_transfer.errors import BackboneError
from ssl_transfer.measures.fingerprint import FINGERPRINT_BYTES, LEAST_SIDE
from ssl_transfer.run import read_json, write_json

SCHEMA = 3  # 2: digests of pixels are SHA-256; 3: fingerprints of the content
FOLDER = "passport"  # in the folder of a backbone
ROWS_AT_ONCE = 65_536
EMPTY_BYTES = 128  # header of a `.npy` file: NumPy cannot map a file without values
ARRAYS: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
    "patients": (np.dtype("<u8"), ()),
    "digests": (np.dtype("<u8"), ()),
    "fingerprints": (np.dtype("u1"), (FINGERPRINT_BYTES,)),
}
Blocks = Callable[[str], Iterator[np.ndarray]]  # name of an array -> its blocks, in order


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """The training images of one store.

    Attributes:
        store: Id of the store.
        domain: Domain of its images.
        images: Number of training images.
        patients: Number of their distinct patients; None if one or more are unknown.
        patient_key: Which key the patients were hashed with (`pseudonyms.key_digest`); None: a store that was not ingested.
        blocks: Name of an array -> its blocks: `patients` (distinct, ascending) and `digests` (ascending; without images that
            have no content, which are equal in all archives), uint64 (n,), and `fingerprints`, uint8 (n, FINGERPRINT_BYTES).
    """

    store: str
    domain: str
    images: int
    patients: int | None
    patient_key: str | None
    blocks: Blocks

    @classmethod
    def of_store(cls, store: Images, positions: np.ndarray) -> TrainingRecord:
        """The record of some images of a store; nothing is read of the images but their rows.

        Args:
            store: A store, or an altered one.
            positions: Positions of the training images, ascending; with slices as channels, these are recorded, too.
        """
        positions = slices_of(store, positions)
        known = store.card.n_patients is not None
        patients = len(np.unique(store.column("patient")[positions].astype(str))) if known else None
        return cls(
            store=store.card.id,
            domain=store.card.domain,
            images=len(positions),
            patients=patients,
            patient_key=store.card.patient_key,
            blocks=partial(_blocks_of_store, store.path, np.asarray(positions)),
        )

    def shares_hashes_with(self, store: Images) -> bool:
        """Whether equal hashes of patients, here and in a store, mean one patient: one key, and domains of one family.

        Archives of different families (CT, cell lines) number their subjects alike, and have none in common.
        """
        same_key = self.patient_key == store.card.patient_key
        return same_key and boundary(Domain.parse(self.domain), store.domain) != "hard"

    def array(self, name: str) -> np.ndarray:
        """A whole array, in memory."""
        dtype, shape = ARRAYS[name]
        return np.concatenate([np.empty((0, *shape), dtype), *self.blocks(name)])

    def facts(self) -> dict[str, Any]:
        """What `passport.json` has of it."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "blocks"}


@dataclass(frozen=True, eq=False)
class Passport:
    """The training records of a backbone, of all stages of its training.

    Attributes:
        records: One per store and set of images.
        id: Hash of the content; empty until it is saved. Two passports with one id are equal.
    """

    records: tuple[TrainingRecord, ...] = ()
    id: str = ""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Passport) and bool(self.id) and self.id == other.id)

    def __hash__(self) -> int:
        return hash(self.id or id(self))

    def __deepcopy__(self, memo: dict) -> Passport:
        return self  # a copy of a backbone has the same history

    @property
    def stores(self) -> set[str]:
        """Ids of its stores."""
        return {record.store for record in self.records}

    def with_records(self, *records: TrainingRecord) -> Passport:
        """This passport and further records; those with the images of one that it has already are left out."""
        kept = [*self.records]
        for record in records:
            if not any(_same_images(record, earlier) for earlier in kept):
                kept.append(record)
        return Passport(tuple(kept))

    def save(self, folder: Path) -> str | None:
        """Write `passport/` into a backbone's folder.

        Returns:
            Hash of the content, for the card of the backbone; None if there are no records, and nothing was written.
        """
        if not self.records:
            return None
        (folder / FOLDER).mkdir()
        digest = hashlib.blake2b(digest_size=16)
        for number, record in enumerate(self.records):
            digest.update(repr(sorted(record.facts().items())).encode())
            for name in ARRAYS:
                for block in _written(folder / FOLDER / f"{number:03d}-{name}.npy", name, record.blocks(name)):
                    digest.update(block.data)
        identity = digest.hexdigest()
        content = {"schema": SCHEMA, "kind": "passport", "id": identity}
        write_json(folder / FOLDER / "passport.json", {**content, "records": [r.facts() for r in self.records]})
        return identity

    def content_digest(self) -> str:
        """Hash of the records and their arrays, as `save` returns it."""
        digest = hashlib.blake2b(digest_size=16)
        for record in self.records:
            digest.update(repr(sorted(record.facts().items())).encode())
            for name in ARRAYS:
                for block in record.blocks(name):
                    digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: Path, identity: str | None) -> Passport:
        """Open the passport in a backbone's folder; its arrays are read when they are needed.

        Args:
            folder: Folder of the backbone.
            identity: Its hash in the card of the backbone; None: the backbone has no passport.

        Raises:
            BackboneError: If it is missing, damaged, or that of another backbone.
        """
        if identity is None:
            return cls()
        folder = folder / FOLDER
        content = read_json(folder / "passport.json") or {}
        if content.get("kind") == "passport" and content.get("schema") != SCHEMA:
            raise BackboneError(
                f"{folder}: found a passport of schema {content.get('schema')}, this version reads {SCHEMA}: its digests or "
                "fingerprints of the training images cannot be compared with those of this version. Ingest its training images "
                "again and pretrain again, or read it with the version that wrote it."
            )
        if content.get("kind") != "passport" or content.get("id") != identity:
            raise BackboneError(
                f"{folder}: found no passport {identity}, which the card of this backbone names: it says which images the "
                "backbone was trained on. Copy the whole folder of the backbone again."
            )
        try:
            records = [
                TrainingRecord(**facts, blocks=partial(_blocks_of_folder, folder, number))
                for number, facts in enumerate(content["records"])
            ]
            for number, record in enumerate(records):
                _check_arrays(folder, number, record)
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise BackboneError(
                f"{folder}: is damaged ({error}). Copy the whole folder of the backbone again."
            ) from None
        return cls(tuple(records), identity)


def hashed_patients(patients: np.ndarray) -> np.ndarray:
    """A number for each patient, uint64 (n,): the hash of what the column `patient` of a store has."""
    names, codes = np.unique(patients.astype(str), return_inverse=True)
    hashes = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.tolist()]
    return np.frombuffer(b"".join(hashes), "<u8")[codes] if len(names) else np.empty(0, "<u8")


def hashed_pixels(digests: np.ndarray) -> np.ndarray:
    """A number for each value of the column `pixel_digest`, uint64 (n,): its first 16 hex digits."""
    return np.frombuffer(bytes.fromhex("".join(digest[:16] for digest in digests)), ">u8").astype("<u8")


def _same_images(record: TrainingRecord, earlier: TrainingRecord) -> bool:
    return record.facts() == earlier.facts() and np.array_equal(record.array("digests"), earlier.array("digests"))


def _blocks_of_store(path: Path, positions: np.ndarray, name: str) -> Iterator[np.ndarray]:
    """Blocks of an array of a record, from the store itself."""
    store = ImageStore(path)
    if name == "patients":
        patients = store.column("patient")[positions]
        known = np.array([patient is not None and patient == patient for patient in patients], bool)
        yield np.unique(hashed_patients(patients[known]))
    elif name == "digests":
        digests = store.column("pixel_digest")[positions]
        if min(store.shape[1:]) >= LEAST_SIDE:
            digests = digests[np.concatenate([codes.any(1) for codes in _fingerprints(store, positions)])]
        yield np.sort(hashed_pixels(digests))
    else:
        yield from _fingerprints(store, positions)


def _fingerprints(store: ImageStore, positions: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(positions), ROWS_AT_ONCE):
        yield store.fingerprints(positions[start : start + ROWS_AT_ONCE])


def _blocks_of_folder(folder: Path, number: int, name: str) -> Iterator[np.ndarray]:
    """Blocks of an array of a record, from a saved passport."""
    array = _opened(folder, number, name)
    for start in range(0, len(array), ROWS_AT_ONCE):
        yield np.array(array[start : start + ROWS_AT_ONCE])


def _opened(folder: Path, number: int, name: str) -> np.ndarray:
    """An array of a saved passport, memory-mapped unless it is empty."""
    path = folder / f"{number:03d}-{name}.npy"
    empty = path.stat().st_size <= EMPTY_BYTES
    return np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)


def _written(path: Path, name: str, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Write blocks to a `.npy` file, and yield each."""
    dtype, shape = ARRAYS[name]
    with open(path, "wb") as file:
        header: dict[str, Any] = {"descr": dtype.str, "fortran_order": False}
        np.lib.format.write_array_header_1_0(
            file, {**header, "shape": (2**31, *shape)}
        )  # NumPy leaves room to rewrite it
        count = 0
        for block in blocks:
            block = np.ascontiguousarray(block, dtype)
            file.write(block.data)
            count += len(block)
            yield block
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *shape)})


def _check_arrays(folder: Path, number: int, record: TrainingRecord) -> None:
    """Raise ValueError if an array has another dtype or shape than its record says."""
    for name, (dtype, shape) in ARRAYS.items():
        array = _opened(folder, number, name)
        length = record.images if name == "fingerprints" else min(len(array), record.images)
        if array.dtype != dtype or array.shape != (length, *shape):
            raise ValueError(
                f"{number:03d}-{name}.npy has {array.dtype} {array.shape}, expected {dtype} {(length, *shape)}"
            )
