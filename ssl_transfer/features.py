"""The stage `features`: one pass of a backbone over a store, kept for every later use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch
from safetensors.numpy import load_file, save_file

from ssl_transfer.console import Progress, is_main_process
from ssl_transfer.data.store import ImageStore
from ssl_transfer.errors import UsageError
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.run import claimed, read_json, run_id, whole_folder, write_json
from ssl_transfer.training.embedding import embed

SCHEMA = 1
CACHE = Path("runs/features")


@dataclass(frozen=True)
class Features:
    """Feature vectors of every image of a store.

    Attributes:
        values: Float32, shape (N, D), in the store's order.
        card: Ids of backbone and store, size, precision.
        path: The cached folder.
    """

    values: np.ndarray
    card: dict
    path: Path

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Open a features folder.

        Raises:
            UsageError: If it is none.
        """
        path = Path(path)
        card = read_json(path / "card.json")
        if not card or card.get("kind") != "features" or card.get("schema") != SCHEMA:
            raise UsageError(f"{path}: no features folder of schema {SCHEMA}. Make one with: ssl-transfer features …")
        return cls(load_file(path / "features.safetensors")["features"], card, path)

    @property
    def rows(self) -> pandas.DataFrame:
        """Which image each vector belongs to: `row`, `pixel_digest`, patient, label, split."""
        return pandas.read_parquet(self.path / "rows.parquet")


def extract_features(
    backbone: Backbone,
    store: ImageStore,
    out: str | Path | None = None,
    size: int | None = None,
    precision: str = "fp32",
) -> Features:
    """Compute features of every image of a store, or read them if that was done before.

    Args:
        backbone: Any.
        store: Any whose images the backbone can read.
        out: Folder; None: a folder under `runs/features/` named by the inputs.
        size: Height and width that the backbone sees; None: its own.
        precision: `fp32` or `bf16`.

    Raises:
        UsageError: If `out` holds something else.
    """
    size = size or backbone.card["image_size"]
    identity = features_id(backbone, store, size, precision)
    folder = Path(out) if out else CACHE / identity
    with claimed(folder.parent / f".{folder.name}.lock"):  # jobs that share them may run side by side
        return _kept(folder, identity) or _extract(backbone, store, folder, identity, size, precision)


def features_id(backbone: Backbone, store: ImageStore, size: int | None = None, precision: str = "fp32") -> str:
    """The `run_id` of features that `extract_features` would compute of these."""
    size = size or backbone.card["image_size"]
    return run_id("features", {"size": size, "precision": precision}, [backbone.id, store.id])


def _kept(folder: Path, identity: str) -> Features | None:
    """Features that are there already.

    Raises:
        UsageError: If they are of other inputs.
    """
    if not folder.exists():
        return None
    features = Features.load(folder)
    if features.card["run_id"] != identity:
        raise UsageError(f"{folder}: holds features of other inputs ({features.card['run_id']}). Give another --out.")
    return features


def _extract(backbone: Backbone, store: ImageStore, folder: Path, identity: str, size: int, precision: str) -> Features:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone.to(device, memory_format=torch.channels_last)
    with Progress("features", len(store)) as progress:
        values = embed(
            backbone, store, np.arange(len(store)), size, device=device, bf16=precision == "bf16",
            on_batch=lambda images: progress.update(steps=images),
        )  # fmt: skip
    card = {
        "schema": SCHEMA, "kind": "features", "run_id": identity, "backbone": backbone.id, "store": store.id,
        "backbone_name": backbone.card["name"], "store_path": str(store.path), "size": size, "precision": precision,
        "shape": list(values.shape),
    }  # fmt: skip
    if is_main_process():
        keys = {name: store.column(name) for name in ("pixel_digest", "patient", "label", "split")}
        with whole_folder(folder) as temporary:
            save_file({"features": values}, temporary / "features.safetensors")
            pandas.DataFrame({"row": np.arange(len(store)), **keys}).to_parquet(temporary / "rows.parquet", index=False)
            write_json(temporary / "card.json", card)
    return Features(values, card, folder)
