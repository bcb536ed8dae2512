"""The stage `features`: one pass of a backbone over a store, cached for later use."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas
import torch
from pydantic import PositiveInt
from safetensors import safe_open
from safetensors.numpy import save_file

from ssl_transfer.cards import FEATURES_AGAIN, FeaturesCard
from ssl_transfer.console import Progress, is_main_process
from ssl_transfer.cost import metered
from ssl_transfer.data.altered import ClearedAir
from ssl_transfer.data.images import Images
from ssl_transfer.data.intensity import Scale
from ssl_transfer.data.presets import VIEWS, mild
from ssl_transfer.data.store_watch import StoreWatch
from ssl_transfer.data.views import ViewMaker
from ssl_transfer.environment import FLOAT32
from ssl_transfer.errors import UsageError
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.models.device import on_fastest_device
from ssl_transfer.models.embedding import embed, embed_layers, embed_poolings, evaluating, prepare
from ssl_transfer.models.pooling import STORED, available
from ssl_transfer.models.ranks import gpu_count
from ssl_transfer.paths import portable
from ssl_transfer.records import parquet_rows
from ssl_transfer.run import Artifact, claimed, file_digest, read_json, whole_folder

Precision = Literal["fp32", "bf16"]
FOLDER_OPTION = "--out (of features) or --features (of evaluate)"


@dataclass(frozen=True)
class Features:
    """Feature vectors of every image of a store.

    Attributes:
        values: Float32, shape (N, D), in the store's order.
        card: Ids of backbone and store, image size, precision.
        path: The cached folder.
        others: Further poolings, (N, D'), which `pool="all"` computes.
    """

    values: np.ndarray
    card: FeaturesCard
    path: Path
    others: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> Features:
        """Open a features folder.

        Raises:
            UsageError: If it is no features folder, or a damaged one.
        """
        path = Path(path)
        card = FeaturesCard.load(path)
        values = _values(path / "features.safetensors", card)
        others = {name: values.pop(name) for name in card.poolings or ()}
        return cls(values["features"], card, path, others)

    def pooled(self, pooling: str) -> np.ndarray:
        """The vectors of a pooling, that of the backbone or one of `others`.

        Raises:
            UsageError: If there are none.
        """
        if pooling == self.card.pooling or self.card.pooling is None:  # None: of a CNN, by an earlier version
            return self.values
        if pooling == "cls+mean":
            return np.concatenate([self.pooled("cls"), self.pooled("mean")], 1)
        if pooling not in self.others:
            raise UsageError(f"{self.path}: has no features of pooling={pooling}. Compute them with pool=all.")
        return self.others[pooling]

    @property
    def rows(self) -> pandas.DataFrame:
        """Which image each vector belongs to: `row`, `pixel_digest`, patient, label, split.

        Raises:
            UsageError: If the file is damaged.
        """
        path = self.path / "rows.parquet"
        rows = parquet_rows(path, UsageError, FEATURES_AGAIN)
        if len(rows) != self.card.shape[0]:
            raise UsageError(f"{path}: found {len(rows)} rows, expected {self.card.shape[0]}. {FEATURES_AGAIN}")
        return rows


def _values(path: Path, card: FeaturesCard) -> dict[str, np.ndarray]:
    """The vectors of a features folder: `features`, and those of each of its other poolings.

    Raises:
        UsageError: If the file is damaged, or its shape is not that of the card.
    """
    try:
        with safe_open(path, "numpy") as tensors:  # the header is compared before memory is allocated
            shape, kind = tuple(tensors.get_slice("features").get_shape()), tensors.get_slice("features").get_dtype()
            names = card.poolings or ()
            lengths = {tensors.get_slice(name).get_shape()[0] for name in names}
            if (shape, kind) == (card.shape, "F32") and lengths <= {card.shape[0]}:
                return {name: tensors.get_tensor(name) for name in ("features", *names)}
    except Exception as error:  # safetensors raises errors of its own, and OSError
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}. {FEATURES_AGAIN}") from None
    raise UsageError(f"{path}: found {kind} of shape {shape}, expected F32 of shape {card.shape}. {FEATURES_AGAIN}")


def extract_features(
    backbone: Backbone,
    store: Images,
    out: str | Path | None = None,
    *,
    size: PositiveInt | None = None,
    precision: Precision = "fp32",
    air: Literal["clear"] | None = None,
    pool: Literal["all"] | None = None,
) -> Features:
    """Compute features of every image of a store, or read them from the cache.

    Args:
        backbone: The backbone.
        store: A store, or a view of one, with the number of channels that the backbone takes.
        out: Folder; None: a folder under `runs/features/` named by the inputs.
        size: Height and width of its input, in pixels; None: the backbone's image size.
        precision: Precision of the computation; features are stored in float32.
        air: `clear`: images without the grey level of air (see `ClearedAir`), as for tasks whose card says so.
        pool: `all`: for a ViT, every pooling that it has from one forward pass, for `pool=[…]` of a probe; a CNN has one.

    Raises:
        UsageError: If `out` holds features of another backbone, store, size or precision, or other files.
    """
    store = ClearedAir(store) if air else store
    size = size or backbone.card.image_size
    if not backbone.reads_images and size != backbone.card.image_size:
        raise UsageError(f"size={size}: the features of {backbone.card.name} are from a file. Leave size out.")
    pool = pool if len(available(backbone.model)) > 1 else None
    artifact = _artifact(backbone, store, size, precision, out, pool)
    folder = artifact.folder
    with claimed(folder.parent / f".{folder.name}.lock"):  # jobs that need the same features may run in parallel
        _check_inputs(artifact, backbone, store, size, precision, pool)
        if artifact.is_finished(quiet=True):
            return Features.load(folder)
        return _extract(backbone, store, artifact, size, precision, pool)


def embed_images(
    backbone: Backbone,
    images: np.ndarray,
    *,
    value_range: tuple[float, float] | None = None,
    size: int | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Compute features of images in memory; nothing is cached.

    Args:
        backbone: The backbone.
        images: Shape (B, C, H, W) with one or three channels, or grey (B, H, W), any dtype.
        value_range: Values that become 0 and 1; None: 0 and 255 for uint8. For CT, `backbone.intensity.window_hu`.
        size: Height and width of the backbone's input, in pixels; None: its image size.
        batch_size: Images at once.

    Returns:
        Float32, shape (B, feature_dim).

    Raises:
        UsageError: If the shape is another, images that are not uint8 come without a range, or the backbone reads slices or
            windows as channels.
    """
    if backbone.card.channels.are_stated:
        raise UsageError(
            f"{backbone.card.name}: its channels are {backbone.card.channels}, which need a store. Take extract_features."
        )
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(
            f"images: found shape {images.shape}, expected (B, C, H, W) with 1 or 3 channels, or (B, H, W)."
        )
    if value_range is None and images.dtype != np.uint8:
        raise UsageError(
            f"images: of {images.dtype} the range is not known. Give value_range, such as (-160, 240) of HU."
        )
    scale, size = Scale(*(value_range or (0, 255))), size or backbone.card.image_size
    features = np.empty((len(images), backbone.feature_dim), np.float32)
    with on_fastest_device(backbone) as device, evaluating(backbone, device):
        for start in range(0, len(images), batch_size):
            part = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size])).to(device)
            features[start : start + len(part)] = backbone(prepare(part, scale, size, backbone)).float().cpu().numpy()
    return features


