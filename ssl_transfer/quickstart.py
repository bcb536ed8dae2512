"""`ssl-transfer quickstart`: the main job on generated images, end to end, by the ordinary code path.

Does pretraining on CT beat pretraining on other pictures, and both beat nothing, for telling body regions in CT slices
apart? It is the study `recipes/studies/quickstart.yaml`, run and reported, and a look at the feature space.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ssl_transfer.analysis.projection import are_equal, draw_projections, project
from ssl_transfer.console import say, stage
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import RunError
from ssl_transfer.features import Features
from ssl_transfer.recipe import find_recipe
from ssl_transfer.run import Artifact, write_json
from ssl_transfer.study.design import load_study
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.gather import report_study
from ssl_transfer.study.performing import Perform
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.planning import plan_study
from ssl_transfer.study.report.evidence import Attachment
from ssl_transfer.study.stage import rounds_of

STUDIES = {"full": "quickstart", "tiny": "quickstart_tiny"}  # in `recipes/studies/`
SHOWN = ("CT", "photographs", "scratch")


def quickstart(
    perform: Perform, out: str | Path = "runs/quickstart", scale: str = "full", jobs: int | None = 1
) -> dict[str, Any]:
    """Generate, ingest, pretrain, evaluate, compare, report; what is there already is not done again.

    Args:
        perform: Does a verb of the command line in this process.
        out: Folder of everything it makes.
        scale: `full` (ten minutes on two cores, twenty without bfloat16) or `tiny` (within a minute, for tests and notebooks).
        jobs: Number of jobs at once: 1 runs them in this process; None: by cores and memory (see `default_count`).

    Returns:
        `headline` (what the primary contrasts say, in sentences), `seconds` by kind of job, `out`, `report` (path).

    Raises:
        UsageError: If `out` holds a quickstart of another scale, or other files.
        RunError: If a job failed.
    """
    out = Path(out)
    _claim(out, scale)
    plan = plan_study(load_study(find_recipe(STUDIES[scale], "studies")), out)
    plan.save()
    progress = run_plan(plan, perform, jobs=jobs, rounds=rounds_of(plan))
    if progress.count("done") + progress.count("not needed") < len(plan.jobs):
        raise RunError(f"{out}: not every job was done. What went wrong: ssl-transfer study status {out}")
    picture = out / "pictures" / "umap.png"
    if not picture.exists():
        with stage("UMAP"):
            _draw_feature_space(plan, picture)
    caption = "UMAP of the same test slices under three backbones (seed 0), coloured by body region."
    report = report_study(plan, pictures=[Attachment("Feature space of the test images", caption, picture)])
    for stage_name, seconds in report["seconds"].items():
        say(f"{stage_name}: {seconds:.1f} s")
    return {"headline": report["answers"], "seconds": report["seconds"], "out": str(out), "report": report["report"]}


def _claim(out: Path, scale: str) -> None:
    """Take a folder: `quickstart.json` says of which scale it is, from the first job on."""
    record = "quickstart.json"
    Artifact(scale, out, record, id_key="scale", noun="a quickstart of scale").is_finished(quiet=True)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / record, {"kind": "quickstart", "scale": scale})


def _draw_feature_space(plan: Plan, path: Path) -> None:
    """UMAP of the test images of the CT store; it takes seconds, and is drawn last."""
    store = ImageStore(plan.store("ct"))
    rows = store.positions("test")
    panels: dict[str, np.ndarray] = {}
    first: np.ndarray | None = None
    for arm in SHOWN:
        features = Features.load(plan.features(arm, 0, "ct")).values[rows]
        if are_equal(features):  # a collapsed training
            panels[f"{arm}, seed 0 (collapsed)"] = np.zeros((len(features), 2))
        else:
            points = project(features, beside=first)
            first = points if first is None else first
            panels[f"{arm}, seed 0"] = points
    path.parent.mkdir(exist_ok=True)
    draw_projections(panels, np.asarray(store.column("label"))[rows], path.with_name("partial.png"))
    os.replace(path.with_name("partial.png"), path)
