"""Reports of small studies made on the spot, and a browser to look at them."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pandas as pd
from PIL import Image

from ssl_transfer.study.report import Attachment, write_report
from ssl_transfer.study.statistics import contrasts
from ssl_transfer.study.table import COLUMNS, SCRATCH

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
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def build(out, frame, **changes):
    Image.new("RGB", (8, 8), "teal").save(out / "umap.png")
    given = {
        "title": "Does it <pay>?",
        "question": "Is CT better?",
        "frame": frame,
        "contrasts": contrasts(frame),
        "primary": PRIMARY,
        "arms": [{"name": arm, "images": 640} for arm in frame["pretraining"].unique()],
        "attachments": [Attachment("UMAP", "Test slices.", out / "umap.png")],
        "design": {"Method": "SimCLR"},
        "missing": ["photographs, seed 3: failed"],
        "cost": [("pretraining", 61.0), ("evaluation", 2.0)],
        "environment": {"python": "3.11"},
        "methods_text": "We pretrained.",
        "warnings": ["Phantoms are drawn."],
        "commands": ["ssl-transfer quickstart"],
        **changes,
    }
    return write_report(out, **given)


def browse(page, profile) -> tuple[str, str]:
    """The page's DOM after its scripts ran, and what the browser logged."""
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    )
    command = [shutil.which("chromium"), *flags.split(), f"--user-data-dir={profile}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout, done.stderr
