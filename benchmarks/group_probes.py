"""Cost of a probe with a label per patient, at all poolings of its slices, against a probe of the slices on the same features.

    python benchmarks/group_probes.py            # about a minute on two cores
    python benchmarks/group_probes.py --quick    # fewer patients, for a trial

Features: 200 training patients (--patients) of 24 slices and half as many for validation, 512 and 1280 dimensions (--dims) whose
standard deviations decrease like 1/√(direction), a random rotation; a lesion in 2 of the 24 slices (8 %) of every other patient.
Both probes fit every setting and score validation at each; the slice probe gives every slice the label of its patient. They take
turns; ratios of medians, and test AUROC of patients, are printed. The last line is one JSON object:

- group_probe_of_slice_probe_D: seconds of the probe of patients (mean, max, topk and attention) over those of slices. Limit 1.2.
- attention_minus_mean_D: test AUROC of patients by attention, less that by mean pooling. At least 0.05.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from types import SimpleNamespace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from ssl_transfer.data.groups import Bags
from ssl_transfer.evaluation.linear_probe import linear_probe
from ssl_transfer.evaluation.probes import _of_groups
from ssl_transfer.models.group_probe import BagFeatures
from ssl_transfer.poolings import GROUP_POOLINGS

SLICES, LESIONS, SHIFT = 24, 2, 10.0


def main() -> None:
    """Measure, print a table, and the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use 60 patients of 512 dimensions, one round")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 1280])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)
    patients, rounds = (60, 1) if options.quick else (options.patients, options.rounds)
    measured = {}
    for dim in [512] if options.quick else options.dims:
        measured |= _measure(dim, patients, rounds)
    print(json.dumps(measured))


def _measure(dim: int, patients: int, rounds: int) -> dict[str, float]:
    """Ratio of times and difference of AUROC at one dimension."""
    sizes = {"train": patients, "val": patients // 2, "test": patients}
    draw = np.random.default_rng(0)
    scale, rotation = 1 / np.sqrt(np.arange(1, dim + 1)), np.linalg.qr(draw.normal(size=(dim, dim)))[0]
    direction = draw.normal(size=dim)
    direction *= scale / np.linalg.norm(direction)
    splits = {split: _patients(draw, count, scale, SHIFT * direction, rotation) for split, count in sizes.items()}
    seconds: dict[str, list[float]] = {"slices": [], "patients": []}
    for number in range(rounds + 1):
        for name, probe in (("slices", _slice_probe), ("patients", _group_probe)):
            started = time.perf_counter()
            fitted = probe(splits)
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    auroc = _test_auroc(splits, fitted)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"D = {dim}: {patients} patients of {SLICES} slices, medians of {rounds} rounds")
    for name, value in medians.items():
        print(f"  probe of {name:<9}{value:7.2f} s")
    print("  test AUROC of patients: " + ", ".join(f"{name} {value:.3f}" for name, value in auroc.items()))
    return {
        f"group_probe_of_slice_probe_{dim}": round(medians["patients"] / medians["slices"], 3),
        f"attention_minus_mean_{dim}": round(auroc["attention"] - auroc["mean"], 3),
    }


def _patients(draw, count: int, scale: np.ndarray, lesion: np.ndarray, rotation: np.ndarray) -> tuple:
    """Features of the slices of some patients (sorted by patient), and the label of each patient."""
    labels = np.arange(count) % 2
    values = (draw.normal(size=(count, SLICES, len(scale))) + 0.7 * draw.normal(size=(count, 1, len(scale)))) * scale
    for patient in np.flatnonzero(labels):
        values[patient, draw.choice(SLICES, LESIONS, replace=False)] += lesion
    names = np.repeat([f"{number:05d}" for number in range(count)], SLICES)
    return (values.reshape(-1, len(scale)) @ rotation).astype(np.float32), Bags.of(names), labels


def _slice_probe(splits: dict) -> list:
    """Fit slices with the labels of their patients, and score the slices of validation at every setting."""
    (train, bags, labels), (val, _, _) = splits["train"], splits["val"]
    return list(linear_probe(train, labels[bags.codes], {"val": val}, 2))


def _group_probe(splits: dict) -> list:
    """Fit patients at every pooling of their slices, and score the patients of validation at every setting."""
    (train, bags, labels), (val, val_bags, _) = splits["train"], splits["val"]
    inputs = {"train": BagFeatures.of(train, bags), "val": BagFeatures.of(val, val_bags)}
    task = SimpleNamespace(labels=labels, classes=["healthy", "lesion"], kind="multiclass")
    context = SimpleNamespace(
        task=task, cases=lambda split: np.arange(len(labels)), draw=0, group_poolings=GROUP_POOLINGS
    )
    return list(_of_groups(context, linear_probe, {}, inputs))


def _test_auroc(splits: dict, fitted: list) -> dict[str, float]:
    """Test AUROC of patients by each pooling, at its setting that is best on validation."""
    (_, _, labels), (values, bags, test_labels) = splits["val"], splits["test"]
    test, best = BagFeatures.of(values, bags), {}
    for setting, scores, probe in fitted:
        value = roc_auc_score(labels, scores[:, 1])
        if value > best.get(setting["group_pool"], (-1.0,))[0]:
            best[setting["group_pool"]] = (value, probe)
    return {name: roc_auc_score(test_labels, probe(test)[:, 1]) for name, (_, probe) in best.items()}


if __name__ == "__main__":
    main()
