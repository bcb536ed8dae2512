"""Runs of made-up arms, by their seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd


def study(values: dict, **columns) -> pd.DataFrame:
    """A tidy frame: `values` maps arm -> {(pretraining_seed, seed): value}."""
    shared = {"protocol": "knn", "task": "t", "strategy": None, "fraction": 1.0, "metric": "accuracy"}
    rows = [
        {**shared, "pretraining": arm, "pretraining_seed": p, "seed": s, "value": v, "boundary": "", **columns}
        for arm, runs in values.items()
        for (p, s), v in runs.items()
    ]
    return pd.DataFrame(rows).astype({"pretraining_seed": "Int64", "seed": "Int64"})


def arm(*values) -> dict:
    """One run per pretraining seed."""
    return {(p, 0): value for p, value in enumerate(values)}


def random_arm(rng: np.random.Generator, mean: float, seeds: range = range(4)) -> dict:
    """Two fine-tuning seeds for each of some pretraining seeds."""
    return {(p, s): mean + rng.normal(0, 0.02) for p in seeds for s in range(2)}


def random_study(tasks=("one", "two"), metrics=("accuracy", "auroc"), strategy=None, seed=0) -> pd.DataFrame:
    """Four arms in several cells, of which one lacks a pretraining seed, one is a single checkpoint, and one is random."""
    rng, frames = np.random.default_rng(seed), []
    for task, metric in itertools.product(tasks, metrics):
        values = {name: random_arm(rng, mean) for name, mean in (("ct", 0.9), ("photographs", 0.87), ("scratch", 0.8))}
        values["photographs"] = random_arm(rng, 0.87, range(1, 5))
        values["public"] = {(pd.NA, s): 0.88 + rng.normal(0, 0.02) for s in range(3)}
        frames.append(study(values, task=task, metric=metric, strategy=strategy))
    return pd.concat(frames, ignore_index=True)
