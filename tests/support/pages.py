"""Reports of small studies made on the spot, and a browser to look at them."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image
from support.tidy import tidy_frame

from ssl_transfer.cost import Cost
from ssl_transfer.measures.case_predictions import CasePredictions
from ssl_transfer.study.report.evidence import Attachment, Evidence, Provenance
from ssl_transfer.study.report.page import write_report
from ssl_transfer.study.statistics import PredictedRun
from ssl_transfer.study.table import SCRATCH

PRIMARY = {"protocol": "linear_probe", "metric": "auroc", "fraction": 0.1}


def study(gains: dict[str, float]) -> pd.DataFrame:
    """A tidy frame of some arms, four pretraining seeds, two protocols, two fractions, two metrics."""
    rng = np.random.default_rng(0)
    boundary = {"in-domain CT": "none", "photographs": "hard", SCRATCH: "unknown"}
    rows = [
        (
            protocol,
            arm,
            "body_region",
            None,
            fraction,
            seed,
            0,
            metric,
            0.7 + gain + rng.normal(0, 0.01),
            boundary[arm],
            "r",
            "none",
            0.0,
        )
        for protocol in ("linear_probe", "knn")
        for arm, gain in gains.items()
        for fraction in (0.1, 1.0)
        for seed in range(4)
        for metric in ("auroc", "accuracy")
    ]
    return tidy_frame(rows)


def build(out, frame, primary=PRIMARY, **changes):
    """Write a report into a folder; `changes` are fields of its `Evidence` or `Provenance`."""
    Image.new("RGB", (8, 8), "teal").save(out / "umap.png")
    fields = {field.name for field in dataclasses.fields(Provenance)}
    made = {
        "title": "Does it <pay>?",
        "question": "Is CT better?",
        "attachments": [Attachment("UMAP", "Test slices.", out / "umap.png")],
        "design": {"Method": "SimCLR"},
        "missing": ["photographs, seed 3: failed"],
        "cost": [
            ("pretraining", Cost(640, 20, flops=1_230_000).lasting(61.0, gpus=1)),
            ("evaluation", Cost(seconds=2.0)),
        ],
        "environment": {"python": "3.11"},
        "methods_text": "We pretrained.",
        "warnings": ["Phantoms are drawn."],
        "commands": ["ssl-transfer quickstart"],
        **{name: value for name, value in changes.items() if name in fields},
    }
    arms = [{"name": arm, "images": 640} for arm in frame["pretraining"].unique()]
    given = {"arms": arms, **{name: value for name, value in changes.items() if name not in fields}}
    primaries = [primary] if isinstance(primary, dict) else primary
    return write_report(out, Evidence(frame=frame, primaries=primaries, provenance=Provenance(**made), **given))


def browse(page, profile) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and what the browser logged."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    )
    command = [shutil.which("chromium"), *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout, done.stderr


def whole_study(
    arms=("CT · small", "CT · large", "photographs · small"), tasks=("ct", "xray"), seeds=3
) -> pd.DataFrame:
    """Probes at two fractions and two strategies at one, of arms and of a random initialisation known by its boundary."""
    rng = np.random.default_rng(0)
    settings = [
        ("linear_probe", None, 0.1),
        ("linear_probe", None, 1.0),
        ("finetune", "full", 0.1),
        ("finetune", "lp_ft", 0.1),
    ]
    rows = [
        (
            protocol,
            arm,
            task,
            strategy,
            fraction,
            seed,
            0,
            metric,
            0.6 + 0.05 * place + rng.normal(0, 0.01),
            SCRATCH if "scratch" in arm else "none" if "CT" in arm else "hard",
            f"r{seed}",
            "none",
            0.0,
        )
        for protocol, strategy, fraction in settings
        for task in tasks
        for metric in ("auroc", "ece")
        for place, arm in enumerate(["scratch · small", *arms])
        for seed in range(seeds)
    ]
    return tidy_frame(rows)


def extras(frame) -> dict:
    """Everything that a study hands over beyond its contrasts."""
    tuned = frame[(frame["protocol"] == "finetune") & (frame["metric"] == "auroc")]
    checks = [tuned.assign(step=step, seconds=step / 10, value=tuned["value"] * step / 90) for step in (30, 60, 90)]
    primary = [{**PRIMARY, "task": "xray"}, {"protocol": "finetune", "metric": "auroc", "task": ["ct"]}]
    return {
        "primary": primary,
        "stated_metrics": {"ct": "auroc", "xray": "auroc"},
        "validation": pd.concat(checks),
        "predictions": predictions,
    }


def predictions(cell) -> list[PredictedRun]:
    """Three pretraining seeds, each with predictions for 300 images of 60 patients in two classes."""
    return [PredictedRun(seed, 0, partial(_predicted, sum(map(ord, cell["pretraining"])) + seed)) for seed in range(3)]


def _predicted(seed: int) -> CasePredictions:
    """About 60 % of the images are classified correctly."""
    rng = np.random.default_rng(seed)
    label = np.arange(300) % 2
    score = np.clip(0.5 + 0.1 * (2 * label - 1) + rng.normal(0, 0.4, 300), 0.01, 0.99)
    columns = {"row": np.arange(300), "patient": np.arange(300) % 60, "label": np.array(["a", "b"])[label]}
    return CasePredictions(pd.DataFrame({**columns, "score_a": 1 - score, "score_b": score}))
