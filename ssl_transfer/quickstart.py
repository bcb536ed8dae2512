"""`ssl-transfer quickstart`: the main job on generated images, end to end, by the ordinary code path.

Does pretraining on CT beat pretraining on other pictures, and both beat nothing, for telling body regions in CT slices
apart? Three generated domains, the same recipe on each, several pretraining seeds, one report. Every stage
skips what is already there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ssl_transfer.analysis.projection import draw_projections, project
from ssl_transfer.console import say, stage
from ssl_transfer.data.ingest import ingest
from ssl_transfer.data.inspect import contact_sheet
from ssl_transfer.data.store import ImageStore
from ssl_transfer.data.tasks import Task
from ssl_transfer.errors import UsageError
from ssl_transfer.evaluate import evaluate, evaluate_recipe
from ssl_transfer.features import extract_features
from ssl_transfer.models.backbone import load_backbone, save_backbone
from ssl_transfer.pretrain import pretrain
from ssl_transfer.recipe import PretrainRecipe, load_recipe, recipes_folder
from ssl_transfer.run import environment, read_json, write_json
from ssl_transfer.study.guidance import answers
from ssl_transfer.study.report import Attachment, write_report
from ssl_transfer.study.statistics import contrasts, summary
from ssl_transfer.study.table import SCRATCH, study_table

TARGET = "ct"
ARMS = {"ct": "CT", "cells": "cell lines", "photographs": "photographs"}
REGION, ORGANS = "phantom_region", "phantom_organs"  # cards in `recipes/tasks/`


@dataclass(frozen=True)
class Size:
    """How much the quickstart does.

    Attributes:
        patients: Of each generated domain (wells, picture tiles); each has `slices` images.
        seeds: Pretraining seeds of each domain; also of scratch.
        fractions: Shares of the training patients that the probes learn from; fine-tuning takes the smallest.
        finetune_steps, segment_steps: Of these protocols.
        overrides: Of `recipes/quickstart_simclr.yaml`.
    """

    patients: int
    slices: int
    image_size: int
    seeds: int
    fractions: tuple[float, ...]
    finetune_steps: int
    segment_steps: int
    overrides: tuple[str, ...] = ()


SIZES = {
    "full": Size(48, 24, 48, 4, (0.1, 0.3, 1.0), 60, 80),
    "tiny": Size(12, 12, 32, 2, (0.3, 1.0), 4, 4, ("train.epochs=2", "train.batch_size=32", "train.warmup_epochs=0")),
}


def quickstart(out: str | Path = "runs/quickstart", scale: str = "full") -> dict[str, Any]:
    """Generate, ingest, pretrain, evaluate, compare, report.

    Args:
        out: Folder of everything it makes.
        scale: `full` (about ten minutes on two cores) or `tiny` (within a minute, for tests and notebooks).

    Returns:
        `headline` (what the primary contrasts say, in sentences), `seconds` by stage, `out`, `report` (path).

    Raises:
        UsageError: If `out` holds a quickstart of another scale, or other files.
    """
    out, size = Path(out), SIZES[scale]
    _claim(out, scale)
    seconds = _Seconds(out / "seconds.json")
    with seconds.of("generate and ingest"):
        stores = {name: _store(name, out, size) for name in ARMS}
    with seconds.of("pretrain"):
        for run in _runs(out, size):
            _pretrain(run, stores, size)
    tasks = {name: _task(name, out) for name in (REGION, ORGANS)}
    with seconds.of("evaluate"):
        results = [result for run in _runs(out, size) for result in _evaluate(run, tasks, size)]
    with seconds.of("UMAP"):
        _pictures(out, stores, tasks[REGION])
    report = _report(out, size, stores, results, seconds.spent)
    frame = study_table(results)
    found = answers(contrasts(frame), summary(frame), _primary(size))
    headline = [f"{answer['where']}: {answer['advice']}" for answer in found]
    return {"headline": headline, "seconds": seconds.spent, "out": str(out), "report": str(report)}


@dataclass(frozen=True)
class Run:
    """One backbone of the comparison; `arm` is a domain's name or scratch."""

    arm: str
    seed: int
    folder: Path

    @property
    def backbone(self) -> Path:
        """Where its backbone is."""
        return self.folder / "backbone"


class _Seconds:
    """Seconds by stage, kept across calls, so that a second run does not forget what the first one cost."""

    def __init__(self, path: Path):
        self.path, self.spent = path, read_json(path) or {}

    def of(self, label: str):
        return stage(label, lambda elapsed: self._add(label, elapsed))

    def _add(self, label: str, elapsed: float) -> None:
        self.spent[label] = round(self.spent.get(label, 0) + elapsed, 1)
        write_json(self.path, self.spent)


