"""Backbones that a run writes beside its last one: those of chosen epochs, and the best."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ssl_transfer.cards import lineage
from ssl_transfer.console import say, warn
from ssl_transfer.data.passport import Passport
from ssl_transfer.kept import BEST, FOLDER, best_folder, epoch_folder, kept_epochs
from ssl_transfer.models.architecture import Architecture
from ssl_transfer.models.backbone import Backbone, save_backbone
from ssl_transfer.paths import portable


class KeptBackbones:
    """Writes backbones of a run into `RUN/backbones/`, each complete or absent.

    Args:
        run: Folder of the run.
        run_id: Its id.
        steps: Step, counted from 1, whose backbone is kept -> its epoch.
        steps_per_epoch: Steps of an epoch.
        passport: What is known of the training images, in all stages.
    """

    def __init__(self, run: Path, run_id: str, steps: Mapping[int, float], steps_per_epoch: int, passport: Passport):
        self.run, self.run_id, self.steps, self.passport = run, run_id, steps, passport
        self.steps_per_epoch = steps_per_epoch

    def start(self, backbone: Backbone) -> None:
        """Delete backbones of an earlier start of the run, and say how much disk those of the epochs will take."""
        shutil.rmtree(self.run / FOLDER, ignore_errors=True)
        if self.steps:
            each = sum(tensor.nbytes for tensor in backbone.model.state_dict().values())
            epochs = ", ".join(f"{epoch:g}" for epoch in self.steps.values())
            say(
                f"{self.run / FOLDER}: keeps the backbones of epochs {epochs}: {each / 1e6:,.1f} MB each, "
                f"{len(self.steps) * each / 1e6:,.1f} MB in all."
            )

    def save_epoch(self, step: int, backbone: Backbone) -> None:
        """Write the backbone of a step that is to be kept."""
        epoch = self.steps[step]
        self._save(epoch_folder(self.run, epoch), f"{epoch:g}", step, backbone, {"epoch": epoch})

    def save_best(self, best: Mapping[str, Any], last: Backbone) -> dict[str, Any]:
        """Write the best backbone; returns what the card says of it.

        Args:
            best: `step`, `weights` and measurements of the best.
            last: The last backbone of the run, of which it has the card.
        """
        model = Architecture.from_card(last.card).build(seed=0)
        model.load_state_dict(best["weights"])
        measured = {name: value for name, value in best.items() if name != "weights"}
        facts = {"epoch": best["step"] / self.steps_per_epoch, **measured}
        self._save(best_folder(self.run), BEST, best["step"], Backbone(model, last.card), facts)
        return {**facts, "backbone": portable(best_folder(self.run))}

    def _save(self, folder: Path, label: str, step: int, backbone: Backbone, facts: dict[str, Any]) -> None:
        *earlier, stage = backbone.card.history
        card = replace(
            backbone.card,
            name=f"{backbone.card.name}@{label}",
            run_id=self.run_id,
            training={"run": portable(self.run), "backbone": portable(folder), "steps": step, **facts},
            **lineage(*earlier, replace(stage, steps=step)),
        )
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that went further than its last checkpoint
        save_backbone(Backbone(backbone.model, card, passport=self.passport), folder)

    def facts(self) -> dict[str, Any]:
        """Epochs that were kept and the disk space of all that lies beside the last backbone; empty if that is nothing."""
        place = self.run / FOLDER
        if not place.exists():
            return {}
        size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
        epochs = [epoch for epoch, path in kept_epochs(self.run).items() if path.parent == place]
        return {"kept": {"epochs": epochs, "megabytes": round(size / 1e6, 3)}}


def warn_of_missing(run: Path, steps: Mapping[int, float]) -> None:
    """Say which backbones the recipe wants and the run does not have, because it had passed these epochs before."""
    if missing := [f"{epoch:g}" for epoch in steps.values() if epoch not in kept_epochs(run)]:
        warn(
            f"{run}: has no backbone of epoch {', '.join(missing)}, which the run passed before `keep` asked for it. Train "
            "again with another --out for these."
        )


def cpu_copy(backbone: Backbone) -> dict[str, torch.Tensor]:
    """The weights and statistics of a backbone, copied to the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in backbone.model.state_dict().items()}
