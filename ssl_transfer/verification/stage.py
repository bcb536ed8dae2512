"""The stage `verify`: check an artifact, or all artifacts below a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssl_transfer.errors import UsageError
from ssl_transfer.run import read_json
from ssl_transfer.verification.artifacts import RECORDS, SIGNS, artifacts_below, record_of
from ssl_transfer.verification.backbones import verify_backbone, verify_features
from ssl_transfer.verification.findings import Findings
from ssl_transfer.verification.results import EXPORT, verify_export, verify_record, verify_result, verify_run
from ssl_transfer.verification.stores import verify_store
from ssl_transfer.verification.studies import verify_study

CARDS: dict[str, Callable[[Path, Findings], Any]] = {
    "store": verify_store,
    "backbone": verify_backbone,
    "features": verify_features,
}


def verify(path: str | Path) -> dict[str, Any]:
    """Check an artifact: checksums, and whether its files agree with each other.

    Args:
        path: A store, backbone, features, run, result, ranking, analysis, tuning, export or study, or a folder of such.

    Returns:
        `path`; `checked` and `problems`, lists of `path` and `text`; `ok`.

    Raises:
        UsageError: If there is no artifact.
    """
    path = Path(path)
    folder = path.parent if path.name in RECORDS and path.is_file() else path
    findings = Findings()
    artifacts = list(artifacts_below(folder))
    if not artifacts:
        raise UsageError(
            f"{path}: found no artifact, expected the folder of a store, backbone, features, run, result, export or study, or a "
            "folder of such."
        )
    for artifact in artifacts:
        verify_artifact(artifact, findings)
    return {
        "path": str(path),
        "ok": not findings.problems,
        "checked": [asdict(finding) for finding in findings.checked],
        "problems": [asdict(finding) for finding in findings.problems],
    }


def verify_artifact(folder: Path, findings: Findings) -> None:
    """Check the artifact of a folder, or the results below it.

    Args:
        folder: The folder.
        findings: Collects what is found.
    """
    record = record_of(folder)
    if record == "plan.json":
        verify_study(folder, findings, verify_artifact)
    elif record == "run.json":
        verify_run(folder, findings)
    elif record == "result.json":
        verify_result(folder, findings)
    elif record == EXPORT:
        verify_export(folder, findings)
    elif record == "card.json":
        _verify_card(folder, findings)
    elif record:
        verify_record(folder, record, findings)
    else:
        for artifact in artifacts_below(folder):
            verify_artifact(artifact, findings)


def _verify_card(folder: Path, findings: Findings) -> None:
    kind = (read_json(folder / "card.json") or {}).get("kind")
    if kind not in CARDS:
        kind = next((kind for name, kind in reversed(SIGNS.items()) if (folder / name).exists()), None)
    if kind is None:
        findings.wrong(folder / "card.json", "is the card of no store, backbone or features")
        return
    CARDS[kind](folder, findings)
