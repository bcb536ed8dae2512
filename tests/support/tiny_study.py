"""A study of seconds on phantoms, and what tests ask of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import yaml
from support.results import made_result

from ssl_transfer.result import EvalResult
from ssl_transfer.study.engine import run_plan
from ssl_transfer.study.plan import Job, Plan

RECIPE = {
    "data": {"store": "-", "views": "ct", "size": 32},
    "backbone": {"name": "resnet10t", "in_channels": 1, "options": {"channels": [8, 8, 16, 16], "stem_width": 8}},
    "method": {"name": "simclr", "hidden_dim": 16, "projection_dim": 8},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "train": {"epochs": 3, "batch_size": 16, "precision": "fp32", "checkpoint_every_steps": 2},
    "tracker": "none",
}
STUDY = {
    "title": "Tiny",
    "question": "Does it run?",
    "stores": {
        "ct": {"source": "phantom:ct,patients=9,slices=6,size=32", "options": {"channels": 1, "workers": 1}},
        "photographs": {
            "source": "phantom:photographs,patients=9,slices=6,size=32",
            "options": {"channels": 1, "workers": 1},
        },
    },
    "pretrain": {"recipe": "tiny.yaml"},
    "pretrainings": {
        "CT": {"store": "ct"},
        "photographs": {"store": "photographs"},
        "photographs → CT": {"store": "ct", "init": "photographs"},
        "scratch": {"store": "ct", "untrained": True},
    },
    "pretraining_seeds": [0, 1],
    "tasks": {"region": {"card": "phantom_region", "store": "ct"}, "organs": {"card": "phantom_organs", "store": "ct"}},
    "evaluations": [
        {"protocol": "linear_probe", "fractions": [0.5, 1.0], "seeds": [0, 1]},
        {"protocol": "knn", "fractions": [0.5, 1.0], "seeds": [0, 1], "set": {"k": [1]}},
        {
            "protocol": "finetune",
            "strategies": ["full", "head_only"],
            "set": {"train.steps": 2, "train.batch_size": 8, "train.check_every_steps": 1},
        },
        {"protocol": "segment", "set": {"train.steps": 2, "train.batch_size": 8, "train.check_every_steps": 1}},
    ],
    "controls": {"trivial": False},
    "statistics": {"primary": {"protocol": "linear_probe", "metric": "balanced_accuracy", "fractions": [0.5]}},
}


def write_study(folder: Path, **changes) -> Path:
    """Write the study and its recipe; `changes` replace whole sections."""
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False, allow_unicode=True))
    return path


def small(**changes) -> dict:
    """Changes that leave two arms and one protocol."""
    kept = {name: STUDY["pretrainings"][name] for name in ("CT", "scratch")}
    return {
        "pretrainings": kept,
        "evaluations": STUDY["evaluations"][:1],
        "tasks": {"region": STUDY["tasks"]["region"]},
        **changes,
    }


def metrics(study: Path) -> dict[str, dict]:
    """Metrics of every run of a planned study, by its coordinates."""
    plan, found = json.loads((study / "plan.json").read_text()), {}
    for job in plan["jobs"]:
        for run in job["runs"]:
            name = " ".join(str(value) for key, value in run.items() if key != "result")
            path = study.parent.parent / run["result"] if not Path(run["result"]).is_absolute() else Path(run["result"])
            found[name] = json.loads(path.read_text())["metrics"]
    return found


def result(run: dict, value: float, **facts) -> EvalResult:
    """What `evaluate` would have answered for a run; `facts` are further fields."""
    coordinates = {key: run[key] for key in ("protocol", "strategy", "fraction", "seed", "pretraining_seed")}
    return made_result(
        json.dumps(run, sort_keys=True),
        **coordinates,
        backbone={"id": "x", "name": "as its recipe calls it", "pretraining": "as its recipe calls it"},
        task={"name": run["task"], "target_domain": "ct"},
        boundary={"scratch": "scratch", "trivial features": "trivial"}.get(run["pretraining"], "none"),
        seen_in_pretraining=True,
        metrics={"val": {}, "test": {"balanced_accuracy": value, "auroc": value}},
        notes=["patients guessed"],
        **facts,
    )


def record_results(plan: Plan, value: Callable[[dict], float]) -> None:
    """Finish all jobs of a plan with made-up results."""
    run_plan(plan, Verbs(plan, value))


class Verbs:
    """Stands in for the verbs: writes made-up results and keeps the titles of the jobs that it was asked to do.

    Args:
        plan: The plan of the study.
        value: Run -> its score.
        fails: Regular expression of the titles of jobs that fail.
    """

    def __init__(self, plan: Plan, value: Callable[[dict], float], fails: str = "nothing"):
        self.jobs = {" ".join(job.words): job for job in plan.jobs}
        self.value, self.fails, self.titles = value, fails, []

    def __call__(self, words: list[str]) -> None:
        job = self.jobs[" ".join(words)]
        self.titles.append(job.title)
        if re.search(self.fails, job.title):
            raise ValueError("made to fail")
        _save_results(job, self.value)


def _save_results(job: Job, value: Callable[[dict], float]) -> None:
    for run in job.runs:
        path = Path(run["result"])
        path.parent.mkdir(parents=True, exist_ok=True)
        result(run, value(run)).save(path.parent)
