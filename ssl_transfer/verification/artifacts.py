"""Where artifacts are: folders that hold the record of a store, backbone, features, run, result, export or study."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

RECORDS = (
    *("plan.json", "run.json", "result.json", "rank.json", "analysis.json", "tuning.json"),
    *("export.json", "card.json"),  # some exports are backbones, too
)
SIGNS = {  # file of an artifact whose card cannot be read -> its kind
    "rows.parquet": "store",
    "model.safetensors": "backbone",
    "features.safetensors": "features",
}


def artifacts_below(folder: Path) -> Iterator[Path]:
    """Yield the folder itself if it holds an artifact, else all outermost artifacts below it, sorted."""
    if record_of(folder):
        yield folder
        return
    for parent, names, _ in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        inner = [name for name in names if record_of(Path(parent, name))]
        names[:] = [name for name in names if name not in inner]
        yield from (Path(parent, name) for name in inner)


def record_of(folder: Path) -> str:
    """Name of the record of an artifact; empty if the folder is none."""
    for name in RECORDS:
        if (folder / name).is_file():
            return name
    if (folder / "backbone" / "card.json").is_file():
        return ""  # of an untrained backbone: the folder below it is the artifact
    signs = sum((folder / name).is_file() for name in SIGNS)
    return "card.json" if signs and not (folder / "predictions.parquet").exists() else ""
