"""Do two backbones fail on the same cases? Agreement of errors against what independent errors would give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_transfer.errors import UsageError
from ssl_transfer.measures.resampling import draw_counts, percentile_interval
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
        name: As tables call it: backbone and protocol.
        result: Of the evaluation.
        predictions: `predictions.parquet`.
    """

    name: str
    result: EvalResult
    predictions: pd.DataFrame

    @classmethod
    def open(cls, folders: Sequence[str | Path]) -> list[Predictions]:
        """Read the folders of results. Names contain fraction and seeds only if they differ.

        Raises:
            UsageError: If one is no result, or not one of classes.
        """
        folders = [Path(one).parent if Path(one).name == "result.json" else Path(one) for one in folders]
        results = [EvalResult.load(folder) for folder in folders]
        parts = pd.DataFrame(
            {
                "": [f"{one.backbone['name']}, {one.strategy or one.protocol}" for one in results],
                "fraction ": [f"{one.fraction:g}" for one in results],
                "pretraining seed ": [str(one.pretraining_seed) for one in results],
                "seed ": [str(one.seed) for one in results],
            }
        )
        needed = [word for word in parts if word == "" or parts[word].nunique() > 1]
        names = [", ".join(f"{word}{row[word]}" for word in needed) for row in parts.to_dict("records")]
        labels = [(one.task["name"], name) for one, name in zip(results, names, strict=True)]
        names = [
            f"{label[1]} ({folder})" if labels.count(label) > 1 else label[1]
            for label, folder in zip(labels, folders, strict=True)
        ]
        for position, one in enumerate(results):
            if one.run_id in [other.run_id for other in results[:position]]:
                raise UsageError(f"results: {folders[position]} was named already, or is a copy. Leave one out.")
        return [
            cls(name, result, _predictions(folder))
            for name, result, folder in zip(names, results, folders, strict=True)
        ]


def _predictions(folder: Path) -> pd.DataFrame:
    path = folder / "predictions.parquet"
    if not path.exists():
        raise UsageError(f"{path}: there are no predictions. Name the folder of a result that `evaluate` wrote.")
    predictions = pd.read_parquet(path)
    _judged(predictions, str(folder))
    return predictions


def failures(evaluations: Sequence[Predictions], resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`shared_failures` of every two evaluations of one task, a row each, columns `COLUMNS`."""
    rows = []
    for one, other in itertools.combinations(evaluations, 2):
        if one.result.task["name"] == other.result.task["name"]:
            shared = asdict(shared_failures(one.predictions, other.predictions, resamples, seed))
            (wrong_a, wrong_b), (low, high) = shared.pop("wrong"), shared.pop("interval")
            names = {"task": one.result.task["name"], "result_a": one.name, "result_b": other.name}
            edges = {"consistency_low": low, "consistency_high": high}
            rows.append({**names, **shared, "wrong_a": wrong_a, "wrong_b": wrong_b, **edges})
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class SharedFailures:
    """Errors of two evaluations on the cases that both have scored.

    Attributes:
        n, patients: How many cases, of how many patients (cases, where patients are unknown).
        wrong: Share of cases that the first, and the second, gets wrong.
        both_wrong: Share that both do.
        by_chance: What that share would be if their errors were independent.
        consistency: Error consistency κ = (observed − expected) / (1 − expected) agreement on right or wrong: 0 independent, 1
            the same cases, below 0 the other one's.
        interval: 95 % of κ over resampled patients; NaN where every resample is undefined.
    """

    n: int
    patients: int
    wrong: tuple[float, float]
    both_wrong: float
    by_chance: float
    consistency: float
    interval: tuple[float, float]


def shared_failures(one: pd.DataFrame, other: pd.DataFrame, resamples: int = 1000, seed: int = 0) -> SharedFailures:
    """Compare two evaluations of one task on the images that both have scored.

    Args:
        one: `predictions.parquet` of an evaluation of classes: row, patient, label, score_CLASS.
        other: Of another backbone.
        resamples: Of patients.
        seed: Of them.

    Raises:
        UsageError: If one of them is no table of class predictions, they share no image, or disagree on a label.

    Source:
        Geirhos et al. 2020, https://arxiv.org/abs/2006.16736 (error consistency).
    """
    sides = [_judged(frame, name) for frame, name in ((one, "the first table"), (other, "the second table"))]
    both = sides[0].join(sides[1], how="inner", lsuffix="_one", rsuffix="_other")
    if not len(both):
        raise UsageError(
            "shared failures: the two evaluations have no image in common. Were they on one task and split?"
        )
    if (both["label_one"] != both["label_other"]).any():
        raise UsageError("shared failures: the two evaluations disagree on labels. Were they on one task?")
    right = both[["right_one", "right_other"]].to_numpy(bool)
    patient = both["patient_one"].astype(object).where(both["patient_one"].notna(), both.index.astype(str))
    codes = pd.factorize(patient)[0]
    weights = np.vstack([np.ones(len(codes)), *draw_counts(codes, resamples, seed)])
    total = weights.sum(1)
    share = [weights @ side / total for side in right.T]
    observed = weights @ (right[:, 0] == right[:, 1]) / total
    expected = share[0] * share[1] + (1 - share[0]) * (1 - share[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = (observed - expected) / (1 - expected)
    wrong = float(1 - share[0][0]), float(1 - share[1][0])
    return SharedFailures(
        len(both),
        int(codes.max() + 1),
        wrong,
        float((~right).all(1).mean()),
        wrong[0] * wrong[1],
        float(kappa[0]),
        percentile_interval(kappa[1:]),
    )


def _judged(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """By image: label, patient, and whether the likeliest class is right."""
    scores = frame.filter(like="score_")
    if "label" not in frame or "row" not in frame or not scores.shape[1]:
        raise UsageError(f"shared failures: {name} has no row, label and score_CLASS: is it of a task of classes?")
    likeliest = scores.columns.str.removeprefix("score_").to_numpy()[scores.to_numpy().argmax(1)]
    judged = pd.DataFrame({"label": frame["label"].astype(str), "patient": frame["patient"]})
    return judged.assign(right=likeliest == judged["label"]).set_axis(frame["row"], axis=0)
