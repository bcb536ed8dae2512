"""Backbones that a pretraining kept on its way: `RUN@5` is that of epoch 5, `RUN@best`, `RUN@last` and `RUN@all`.

They lie in `RUN/backbones/epoch-5/` and `RUN/backbones/best/`, each a backbone's folder like `RUN/backbone/`, which is the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ssl_transfer.cards import BackboneCard
from ssl_transfer.errors import BackboneError
from ssl_transfer.poolings import SUFFIX, stated_pooling

FOLDER = "backbones"  # in the folder of a run
LAST, BEST, ALL = "last", "best", "all"
SPEC = re.compile(rf"(?P<run>.+)@(?P<which>{LAST}|{BEST}|{ALL}|\d+(?:\.\d+)?)")


def epoch_folder(run: Path, epoch: float) -> Path:
    """Folder of the backbone of an epoch."""
    return run / FOLDER / f"epoch-{epoch:g}"


def best_folder(run: Path) -> Path:
    """Folder of the best backbone by the online kNN."""
    return run / FOLDER / BEST


def kept_epochs(run: Path) -> dict[float, Path]:
    """Epochs whose backbones a run has, ascending, with their folders; the last one is `backbone/`."""
    found = {}
    for path in (run / FOLDER).glob("epoch-*"):
        if re.fullmatch(r"\d+(\.\d+)?", number := path.name.removeprefix("epoch-")) and (path / "card.json").exists():
            found[float(number)] = path
    last = run / "backbone"
    if (last / "card.json").exists():
        found[_last_epoch(last)] = last
    return dict(sorted(found.items()))


def run_and_epoch(spec: str) -> tuple[str, str] | None:
    """Run and epoch of `RUN@EPOCH` (`best`, `last` and `all` are epochs, too), where RUN is a folder; None for other specs."""
    parts = SPEC.fullmatch(spec)
    if parts is None or Path(spec).exists() or not Path(parts["run"]).is_dir():
        return None
    return parts["run"], parts["which"]


def located(spec: str) -> Path:
    """The folder of a backbone that is named by its path or as `RUN@EPOCH`.

    Raises:
        BackboneError: If the run has no backbone of this epoch.
    """
    parts = run_and_epoch(spec)
    if parts is None:
        return Path(spec)
    run, which = Path(parts[0]), parts[1]
    epochs = kept_epochs(run)
    if which == ALL:
        raise BackboneError(f"{spec}: several backbones, expected one: {run}@EPOCH with {_choice(run, epochs)}.")
    named = {LAST: run / "backbone", BEST: best_folder(run)}
    folder = named[which] if which in named else epochs.get(float(which))
    if folder is None or not (folder / "card.json").exists():
        raise BackboneError(
            f"{spec}: this run has no such backbone; it has {_choice(run, epochs) or 'none yet'}. A pretraining keeps those of "
            "keep.epochs=[…] or keep.every_epochs=…, and with keep.best=true the best."
        )
    return folder


def expanded(specs: Iterable[str]) -> list[str]:
    """Specs of backbones, with `RUN@EPOCH` for every epoch of the run in place of `RUN@all`, also before `,pooling=NAME`.

    Raises:
        BackboneError: If such a run has no backbone.
    """
    named = []
    for spec in specs:
        bare, pooling = stated_pooling(spec)
        run, which = run_and_epoch(bare) or (bare, "")
        if which != ALL:
            named.append(spec)
            continue
        if not (epochs := kept_epochs(Path(run))):
            raise BackboneError(f"{spec}: this run has no backbone yet. The same command of pretraining continues it.")
        named += [f"{run}@{epoch:g}" + (f"{SUFFIX}{pooling}" if pooling else "") for epoch in epochs]
    return named


def _last_epoch(folder: Path) -> float:
    """Number of epochs of the run whose last backbone a folder holds; 0 without training."""
    card = BackboneCard.load(folder)
    trained = bool((card.training or {}).get("steps"))
    return float(((card.recipe or {}).get("train") or {}).get("epochs") or 0) if trained else 0.0


def _choice(run: Path, epochs: dict[float, Path]) -> str:
    """The epochs that a run has, in words."""
    return ", ".join([*(f"{epoch:g}" for epoch in epochs), *([BEST] if best_folder(run).exists() else [])])
