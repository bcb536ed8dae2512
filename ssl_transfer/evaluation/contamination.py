"""Contamination: which test cases the backbone has seen in any stage of its training, and the metrics on the others.

A test image was seen if a training image has the same patient (keyed hash), the same pixels (digest), or is a near-duplicate of
it (fingerprint). The training images are those of the backbone's passport; public weights have none, so that the statement on
their test cases is `unknown`.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from ssl_transfer.data.altered import SelectedRows
from ssl_transfer.data.display import SCALED_RANGE
from ssl_transfer.data.images import Images
from ssl_transfer.data.passport import SCHEMA, Passport, hashed_patients, hashed_pixels
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.tasks import Task
from ssl_transfer.evaluation.segment import cases_of
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.measures.fingerprint import CODE_BYTES, query
from ssl_transfer.measures.near_duplicates import RULES, has_content, near_duplicates
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.recipe import digest
from ssl_transfer.run import claimed

EVIDENCE = ("patient", "pixels", "near")
NOT_SEEN, UNKNOWN = "no", "unknown"
KEPT = Path("runs/contamination")  # in the working folder, as cached features
WORTH_KEEPING = 10**8  # pairs of a test image and a training image: seconds
READ_AT_ONCE, SEARCHED_AT_ONCE = 256, 4096  # images; codes of the latter take 55 MB
MOST_KEPT = 110 * 10**6  # bytes of codes
_codes: OrderedDict[tuple[Path, str, bytes], np.ndarray] = OrderedDict()  # kept by `_queries`
SAMPLED = 200  # of images outside of test, near-duplicates of so many are searched; the others are compared by patient and pixels


@dataclass(frozen=True, eq=False)
class SeenImages:
    """Which of some images of a store were among the training images of a passport.

    Attributes:
        patient, pixels, near: Whether a training image has the patient, the pixels, or is a near-duplicate; bool (n,).
        patients_compared: Whether patients are known on both sides, hashed with one key.
        without_content: Number of images without a fingerprint, such as empty ones: near-duplicates of them are not searched.
    """

    patient: np.ndarray
    pixels: np.ndarray
    near: np.ndarray
    patients_compared: bool
    without_content: int

    @property
    def any(self) -> np.ndarray:
        """Whether there is any evidence, bool (n,)."""
        return self.patient | self.pixels | self.near


@dataclass(frozen=True, eq=False)
class Contamination:
    """What an evaluation states of its test cases.

    Attributes:
        seen_in_pretraining: Whether an image or a patient of the task's store was seen; `unknown` if none is known to be, and
            some training images are unknown.
        cases: Test case -> its evidence joined by `+` (`patient+near`), `no`, or `unknown`.
        summary: `contamination` of `result.json`.
    """

    seen_in_pretraining: bool | str
    cases: dict[str, str]
    summary: dict[str, Any]

    def with_statements(self, predictions: pandas.DataFrame) -> pandas.DataFrame:
        """The predictions with the column `seen_in_pretraining`."""
        keys = CasePredictions(predictions).cases
        return predictions.assign(seen_in_pretraining=[self.cases[key] for key in keys.tolist()])


def contamination(
    backbone: Backbone,
    task: Task,
    rows: np.ndarray,
    predictions: pandas.DataFrame,
    metrics: dict[str, float],
    temperature: float | None = None,
) -> Contamination:
    """Compare the test cases of an evaluation with the training images of its backbone, in all stages.

    Args:
        backbone: The backbone as it was before the evaluation.
        task: The task.
        rows: Positions of the test images in its store, (n,).
        predictions: Content of `predictions.parquet`.
        metrics: Test metrics of all cases.
        temperature: Of temperature scaling, for the metrics after it.
    """
    unknown = unknown_stages(backbone)
    compared = backbone.passport, task.store.path, task.store.card.id, np.asarray(rows, np.int64).tobytes()
    images, others = _seen_images(*compared), _seen_others(*compared)
    evidence = _evidence(task, rows, predictions, images)
    seen = np.array([bool(kinds) for kinds in evidence.values()])
    cases = CasePredictions(predictions, replace(task.scoring, temperature=temperature))
    anything = bool(images.any.any() or others.any.any() or set(backbone.card.stores) & {task.store.card.id})
    comparable = images.patients_compared or not backbone.card.history  # nothing was seen without any training
    summary: dict[str, Any] = {
        "cases": len(evidence),
        "images": len(rows),
        "seen": int(seen.sum()),
        "patient": sum("patient" in kinds for kinds in evidence.values()) if comparable else None,
        **{kind: sum(kind in kinds for kinds in evidence.values()) for kind in ("pixels", "near")},
        "unknown": int((~seen).sum()) if unknown else 0,
        "unknown_stages": list(unknown),
        "without_content": images.without_content,
        "other_images": {"images": len(others.any), "seen": int(others.any.sum())},
        "metrics_clean": _clean_metrics(cases, evidence, metrics, bool(unknown)),
    }
    otherwise = UNKNOWN if unknown else NOT_SEEN
    return Contamination(
        seen_in_pretraining=anything or (UNKNOWN if unknown else False),
        cases={case: "+".join(kinds) or otherwise for case, kinds in evidence.items()},
        summary=summary,
    )


def cases_seen(passport: Passport, task: Task, rows: np.ndarray, predictions: pandas.DataFrame) -> dict[str, list[str]]:
    """Test case -> the kinds of evidence, of `EVIDENCE`, that a passport has its images; see `contamination`."""
    images = _seen_images(passport, task.store.path, task.store.card.id, np.asarray(rows, np.int64).tobytes())
    return _evidence(task, rows, predictions, images)


def seen_images(backbone: Backbone, store: Images, rows: np.ndarray) -> SeenImages:
    """Which images of a store a backbone has seen, by its passport; near-duplicates of a seeded sample of 200 are searched.

    Args:
        backbone: With its passport.
        store: The store, or some of its rows.
        rows: Positions of the images in it, (n,).
    """
    whole, positions = ImageStore(store.path), np.asarray(rows, np.int64)
    if isinstance(store, SelectedRows):
        positions = store.selected[positions]
    return _seen_sampled(backbone.passport, whole.path, whole.card.id, positions.tobytes())


def unknown_stages(backbone: Backbone) -> tuple[str, ...]:
    """Names of the trainings of a backbone whose images nothing is known of: public weights, and stores without a record."""
    known = backbone.passport.stores
    return tuple(
        stage.name for stage in backbone.card.history if not stage.images or not known.issuperset(stage.images)
    )


def case_positions(task: Task, rows: np.ndarray, predictions: pandas.DataFrame) -> dict[str, np.ndarray]:
    """Test case, as `CasePredictions.cases` names it -> positions of its images in `rows`."""
    if CasePredictions(predictions).segmentation:
        order = np.argsort(rows)
        return {name: order[np.searchsorted(rows, of_case, sorter=order)] for name, of_case, _ in cases_of(task, rows)}
    if task.group_names is not None:
        bags = task.bags(rows)
        return {str(name): np.flatnonzero(bags.codes == code) for code, name in enumerate(bags.names)}
    return {str(row): np.array([position]) for position, row in enumerate(rows)}


def _evidence(task: Task, rows: np.ndarray, predictions: pandas.DataFrame, images: SeenImages) -> dict[str, list[str]]:
    """Test case -> kinds of its evidence; a case was seen if one of its images was."""
    return {
        name: [kind for kind in EVIDENCE if getattr(images, kind)[positions].any()]
        for name, positions in case_positions(task, rows, predictions).items()
    }


def _clean_metrics(
    cases: CasePredictions, evidence: dict[str, list[str]], metrics: dict[str, float], unknown: bool
) -> dict[str, float] | None:
    """Test metrics of the cases that are not known to be seen; None if there are none, or nothing is known of any case."""
    seen = {case for case, kinds in evidence.items() if kinds}
    if not seen:
        return None if unknown else metrics
    if len(seen) == len(evidence):
        return None
    clean = np.array([case not in seen for case in cases.cases.tolist()], float)
    values = cases.metrics(clean[:, None])
    return {name: float(values[name][0]) for name in metrics}


@lru_cache(maxsize=8)
def _seen_images(passport: Passport, path: Path, identity: str, rows: bytes) -> SeenImages:
    """Which images (positions, int64 as bytes) of a store (path, id) are known to a passport; a sweep asks for them again.

    A search that takes minutes is kept for other runs in `runs/contamination/`.
    """
    positions = np.frombuffer(rows, np.int64)
    compare = partial(_compare, passport, ImageStore(path), positions)
    pairs = len(positions) * sum(record.images for record in passport.records)
    if pairs < WORTH_KEEPING or not passport.id:
        return compare()
    name = digest(
        {
            "schema": SCHEMA,  # of the codes
            "passport": passport.id,
            "store": identity,
            "rows": hashlib.blake2b(rows, digest_size=16).hexdigest(),
            "rules": RULES,
        }
    )
    kept = KEPT / f"{name}.npz"
    with claimed(kept.with_suffix(".lock")):
        return _read(kept) or _keep(kept, compare())


@lru_cache(maxsize=8)
def _seen_others(passport: Passport, path: Path, identity: str, rows: bytes) -> SeenImages:
    """Which of all other images of the store are known to the passport; near-duplicates of a seeded sample are searched."""
    others = np.setdiff1d(np.arange(len(ImageStore(path))), np.frombuffer(rows, np.int64))
    return _seen_sampled(passport, path, identity, others.tobytes())


@lru_cache(maxsize=8)
def _seen_sampled(passport: Passport, path: Path, identity: str, rows: bytes) -> SeenImages:
    """Which images of a store are known to a passport; near-duplicates of a seeded sample are searched."""
    positions = np.frombuffer(rows, np.int64)
    sampled = np.zeros(len(positions), bool)
    sampled[np.random.default_rng(0).permutation(len(positions))[:SAMPLED]] = True
    return _compare(passport, ImageStore(path), positions, sampled)


def _read(path: Path) -> SeenImages | None:
    """A kept search; None if there is none, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return SeenImages(
                **{kind: arrays[kind] for kind in EVIDENCE},
                patients_compared=bool(arrays["patients_compared"]),
                without_content=int(arrays["without_content"]),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _keep(path: Path, seen: SeenImages) -> SeenImages:
    partial_file = path.with_suffix(".partial")
    with open(partial_file, "wb") as file:
        np.savez(file, **vars(seen))
    os.replace(partial_file, path)
    return seen


def _compare(passport: Passport, store: ImageStore, rows: np.ndarray, sampled: np.ndarray | None = None) -> SeenImages:
    """Compare images of a store with the records of a passport.

    Args:
        passport: Training records.
        store: The store.
        rows: Positions of the images, (n,).
        sampled: Which of them are searched for near-duplicates, bool (n,); None: all.
    """
    seen = {kind: np.zeros(len(rows), bool) for kind in EVIDENCE}
    if not passport.records:
        return SeenImages(**seen, patients_compared=False, without_content=0)
    searched = np.ones(len(rows), bool) if sampled is None else sampled
    compared = [record.shares_hashes_with(store) for record in passport.records]
    patients = store.column("patient")[rows]
    has_patient, hashes = np.asarray(pandas.notna(patients)), hashed_patients(patients)
    digests = hashed_pixels(store.column("pixel_digest")[rows])
    for record, comparable in zip(passport.records, compared, strict=True):
        if comparable:
            seen["patient"] |= has_patient & np.isin(hashes, record.array("patients"))
        seen["pixels"] |= np.isin(digests, record.array("digests"))
    seen["near"][searched], without_content = _near(passport, store, rows[searched])
    comparable = bool(any(compared) and has_patient.any())
    return SeenImages(**seen, patients_compared=comparable, without_content=without_content)


def _near(passport: Passport, store: ImageStore, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Which images of a store are near-duplicates of training images, bool (n,), and the number of images without content."""
    near, without_content = np.zeros(len(rows), bool), 0
    for start in range(0, len(rows), SEARCHED_AT_ONCE):
        part = slice(start, start + SEARCHED_AT_ONCE)
        queries = _queries(store.path, store.card.id, np.ascontiguousarray(rows[part]).tobytes())
        without_content += int((~has_content(queries)).sum())
        for record in passport.records:
            left = np.flatnonzero(~near[part])
            known = partial(record.blocks, "fingerprints")
            near[start + left] = near_duplicates(queries[left], known, partial(_image, store, rows[part][left]))
    return near, without_content


def _queries(path: Path, identity: str, rows: bytes) -> np.ndarray:
    """Codes of images of a store (path, id) that are to be recognised, uint8 (n, V, CODE_BYTES), for all backbones of a study.

    Those asked for last are kept, up to `MOST_KEPT` bytes: of several targets in turn, where test sets are small.
    """
    key = path, identity, rows
    if key not in _codes:
        _codes[key] = _computed_queries(ImageStore(path), np.frombuffer(rows, np.int64))
    _codes.move_to_end(key)
    while len(_codes) > 1 and sum(codes.nbytes for codes in _codes.values()) > MOST_KEPT:
        _codes.popitem(last=False)
    return _codes[key]


def _computed_queries(store: ImageStore, positions: np.ndarray) -> np.ndarray:
    parts = [
        query(_as_ingested(store, image))
        for start in range(0, len(positions), READ_AT_ONCE)
        for image in store.read(positions[start : start + READ_AT_ONCE])
    ]
    return np.stack(parts) if parts else np.zeros((0, 1, CODE_BYTES), np.uint8)


def _image(store: ImageStore, positions: np.ndarray, number: int) -> np.ndarray:
    return _as_ingested(store, store[int(positions[number])])


def _as_ingested(store: ImageStore, image: np.ndarray) -> np.ndarray:
    """An image of a store as ingest makes its fingerprint."""
    return np.clip(image, *SCALED_RANGE) if store.units == "scaled" else image
