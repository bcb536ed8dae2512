"""A made study with declared contrasts: a gate that is passed, and a primary contrast of each outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ssl_transfer.cost import Cost
from ssl_transfer.study.declared import DeclaredContrast
from ssl_transfer.study.report.evidence import Evidence, Provenance, Scope
from ssl_transfer.study.statistics import Decision, decide
from ssl_transfer.study.table import COLUMNS, SCRATCH

LOOKS = (4, 6, 8, 12, 16)
MARGIN = 0.02
# Arm -> (mean at 10 % of the labels, boundary to CT slices)
ARMS = {
    "CT": (0.80, "none"),
    "photographs": (0.74, "hard"),
    "cell lines": (0.782, "hard"),
    "CT + photographs": (0.80, "none"),
    SCRATCH: (0.66, SCRATCH),
}
ARM_SD = {"CT + photographs": 0.006}  # others: 0.02


def declared_frame(arms=ARMS, seeds: int = 12, draws: int = 4, seed: int = 1) -> pd.DataFrame:
    """A tidy frame: linear probe and kNN on two targets with 10 % and all labels; draws are shared by the arms."""
    rng = np.random.default_rng(seed)
    rows = []
    for protocol, task, fraction in [
        ("linear_probe", "body_region", 0.1),
        ("linear_probe", "body_region", 1.0),
        ("knn", "body_region", 0.1),
        ("linear_probe", "chest_xray", 0.1),
    ]:
        shared = rng.normal(0, 0.03, (seeds, draws))
        for arm, (mean, boundary) in arms.items():
            pretraining = rng.normal(0, ARM_SD.get(arm, 0.02), (seeds, 1))
            values = mean + 0.1 * (fraction - 0.1) + shared + pretraining + rng.normal(0, 0.01, (seeds, draws))
            of_task = boundary if task == "body_region" or arm == SCRATCH else {"none": "soft"}.get(boundary, boundary)
            rows += [
                (
                    protocol,
                    arm,
                    task,
                    None,
                    fraction,
                    p,
                    s,
                    "balanced_accuracy",
                    min(value, 0.999),
                    of_task,
                    f"{arm}{p}",
                    "none",
                    0.0,
                )
                for (p, s), value in np.ndenumerate(values)
            ]
    columns = [*COLUMNS][: [*COLUMNS].index("noise_sigma") + 1]
    return pd.DataFrame(rows, columns=columns).reindex(columns=[*COLUMNS]).astype(COLUMNS)


def contrast(a: str, b: str, tasks=("body_region",), **more: Any) -> DeclaredContrast:
    """A declared contrast of two pretrainings by linear probe with 10 % of the labels."""
    fields = {"protocol": "linear_probe", "metric": "balanced_accuracy", "fractions": (0.1,), **more}
    return DeclaredContrast({"pretraining": a}, {"pretraining": b}, tasks, **fields)


def declared_decisions(frame: pd.DataFrame, **options: Any) -> list[Decision]:
    """The gate and three primary contrasts of the frame."""
    primaries = [contrast("CT", b) for b in ("photographs", "cell lines", "CT + photographs")]
    return decide(frame, contrast("CT", SCRATCH), primaries, **{"looks": LOOKS, "margin": MARGIN, **options})


def declared_evidence(
    frame: pd.DataFrame | None = None, decisions: list[Decision] | None = None, **changes: Any
) -> Evidence:
    """Everything that the report of such a study is made of; `changes` replace fields of the evidence."""
    frame = declared_frame() if frame is None else frame
    provenance = Provenance(
        title="Does in-domain pretraining pay off?",
        question="For body regions in CT slices, is a backbone pretrained on CT better than one pretrained on other images?",
        design={"Pretraining": "simclr, resnet50, 224 px"},
        cost=[("pretrain", Cost(seconds=41_000.0)), ("linear_probe", Cost(seconds=3_600.0))],
        environment={"python": "3.11"},
        methods_text="We pretrained.",
        commands=["ssl-transfer study report studies/declared"],
        warnings=["Phantoms are drawn."],
        scope=Scope(
            architectures=("resnet50",),
            methods=("simclr",),
            sizes=(224,),
            generated=("ct",),
            test={"body_region": (168, 7), "chest_xray": (600, None)},
            classes={"body_region": 6},
        ),
    )
    arms = [{"name": arm, "images": 12_800, "steps": 4_000} for arm in dict.fromkeys(frame["pretraining"])]
    fields: dict[str, Any] = {
        "primaries": [
            {"protocol": "linear_probe", "metric": "balanced_accuracy", "fraction": 0.1, "task": "body_region"}
        ],
        "provenance": provenance,
        "decisions": declared_decisions(frame) if decisions is None else decisions,
        "arms": arms,
        "margin": MARGIN,
        "relevant": MARGIN,
    }
    return Evidence(frame=frame, **{**fields, **changes})
