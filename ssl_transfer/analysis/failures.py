"""Do two backbones fail on the same cases? Agreement of their errors, compared with that of independent errors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_transfer.errors import UsageError
from ssl_transfer.measures.resampling import draw_counts, percentile_interval
from ssl_transfer.records import parquet_rows
from ssl_transfer.result import EvalResult

COLUMNS = (
    "task",
    "result_a",
    "result_b",
    "n",
    "patients",
    "wrong_a",
    "wrong_b",
    "both_wrong",
    "by_chance",
    "consistency",
    "consistency_low",
    "consistency_high",
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """A multiclass evaluation with its prediction for each test image.

    Attributes:
        name: Name in tables: backbone and protocol.
        result: Result of the evaluation.
        predictions: Content of `predictions.parquet`.
    """

    name: str
    result: EvalResult
    predictions: pd.DataFrame

    @classmethod
    def open(cls, folders: Sequence[str | Path]) -> list[Predictions]:
        """Read the folders of results. Fraction and seeds are part of the names only if they differ between results.

        Raises:
            UsageError: If a folder has no result, or the result is not of a multiclass task.
        """
        folders = [Path(path).parent if Path(path).name == "result.json" else Path(path) for path in folders]
        results = [EvalResult.load(folder) for folder in folders]
        parts = pd.DataFrame(
            {
                "": [f"{result.backbone['name']}, {result.strategy or result.protocol}" for result in results],
                "fraction ": [f"{result.fraction:g}" for result in results],
                "pretraining seed ": [str(result.pretraining_seed) for result in results],
                "seed ": [str(result.seed) for result in results],
            }
        )
        needed = [word for word in parts if word == "" or parts[word].nunique() > 1]
        names = [", ".join(f"{word}{row[word]}" for word in needed) for row in parts.to_dict("records")]
        labels = [(result.task["name"], name) for result, name in zip(results, names, strict=True)]
        names = [
            f"{label[1]} ({folder})" if labels.count(label) > 1 else label[1]
            for label, folder in zip(labels, folders, strict=True)
        ]
        for position, result in enumerate(results):
            if result.run_id in [earlier.run_id for earlier in results[:position]]:
                raise UsageError(f"results: {folders[position]} was named already, or is a copy. Leave one out.")
        return [
            cls(name, result, _predictions(folder))
            for name, result, folder in zip(names, results, folders, strict=True)
        ]


def _predictions(folder: Path) -> pd.DataFrame:
    path = folder / "predictions.parquet"
    if not path.exists():
        raise UsageError(f"{path}: there are no predictions. Name the folder of a result that `evaluate` wrote.")
    predictions = parquet_rows(path, UsageError, "Evaluate again.")
    _correctness(predictions, str(folder))
    return predictions


def failures(evaluations: Sequence[Predictions], resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`shared_failures` of every two evaluations of the same task: a row per pair, columns `COLUMNS`."""
    rows = []
    for first, second in itertools.combinations(evaluations, 2):
        if first.result.task["name"] == second.result.task["name"]:
            shared = asdict(shared_failures(first.predictions, second.predictions, resamples, seed))
            (wrong_a, wrong_b), (low, high) = shared.pop("wrong"), shared.pop("interval")
            names = {"task": first.result.task["name"], "result_a": first.name, "result_b": second.name}
            edges = {"consistency_low": low, "consistency_high": high}
            rows.append({**names, **shared, "wrong_a": wrong_a, "wrong_b": wrong_b, **edges})
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class SharedFailures:
    """Errors of two evaluations on the cases that both have.

    Attributes:
        n, patients: Number of cases, and of patients (of cases, if patients are unknown).
        wrong: Error rate of the first, and of the second.
        both_wrong: Share of cases in which both are wrong.
        by_chance: Expected `both_wrong` with independent errors.
        consistency: Error consistency κ = (observed − expected) / (1 − expected) agreement on correctness: 0 for independent
            errors, 1 for errors on the same cases, below 0 for errors on different cases.
        interval: 95 % bootstrap interval of κ over patients; NaN if κ is undefined in every sample.
    """

    n: int
    patients: int
    wrong: tuple[float, float]
    both_wrong: float
    by_chance: float
    consistency: float
    interval: tuple[float, float]


def shared_failures(first: pd.DataFrame, second: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> SharedFailures:
    """Compare two evaluations of one task on the images that both have.

    Args:
        first: `predictions.parquet` of a multiclass evaluation: row, patient, label, score_CLASS.
        second: The predictions of another backbone.
        resamples: Number of bootstrap samples of patients.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: If a table has no class predictions, or the two share no image or disagree on a label.

    Source:
        Geirhos et al. 2020, https://arxiv.org/abs/2006.16736 (error consistency).
    """
    sides = [_correctness(frame, name) for frame, name in ((first, "the first table"), (second, "the second table"))]
    both = sides[0].join(sides[1], how="inner", lsuffix="_one", rsuffix="_other")
    if not len(both):
        raise UsageError(
            "shared failures: the two evaluations have no image in common. Were they on one task and split?"
        )
    if (both["label_one"] != both["label_other"]).any():
        raise UsageError("shared failures: the two evaluations disagree on labels. Were they on one task?")
    correct = both[["right_one", "right_other"]].to_numpy(bool)
    patient = both["patient_one"].astype(object).where(both["patient_one"].notna(), both.index.astype(str))
    codes = pd.factorize(patient)[0]
    weights = np.vstack([np.ones(len(codes)), *draw_counts(codes, resamples, seed)])
    total = weights.sum(1)
    share = [weights @ side / total for side in correct.T]
    observed = weights @ (correct[:, 0] == correct[:, 1]) / total
    expected = share[0] * share[1] + (1 - share[0]) * (1 - share[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (observed - expected) / (1 - expected)
    wrong = float(1 - share[0][0]), float(1 - share[1][0])
    return SharedFailures(
        len(both),
        int(codes.max() + 1),
        wrong,
        float((~correct).all(1).mean()),
        wrong[0] * wrong[1],
        float(kappa[0]),
        percentile_interval(kappa[1:]),
    )


def _correctness(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Label, patient, and whether the predicted class is correct, for each image."""
    scores = frame.filter(like="score_")
    key = "group" if "group" in frame else "row"
    if "label" not in frame or key not in frame or not scores.shape[1]:
        raise UsageError(f"shared failures: {name} lacks row, label or score_CLASS. Is the task multiclass?")
    likeliest = scores.columns.str.removeprefix("score_").to_numpy()[scores.to_numpy().argmax(1)]
    predicted = frame.get("predicted", pd.Series(likeliest)).to_numpy()  # of grades, the median is predicted
    table = pd.DataFrame({"label": frame["label"].astype(str), "patient": frame["patient"]})
    return table.assign(right=predicted == table["label"]).set_axis(frame[key], axis=0)