def layer_features(
    backbone: Backbone, store: Images, rows: np.ndarray, size: int | None = None, precision: str = "fp32"
) -> dict[str, np.ndarray]:
    """Activations of a backbone's layers on some images, not cached: layer -> mean over positions or tokens, float32 (n, C).

    Layers are those that timm lists, from input to output, without the final features.
    """
    with on_fastest_device(backbone) as device:
        return embed_layers(backbone, store, rows, size, device=device, bf16=precision == "bf16")


def paired_features(
    backbone: Backbone, store: Images, rows: np.ndarray, seed: int = 0, size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Features of two mild random views of some images, for `geometry.alignment`: two arrays, float32 (n, D)."""
    size, channels, store = size or backbone.card.image_size, backbone.card.in_channels, backbone.inputs(store)
    name, options = mild(store.card.domain, store.units, channels)
    preset = VIEWS[name](size, channels, store.units, **options).for_input(backbone.intensity, backbone.card.channels)
    maker = ViewMaker([preset] * 2, backbone.scale(store), seed, channels)
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    with on_fastest_device(backbone) as device, evaluating(backbone, device):
        for part in np.array_split(rows, max(1, -(-len(rows) // 256))):
            views = maker(torch.from_numpy(store.read(part)).to(device), part, 0)
            for side, view in zip(sides, views, strict=True):
                side.append(backbone(view.contiguous(memory_format=torch.channels_last)).float().cpu().numpy())
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def features_id(backbone: Backbone, store: Images, size: int | None = None, precision: str = "fp32") -> str:
    """The `run_id` of the features that `extract_features` computes from a backbone and a store."""
    return _artifact(backbone, store, size, precision).id


def _artifact(
    backbone: Backbone,
    store: Images,
    size: int | None,
    precision: str,
    out: str | Path | None = None,
    pool: str | None = None,
) -> Artifact:
    """The features folder of a backbone and a store."""
    settings = {"size": size or backbone.card.image_size, "precision": precision} | ({"pool": pool} if pool else {})
    artifact = Artifact.of("features", settings, [backbone.id, store.id], out, record="card.json")
    return replace(artifact, option=FOLDER_OPTION)


def _check_inputs(
    artifact: Artifact, backbone: Backbone, store: Images, size: int, precision: str, pool: str | None
) -> None:
    """Refuse a folder with features of other inputs, and name the inputs that differ.

    Raises:
        UsageError: If there are such features.
    """
    content = read_json(artifact.folder / "card.json")
    if not content or content.get("kind") != "features" or content.get("run_id") == artifact.id:
        return
    card = FeaturesCard.load(artifact.folder)
    inputs = {  # what the features are of, what was expected
        "backbone": (f"{card.backbone_name} ({card.backbone})", f"{backbone.card.name} ({backbone.id})"),
        "store": (f"{card.store_path} ({card.store})", f"{store.path} ({store.id})"),
        "size": (card.size, size),
        "precision": (card.precision, precision),
        "pool": ("all" if card.poolings else None, pool),
    }
    same = {"backbone": card.backbone == backbone.id, "store": card.store == store.id}
    differences = [
        f"{name} {actual}, expected {expected}"
        for name, (actual, expected) in inputs.items()
        if not same.get(name, actual == expected)
    ]
    raise UsageError(
        f"{artifact.folder}: features of other inputs: {'; '.join(differences) or 'another version made them'}. "
        f"Give another {FOLDER_OPTION}; without it the folder is named by the inputs."
    )


def _extract(
    backbone: Backbone, store: Images, artifact: Artifact, size: int, precision: Precision, pool: str | None
) -> Features:
    own = backbone.pooling
    names = [own, *(name for name in STORED if name != own and name in available(backbone.model))] if pool else []
    watch = StoreWatch([store])
    with metered() as meter, on_fastest_device(backbone) as device, Progress("features", len(store)) as progress:
        settings: dict[str, Any] = {
            "size": size,
            "device": device,
            "bf16": precision == "bf16",
            "on_batch": lambda images: progress.update(steps=images),
        }
        rows = np.arange(len(store))
        if not backbone.reads_images:
            values, others = backbone.model.of(store), {}
        elif names:
            others = embed_poolings(backbone, store, rows, names, **settings)
            values = others.pop(own)
        else:
            values, others = embed(backbone, store, rows, **settings), {}
        cost = meter.total(gpu_count(device))
    watch.check()
    card = FeaturesCard(
        run_id=artifact.id,
        backbone=backbone.id,
        store=store.id,
        backbone_name=backbone.card.name,
        store_path=portable(store.path),
        size=size,
        precision=precision,
        shape=values.shape,
        pooling=own,
        poolings=tuple(others) or None,
        float32=FLOAT32,
        cost=cost.to_json(),
    )
    if is_main_process():
        card = _write({"features": values, **others}, store, artifact.folder, card)
    return Features(values, card, artifact.folder, others)


def _write(tensors: dict[str, np.ndarray], store: Images, folder: Path, card: FeaturesCard) -> FeaturesCard:
    """Write the folder of features; returns its card."""
    keys = {name: store.column(name) for name in ("pixel_digest", "patient", "label", "split")}
    with whole_folder(folder) as temporary:
        save_file(tensors, temporary / "features.safetensors")
        pandas.DataFrame({"row": np.arange(len(store)), **keys}).to_parquet(temporary / "rows.parquet", index=False)
        card = replace(card, digest=file_digest(temporary / "features.safetensors"))
        card.save(temporary)
    return card
