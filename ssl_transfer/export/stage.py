"""The stage `export`: write a backbone in the form of another library, and check that this computes the same features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_transfer import __version__
from ssl_transfer.cards import TRIVIAL, BackboneCard
from ssl_transfer.console import warn
from ssl_transfer.errors import BackboneError, UsageError, nearest
from ssl_transfer.export.agreement import assert_agreement
from ssl_transfer.export.home import Home
from ssl_transfer.export.licences import is_non_commercial
from ssl_transfer.export.model_card import hub_head, model_card
from ssl_transfer.export.preprocessing import Preprocessing
from ssl_transfer.export.registry import HOMES
from ssl_transfer.models.backbone import Backbone, load_backbone
from ssl_transfer.result import EvalResult
from ssl_transfer.run import Artifact, file_digest, read_json, whole_folder, write_json

RECORD, README = "export.json", "README.md"


def export_backbone(
    backbone: Backbone | str | Path, to: str, out: str | Path, results: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Write a backbone in the form of another library. The export is kept only if that library computes the same features.

    Args:
        backbone: A backbone, or its path or name (see `load_backbone`).
        to: `timm`, `torchvision`, `onnx`, `monai` or `hf`.
        out: Folder that is written.
        results: Folders of evaluations of this backbone, for the model card.

    Returns:
        `kind` (`export`), `export` (the folder), `to`, `backbone` (its id), `name`, `licence`, `non_commercial`, `files`, and
        `largest_difference` of a feature of random images.

    Raises:
        BackboneError: If the library has no such architecture, or computes other features.
        UsageError: If there is no such library, a result is of another backbone, or `out` contains something else.
    """
    if to not in HOMES:
        raise UsageError(f"--to {to}: no such form.{nearest(to, HOMES)}")
    backbone = (backbone if isinstance(backbone, Backbone) else load_backbone(backbone)).eval()
    card = backbone.card
    if card.method == TRIVIAL:
        raise BackboneError(f"{card.name}: trivial features have no weights that could be exported.")
    loaded = [_of_backbone(path, backbone) for path in results]
    artifact = Artifact.of("export", {"to": to}, [card.id, *(result.run_id for result in loaded)], out, record=RECORD)
    with artifact.writing() as finished:
        if not finished:
            _write(HOMES[to], backbone, artifact, to, loaded)
    if is_non_commercial(card.licence):
        warn(
            f"{out}: the weights are under the licence '{card.licence}', which excludes commercial use. So does this export."
        )
    return answer(artifact)


def _of_backbone(path: str | Path, backbone: Backbone) -> EvalResult:
    """A result of an evaluation of the backbone.

    Raises:
        UsageError: If it is the result of another one.
    """
    result = EvalResult.load(path)
    if result.backbone["id"] != backbone.id:
        raise UsageError(
            f"--results {path}: is a result of the backbone {result.backbone['name']} ({result.backbone['id']}), and this is "
            f"{backbone.card.name} ({backbone.id}). Leave it out."
        )
    return result


def _write(home: Home, backbone: Backbone, artifact: Artifact, to: str, results: list[EvalResult]) -> None:
    """Write the folder, check it, and move it to its place."""
    card = backbone.card
    with whole_folder(artifact.folder) as folder:
        home.write(backbone, folder)
        difference = assert_agreement(home, backbone, folder)
        plan = Preprocessing.of(card, pooling_of(backbone))
        write_json(folder / "preprocessing.json", plan.to_json())
        text = model_card(card, plan, home.usage.replace("FOLDER", str(artifact.folder)), results)
        (folder / README).write_text((hub_head(card, results) if to == "hf" else "") + text)
        write_record(folder, artifact.id, to, card, largest_difference=difference)


def write_record(folder: Path, run_id: str, to: str, card: BackboneCard, **more: Any) -> None:
    """Write `export.json`: what was exported, and the digests of all files but the README, which its reader may edit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != README)
    content = {
        "kind": "export",
        "run_id": run_id,
        "to": to,
        "backbone": card.id,
        "name": card.name,
        "licence": card.licence,
    }
    content |= {"non_commercial": is_non_commercial(card.licence), **more, "version": __version__}
    content["files"] = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    write_json(folder / RECORD, content)


def pooling_of(backbone: Backbone) -> str:
    """How a backbone pools its last layer, in timm's word where there is one: `avg`, `token`, `cls+mean`, …"""
    return {"cls": "token", "mean": "avg"}.get(backbone.pooling, backbone.pooling)


def answer(artifact: Artifact) -> dict[str, Any]:
    """What an exported folder is, for `--json`."""
    content = read_json(artifact.folder / RECORD) or {}
    facts = ("to", "backbone", "name", "licence", "non_commercial", "largest_difference")
    files = sorted(path.name for path in artifact.folder.iterdir() if not path.name.startswith("."))
    return {
        "kind": "export",
        "export": str(artifact.folder),
        **{key: content.get(key) for key in facts},
        "files": files,
    }
