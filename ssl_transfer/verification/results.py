"""Checks of results of `evaluate`, `tune`, `rank` and `analyze`, of exports, and of runs of `pretrain`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssl_transfer.errors import UsageError
from ssl_transfer.kept import FOLDER as KEPT
from ssl_transfer.recipe import PretrainRecipe, read_yaml, validate
from ssl_transfer.records import damage, parquet_rows
from ssl_transfer.result import Analysis, EvalResult, Ranking, Tuning
from ssl_transfer.run import file_digest, file_sha256
from ssl_transfer.verification.backbones import verify_backbone
from ssl_transfer.verification.findings import Findings

EXPORT = "export.json"
BESIDE = {"rank.json": ("scores.csv",), "analysis.json": ("explorer.html", "umap.parquet"), "tuning.json": ()}
LOADED: dict[str, Callable[[Path], Any]] = {
    "rank.json": Ranking.load,
    "analysis.json": Analysis.load,
    "tuning.json": Tuning.load,
}


def verify_result(folder: Path, findings: Findings) -> EvalResult | None:
    """Check the result of an evaluation: its own digest, and those of the files beside it.

    Args:
        folder: Folder of the result.
        findings: Collects what is found.

    Returns:
        The result; None if it cannot be read.
    """
    with findings.reading(folder / "result.json"):
        result = EvalResult.load(folder)
        before = len(findings.problems)
        _verify_files(folder, "result.json", result.files, findings)
        if (folder / "predictions.parquet").exists():
            with findings.reading(folder / "predictions.parquet"):
                parquet_rows(folder / "predictions.parquet", UsageError, "Evaluate again.")
        if (folder / "backbone").is_dir():
            verify_backbone(folder / "backbone", findings)
        if len(findings.problems) == before:
            findings.fine(folder, f"result {result.run_id}: {result.protocol} on {result.task['name']}")
        return result
    return None


def verify_export(folder: Path, findings: Findings) -> None:
    """Check an export: the digests of its files. Its README may be edited.

    Args:
        folder: Its folder.
        findings: Collects what is found.
    """
    path, before = folder / EXPORT, len(findings.problems)
    if problem := damage(path):
        findings.wrong(path, problem)
        return
    content = json.loads(path.read_text())
    files = content.get("files")
    if (
        not isinstance(files, dict)
        or not files
        or any(Path(name).is_absolute() or ".." in Path(name).parts for name in files)
    ):
        findings.wrong(path, "has no digests of files. Export again into another folder.")
        return
    _verify_files(folder, EXPORT, files, findings)
    if len(findings.problems) == before:
        findings.fine(folder, f"export to {content.get('to')} of backbone {content.get('backbone')}")


def _verify_files(folder: Path, record: str, files: dict[str, str], findings: Findings) -> None:
    """Compare files with the digests that a record has of them."""
    for name, digest in files.items():
        with findings.reading(folder / name):
            if file_digest(folder / name) != digest:
                findings.wrong(folder / name, f"its digest is not that of {record}: it was damaged or changed")


def verify_record(folder: Path, name: str, findings: Findings) -> None:
    """Check a ranking, an analysis or a tuning: its digest, and that the files beside it are there.

    Args:
        folder: Its folder.
        name: Name of its record.
        findings: Collects what is found.
    """
    with findings.reading(folder / name):
        loaded = LOADED[name](folder)
        missing = [beside for beside in BESIDE[name] if not (folder / beside).is_file()]
        for beside in missing:
            findings.wrong(folder / beside, "there is no such file")
        if not missing:
            findings.fine(folder, f"{loaded.kind} {loaded.run_id}: content as it was written")


def verify_run(folder: Path, findings: Findings) -> None:
    """Check a run of `pretrain`: its recipe, log and checkpoints, and its backbone once it is finished.

    Args:
        folder: Folder of the run.
        findings: Collects what is found.
    """
    if problem := damage(folder / "run.json"):
        findings.wrong(folder / "run.json", problem)
        return
    identity = json.loads((folder / "run.json").read_text()).get("run_id")
    if (folder / "recipe.yaml").exists():
        with findings.reading(folder / "recipe.yaml"):
            validate(PretrainRecipe, read_yaml(folder / "recipe.yaml"), str(folder / "recipe.yaml"))
    _verify_log(folder / "log.jsonl", findings)
    for path in sorted((folder / "checkpoints").glob("*.pt")):
        with findings.reading(path):
            _verify_checkpoint(path, findings)
    if not (folder / "backbone").exists():
        findings.fine(folder, f"run {identity}: not finished; the same command continues it")
        return
    for backbone in (folder / "backbone", *sorted((folder / KEPT).glob("[!.]*"))):
        card = verify_backbone(backbone, findings)
        if card and card.run_id != identity:
            findings.wrong(backbone, f"was written by run {card.run_id}, this is the folder of run {identity}")


def _verify_log(path: Path, findings: Findings) -> None:
    """Report lines that are no JSON objects; a torn last line, of a run that was killed, is none."""
    if not path.exists():
        return
    *lines, last = path.read_text(errors="replace").split("\n")
    torn = [number for number, line in enumerate(lines, 1) if not _is_object(line)]
    if torn:
        findings.wrong(path, f"{len(torn)} damaged line(s), the first is line {torn[0]}")
    elif last:
        findings.fine(path, "the last line is incomplete, of a run that was killed; readers leave it out")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _verify_checkpoint(path: Path, findings: Findings) -> None:
    stated = path.with_suffix(".sha256").read_text()
    if file_sha256(path) != stated:
        findings.wrong(path, "its digest is not that of the .sha256 beside it; the checkpoint before it will be used")
    else:
        findings.fine(path, "checkpoint: bytes as written")
