"""`ssl-transfer inspect`: describe an artifact."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from ssl_transfer.channels import WINDOWS_HU, Window
from ssl_transfer.cli.decisions_text import store_text
from ssl_transfer.cli.text import as_lines
from ssl_transfer.cli.verb import Verb
from ssl_transfer.console import say
from ssl_transfer.errors import UsageError

RECORDS = (
    "export",
    "card",
    "result",
    "run",
    "quickstart",
    "plan",
    "rank",
    "analysis",
    "tuning",
)  # names of files, without .json
BY, WINDOW = "label", "soft_tissue"  # of a contact sheet


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a path, the path of a figure, and the source whose files are named."""
    parser.add_argument("path", type=Path, help="a store, backbone, run, result, ranking, analysis, export or study")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw a contact sheet of a store")
    parser.add_argument("--by", default=BY, metavar="COLUMN", help="of the contact sheet: a row for each value of this")
    parser.add_argument(
        "--window",
        default=WINDOW,
        metavar="NAME|LOW,HIGH",
        help=f"of a contact sheet of HU: {', '.join(WINDOWS_HU)}, or its ends (default {WINDOW})",
    )
    parser.add_argument(
        "--names",
        type=Path,
        metavar="SOURCE",
        help="print which file of its source each hash in the column `file` stands for",
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Read the card of an artifact."""
    from ssl_transfer.run import read_json

    path: Path = options.path.parent if options.path.name == "result.json" else options.path
    cards = (read_json(path / f"{name}.json") for name in RECORDS)
    card = next(filter(None, cards), None)
    kind = (card or {}).get("kind") or (card or {}).get("stage")
    if options.figure and kind != "store":
        raise UsageError(f"{path}: --figure draws stores, and this is {kind or 'nothing that ssl_transfer wrote'}.")
    if options.names and kind != "store":
        raise UsageError(f"{path}: --names is for stores, and this is {kind or 'nothing that ssl_transfer wrote'}.")
    if not options.figure and (options.by, options.window) != (BY, WINDOW):
        raise UsageError(f"{path}: --by and --window are of the contact sheet. Add --figure FILE.png.")
    if kind == "store" or card is None:  # ImageStore reports what is wrong with such a path
        return _store(path, options)
    if kind == "plan":
        from ssl_transfer.study.stage import status

        return status(path)
    if kind == "pretrain":
        return {**card, "done": (path / "backbone" / "card.json").exists(), "run": str(path), **_measured(path)}
    return _validated(path, str(kind)) or card


def _measured(run: Path) -> dict[str, Any]:
    """What a pretraining was measured to be: its parent, the online measurements over epochs, and the backbones it has kept."""
    from ssl_transfer.cards import BackboneCard
    from ssl_transfer.kept import BEST, best_folder, kept_epochs
    from ssl_transfer.run import read_log

    names = ("epoch", "knn", "knn_se", "linear_probe", "rankme")
    monitor = [{name: line.get(name) for name in names} for line in read_log(run / "log.jsonl") if "knn" in line]
    last, epochs = run / "backbone", [f"{run}@{epoch:g}" for epoch in kept_epochs(run)]
    training = BackboneCard.load(last).training if (last / "card.json").exists() else None
    compared = {key: (training or {})[key] for key in ("parent", "below_parent", "best") if key in (training or {})}
    best = [f"{run}@{BEST}"] if best_folder(run).exists() else []
    return {**compared, "monitor": monitor, "backbones": [*epochs, *best]}


def _validated(path: Path, kind: str) -> dict[str, Any] | None:
    """The content of a card or result, checked; None for other kinds.

    Raises:
        BackboneError, UsageError: If it is damaged.
    """
    from ssl_transfer.cards import BackboneCard, FeaturesCard
    from ssl_transfer.result import Analysis, EvalResult, Ranking, Tuning

    kinds = {"backbone": BackboneCard, "features": FeaturesCard, "result": EvalResult, "rank": Ranking}
    kinds |= {"analysis": Analysis, "tuning": Tuning}
    return kinds[kind].load(path).to_json() if kind in kinds else None


def _store(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.data.inspect import contact_sheet, store_summary
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(path)
    if options.figure:
        contact_sheet(store, options.figure, by=options.by, window_hu=_window(options.window))
        say(f"contact sheet: {options.figure}")
    if options.names:
        from ssl_transfer.data.ingest.lookup import file_names

        return {"kind": "names", "store": str(path), "names": file_names(store, options.names)}
    return store_summary(store)


def _window(text: str) -> Window:
    """A window by its name or its ends in HU."""
    try:
        low, high = WINDOWS_HU.get(text) or map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not low < high:
        raise UsageError(
            f"--window {text}: expected {', '.join(WINDOWS_HU)}, or a lower and an upper end, such as 0,80."
        )
    return low, high


def as_text(answer: dict[str, Any]) -> str:
    """The answer as lines; the decisions of a store as a table."""
    return store_text(answer) if answer.get("kind") == "store" else as_lines(answer)


VERB = Verb(
    "print what an artifact is: a store, backbone, features, result, ranking, analysis, export or study",
    arguments,
    run,
    as_text,
)
