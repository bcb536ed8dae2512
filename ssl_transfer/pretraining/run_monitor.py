"""Measurements of a run as it trains: its parent before the first step, its own backbone, and the best one so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ssl_transfer.models.backbone import Backbone
from ssl_transfer.paths import portable
from ssl_transfer.pretraining.kept import cpu_copy
from ssl_transfer.training.monitor import OnlineProbes
from ssl_transfer.training.session import Session


class RunMonitor:
    """Measures the backbone of a run by the online probes, compares it with its parent, and remembers the best one.

    A run is below its parent if its kNN is less than that of the parent minus one standard error of the parent's (see
    `mean_recall_error`), on the same validation images.

    Args:
        probes: Online kNN and linear probe; None: nothing is measured.
        parent: The backbone that the run starts from, measured as its own card says; None: random initialisation.
        keeps_best: Whether the weights with the highest kNN are remembered. They are those of a step that trained the backbone.

    Attributes:
        parent_scores: Measurements of the parent; empty without one, and before it was measured.
        best: `step`, `knn`, `knn_se` and `weights` of the best so far; empty before the first measurement.
    """

    def __init__(self, probes: OnlineProbes | None, parent: Backbone | None, *, keeps_best: bool):
        self.probes, self.parent, self.keeps_best = probes, parent, keeps_best
        self.parent_scores: dict[str, float] = {}
        self.best: dict[str, Any] = {}

    def measure_parent(self, session: Session) -> dict[str, float]:
        """Measure the parent on rank 0; nothing without one."""
        if self.parent is None or self.probes is None or not session.accelerator.is_main_process:
            return {}
        measured = self._measured(self.probes, self.parent.to(session.accelerator.device), session)
        self.parent.cpu()
        self.parent_scores = measured if math.isfinite(measured["knn"]) else {}
        return dict(measured)

    def measure(self, session: Session) -> dict[str, float]:
        """Measure the backbone after a step; called on all ranks, and rank 0 has the values."""
        training = session.training
        backbone = training.backbone()
        if self.probes is None or not session.accelerator.is_main_process:
            return {}
        measured = self._measured(self.probes, backbone, session)
        if self.keeps_best and not session.schedule.freezes_at(training.step - 1):
            self._judge(training.step, measured, backbone)
        compared = {"below_parent": self.below_parent(measured["knn"])} if self.parent_scores else {}
        return measured | compared

    def below_parent(self, knn: float | None) -> bool:
        """Whether a kNN is below that of the parent by more than one standard error; NaN and None are."""
        limit = self.parent_scores["knn"] - self.parent_scores["knn_se"]
        return knn is None or not knn >= limit

    def verdict(self, run: Path, last: dict[str, Any], best: dict[str, Any] | None) -> tuple[dict[str, Any], str]:
        """The comparison with the parent: the facts for the card, and a warning, empty if there is none.

        Args:
            run: Folder of the run.
            last: Measurements after the last step.
            best: What the card says of the best backbone.
        """
        if self.parent is None:
            return {}, ""
        facts = {"parent": {"name": self.parent.card.name, "id": self.parent.id, **self.parent_scores}}
        if self.probes is None:
            return facts, f"{run}: was not compared with its parent. Name a labelled store in monitor.store."
        if not self.parent_scores:
            return facts, f"{run}: was not compared with its parent, whose features are NaN or infinite."
        below = self.below_parent(last.get("knn"))
        monitored = {**self.probes.card(), "knn_se": last.get("knn_se")}
        facts |= {"monitored": monitored, "below_parent": below}
        return facts, self._warning(run, last.get("knn"), monitored, best) if below else ""

    def _warning(self, run: Path, knn: float | None, monitored: dict[str, Any], best: dict[str, Any] | None) -> str:
        parent, name = self.parent_scores, self.parent.card.name if self.parent else ""
        own = "undefined" if knn is None else f"{knn:.4f}"
        units = f"{monitored['images']} images"
        units += "" if monitored["patients"] is None else f" of {monitored['patients']} patients"
        advice = "Lower optimizer.lr or optimizer.layer_decay, set train.freeze_epochs, or take the parent."
        if best:
            standing = "also below it" if self.below_parent(best["knn"]) else "not below it"
            advice = (
                f"Best: epoch {best['epoch']:.3g}, kNN {best['knn']:.4f}, {standing} ({portable(run)}@best). {advice}"
            )
        return (
            f"{run}: ends below its parent {name}: kNN {own}, parent {parent['knn']:.4f}, standard error of the parent "
            f"{parent['knn_se']:.4f} over {units}. {advice}"
        )

    def _judge(self, step: int, measured: dict[str, float], backbone: Backbone) -> None:
        if math.isnan(measured["knn"]):
            return
        if not self.best or measured["knn"] > self.best["knn"]:
            scores = {name: measured[name] for name in ("knn", "knn_se")}
            self.best = {"step": step, **scores, "weights": cpu_copy(backbone)}

    @staticmethod
    def _measured(probes: OnlineProbes, backbone: Backbone, session: Session) -> dict[str, float]:
        return probes.measure(backbone, session.accelerator.device, session.machine.precision == "bf16")

    def state(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"parent_scores": self.parent_scores, "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.parent_scores, self.best = state["parent_scores"], state["best"]