def _claim(out: Path, scale: str) -> None:
    claim = read_json(out / "quickstart.json") or {}
    if not claim and out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: holds other files, and a quickstart needs a folder of its own. Give another --out.")
    if claim.get("scale", scale) != scale:
        raise UsageError(f"{out}: holds a quickstart of scale {claim['scale']}, asked for {scale}. Give another --out.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "quickstart.json", {"kind": "quickstart", "scale": scale})


def _store(name: str, out: Path, size: Size) -> ImageStore:
    patients, slices = size.patients, size.slices
    if name == "photographs":  # more and smaller groups: each of its pictures needs some in every split
        patients, slices = 2 * patients, slices // 2
    source = f"phantom:{name},patients={patients},slices={slices},size={size.image_size}"
    say(f"{source} → {out / 'stores' / name}")
    return ingest(source, out / "stores" / name, channels=1, workers=1)


def _runs(out: Path, size: Size) -> Iterator[Run]:
    for arm in (*ARMS.values(), SCRATCH):
        for seed in range(size.seeds):
            yield Run(arm, seed, out / "pretrain" / f"{arm.replace(' ', '_')}-seed{seed}")


def _recipe(store: ImageStore, run: Run, size: Size, limit: int) -> PretrainRecipe:
    return load_recipe(
        PretrainRecipe,
        recipes_folder() / "quickstart_simclr.yaml",
        [
            f"name={run.arm}", f"data.store={store.path}", f"data.size={size.image_size}", f"data.limit={limit}",
            f"train.seed={run.seed}", *size.overrides,
        ],
    )  # fmt: skip


def _pretrain(run: Run, stores: dict[str, ImageStore], size: Size) -> None:
    """Pretrain one backbone; scratch is the same architecture from the same seed, untrained."""
    limit = min(store.card["splits"]["train"]["images"] for store in stores.values())  # equal budgets
    if run.arm != SCRATCH:
        name = next(name for name, arm in ARMS.items() if arm == run.arm)
        say(f"pretraining on {run.arm}, seed {run.seed}")
        pretrain(_recipe(stores[name], run, size, limit), run.folder, where="quickstart_simclr.yaml")
    elif not (run.backbone / "card.json").exists():
        trained = Run(ARMS[TARGET], run.seed, run.folder.parent / f"{ARMS[TARGET]}-seed{run.seed}")
        save_backbone(load_backbone(f"scratch:{trained.backbone}"), run.backbone)


def _task(name: str, out: Path) -> Task:
    card = yaml.safe_load((recipes_folder() / "tasks" / f"{name}.yaml").read_text())
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**card, "store": str(out / "stores" / TARGET)}, sort_keys=False))
    return Task.load(path)


def _evaluations(size: Size) -> Iterator[tuple[str, str, float, list[str]]]:
    """Protocol, task, fraction and settings of what is done with every backbone."""
    for protocol in ("linear_probe", "knn"):
        for fraction in size.fractions:
            yield protocol, REGION, fraction, []
    for protocol, task, fraction, steps, balance in (
        ("finetune", REGION, min(size.fractions), size.finetune_steps, "none"),
        ("segment", ORGANS, 1.0, size.segment_steps, "sampling"),  # most slices show neither liver nor lesion
    ):
        pace = [f"train.steps={steps}", f"train.check_every_steps={steps // 2}", f"train.balance={balance}"]
        yield protocol, task, fraction, [*pace, "optimizer.lr=2e-3", "precision=auto"]


def _evaluate(run: Run, tasks: dict[str, Task], size: Size) -> Iterator[dict[str, Any]]:
    """Every protocol. Label subsets are drawn with the run's seed, the same for all arms."""
    features = run.folder / "features"
    backbone = load_backbone(run.backbone)
    extract_features(backbone, tasks[REGION].store, features)
    for protocol, task, fraction, settings in _evaluations(size):
        recipe, options = evaluate_recipe(protocol, [f"fraction={fraction}", f"seed={run.seed}", *settings])
        folder = run.folder / f"{protocol}-{fraction:g}"
        result, _ = evaluate(protocol, backbone, tasks[task], recipe, options, folder, features)
        yield asdict(result)
    say(f"evaluated {run.arm}, seed {run.seed}")


def _pictures(out: Path, stores: dict[str, ImageStore], task: Task) -> None:
    """Contact sheets, and the UMAP of the test images; it takes seconds, is drawn last, and is not drawn twice."""
    figures = out / "pictures"
    if (figures / "umap.png").exists():
        return
    figures.mkdir(exist_ok=True)
    for name, store in stores.items():
        contact_sheet(store, figures / f"{name}.png", images=48)
    rows = task.rows("test")
    labels = np.array(task.classes)[task.labels[rows]]
    panels = {}
    for arm in (ARMS[TARGET], ARMS["photographs"], SCRATCH):
        run = next(run for run in _runs(out, Size(0, 0, 0, 1, (), 0, 0)) if run.arm == arm)
        features = extract_features(load_backbone(run.backbone), task.store, run.folder / "features")
        panels[f"{arm}, seed 0"] = project(features.values[rows])
    draw_projections(panels, labels, figures / "partial.png")
    os.replace(figures / "partial.png", figures / "umap.png")


