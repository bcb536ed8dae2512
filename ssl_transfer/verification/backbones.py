"""Checks of backbones and features: their tensors against the digests in their cards."""

from __future__ import annotations

import json
from pathlib import Path

from ssl_transfer.cards import BackboneCard, FeaturesCard
from ssl_transfer.data.passport import FOLDER as PASSPORT
from ssl_transfer.data.passport import Passport
from ssl_transfer.errors import UsageError
from ssl_transfer.models.tensor_files import stored_digest, stored_shapes
from ssl_transfer.records import damage, parquet_rows
from ssl_transfer.run import file_digest
from ssl_transfer.verification.findings import Findings


def verify_backbone(folder: Path, findings: Findings) -> BackboneCard | None:
    """Check a backbone: its weights, architecture and intensity have the id in the card; `config.json` and passport fit it.

    Args:
        folder: Folder of the backbone.
        findings: Collects what is found.

    Returns:
        Its card; None if that cannot be read.
    """
    with findings.reading(folder):
        card = BackboneCard.load(folder)
        with findings.reading(folder / "model.safetensors"):
            digest = stored_digest(folder / "model.safetensors", card)
            if digest != card.id:
                findings.wrong(
                    folder / "model.safetensors",
                    f"weights, architecture and intensity give {digest}, the card says {card.id}",
                )
            else:
                findings.fine(folder, f"backbone {card.id}: weights, architecture and intensity as the card states")
        if problem := _config_problem(folder / "config.json", card):
            findings.wrong(folder / "config.json", problem)
        with findings.reading(folder / PASSPORT):
            passport = Passport.load(folder, card.passport)
            if card.passport is not None and (digest := passport.content_digest()) != card.passport:
                findings.wrong(folder / PASSPORT, f"its arrays give {digest}, the card says {card.passport}")
        return card
    return None


def _config_problem(path: Path, card: BackboneCard) -> str:
    """What is wrong with the file for timm, in words; empty if nothing is."""
    if problem := damage(path):
        return problem
    config = json.loads(path.read_text())
    if not str(config.get("architecture")).startswith(card.architecture):
        return f"architecture: found {config.get('architecture')}, the card says {card.architecture}"
    if config.get("num_features") != card.feature_dim:
        return f"num_features: found {config.get('num_features')}, the card says {card.feature_dim}"
    return ""


def verify_features(folder: Path, findings: Findings) -> None:
    """Check features: the digest and shape of the vectors, and the number of rows.

    Args:
        folder: Folder of the features.
        findings: Collects what is found.
    """
    with findings.reading(folder):
        card, path = FeaturesCard.load(folder), folder / "features.safetensors"
        with findings.reading(path):
            before = len(findings.problems)
            if (shape := stored_shapes(path).get("features")) != card.shape:
                findings.wrong(path, f"found vectors of shape {shape}, the card says {card.shape}")
            if card.digest is not None and file_digest(path) != card.digest:
                findings.wrong(path, "its digest is not that of the card: it was damaged or changed")
            if len(findings.problems) == before:
                known = "" if card.digest else " (no digest: of an earlier version)"
                findings.fine(folder, f"features {card.run_id}: vectors as the card states{known}")
        rows = parquet_rows(folder / "rows.parquet", UsageError, "Compute the features again.")
        if len(rows) != card.shape[0]:
            findings.wrong(folder / "rows.parquet", f"found {len(rows)} rows, the card says {card.shape[0]}")