def _primary(size: Size) -> dict[str, Any]:
    """The comparison that the answer rests on; all others are shown beside it."""
    return {"protocol": "linear_probe", "metric": "balanced_accuracy", "fraction": min(size.fractions)}


def _report(
    out: Path, size: Size, stores: dict[str, ImageStore], results: list[dict[str, Any]], seconds: dict[str, float]
) -> Path:
    frame = study_table(results)
    card = read_json(next(_runs(out, size)).backbone / "card.json")
    recipe, training = card["recipe"], card["training"]
    limit = recipe["data"]["limit"]
    arms = [
        {"name": arm, "domain": stores[name].card["domain"], "boundary": "none" if name == TARGET else "hard",
         "images": limit, "steps": training["steps"], "note": ""}
        for name, arm in ARMS.items()
    ] + [{"name": SCRATCH, "note": "random initialisation, same architecture and seeds"}]  # fmt: skip
    n = results[-1]["n"]
    design = {
        "Pretraining": f"{recipe['method']['name']}, {recipe['backbone']['name']} ({card['feature_dim']} features), "
        f"{size.image_size} px, {limit} images, {training['steps']} steps, batch {recipe['train']['batch_size']}, the same "
        f"view preset ({recipe['data']['views']['name']}) for every domain, {training['precision']}, "
        f"pretraining seeds 0–{size.seeds - 1}.",
        "Target": f"Body region (six classes) of CT phantom slices: {n['train']['patients']} training, "
        f"{n['val']['patients']} validation and {n['test']['patients']} test patients, none in common; the CT arm was "
        "pretrained on images of the training patients only.",
        "Label fractions": ", ".join(f"{fraction:.0%}" for fraction in size.fractions)
        + " of the training patients, nested, drawn with the run's seed.",
        "Fine-tuning": f"All layers, {size.finetune_steps} steps of 32 images, with {min(size.fractions):.0%} of the patients.",
        "Segmentation": f"Liver and lesion, a U-Net decoder on the backbone, all layers, {size.segment_steps} steps of 32 slices "
        "of all training patients; Dice and HD95 per volume. dice_present counts volumes that show the organ.",
        "Selection": "C of the probe, k and vote of the kNN, and the step of fine-tuning on validation; test was scored once, "
        "for the selected setting.",
    }
    pictures = out / "pictures"
    attachments = [
        Attachment("Feature space of the test images",
                   "UMAP of the same test slices under three backbones (seed 0), coloured by body region.",
                   pictures / "umap.png"),
        *(Attachment(f"Images: {arm}", f"Examples from the generated {arm} store.", pictures / f"{name}.png")
          for name, arm in ARMS.items()),
    ]  # fmt: skip
    return write_report(
        out, title="Quickstart: does it pay to stay in the domain?",
        question="To tell body regions in CT slices apart, is a backbone pretrained without labels on CT worth more than one "
        "pretrained on cell lines or photographs, or than none?",
        frame=frame, contrasts=contrasts(frame),
        primary=_primary(size),
        arms=arms, attachments=attachments, design=design, missing=[], cost=list(seconds.items()),
        environment=_flat(environment("cpu")), methods_text=_methods(size, recipe, training, limit),
        warnings=["The images are generated (CT and cells) or crops of a few photographs: this page shows how the tool "
                  "answers, and says nothing about real archives."],
        commands=[f"ssl-transfer quickstart --out {out}" + (" --scale tiny" if size is SIZES["tiny"] else "")],
    )  # fmt: skip


def _flat(values: dict[str, Any]) -> dict[str, str]:
    """Nested environment as name -> text."""
    flat = {}
    for key, value in values.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: json.dumps(value).strip('"')}
    return flat


def _methods(size: Size, recipe: dict[str, Any], training: dict[str, Any], limit: int) -> str:
    return (
        f"Backbones ({recipe['backbone']['name']}, {size.image_size} px, one channel) were pretrained with "
        f"{recipe['method']['name']} (temperature {recipe['method']['temperature']}) on {limit} images of each domain for "
        f"{training['steps']} steps ({recipe['optimizer']['name']}, rate {recipe['optimizer']['lr']}, batch "
        f"{recipe['train']['batch_size']}), with {size.seeds} pretraining seeds each; images, steps, size, channels, seeds and "
        "augmentation were equal across domains. On patient-disjoint splits, frozen features were judged by L2-regularised "
        "logistic regression and cosine kNN, and backbones by full fine-tuning and by segmentation (Dice per volume); "
        "hyper-parameters were selected on validation and test was scored once. Arms "
        "were compared by Welch's t over pretraining seeds (ddof 1), two-sided, with Holm's correction over all pairs of one "
        "protocol and metric, and Hedges' g as effect size."
    )
