"""Open backbones by name for the images of a store, with distinct names for tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssl_transfer.data.images import Images
from ssl_transfer.errors import UsageError
from ssl_transfer.kept import expanded
from ssl_transfer.models.backbone import Backbone, load_backbone, trivial_backbone
from ssl_transfer.models.given_features import PREFIX, given_card
from ssl_transfer.models.trivial import is_trivial


def open_backbone(spec: str | Path | Backbone, store: Images) -> Backbone:
    """Open a backbone for a store; without a size or channels in its spec, it has those of the store.

    Args:
        spec: A folder, `RUN@EPOCH`, `scratch:NAME`, `imagenet:NAME`, `timm:NAME[.TAG]`, `trivial`, `features:FILE` (see
            `given_features`), or an opened backbone.
        store: The store of its input images.

    Raises:
        BackboneError: If there is no such backbone.
    """
    if isinstance(spec, Backbone):
        return spec
    if str(spec).startswith(PREFIX):
        given = Backbone(*given_card(str(spec), store))
        given.spec = str(spec)
        return given.eval()
    if is_trivial(str(spec)):
        backbone = trivial_backbone(str(spec), store.shape)
        backbone.spec = str(spec)
        return backbone
    return load_backbone(spec, in_channels=store.shape[0], size=max(store.shape[1:]))


def open_backbones(
    backbones: Mapping[str, Backbone] | Sequence[str | Path | Backbone], store: Images
) -> dict[str, Backbone]:
    """Open backbones for a store, by name: the keys of a mapping, else the names of `by_name`; `RUN@all` is every epoch of a run.

    Raises:
        BackboneError: If there is no such backbone.
        UsageError: If a backbone occurs twice.
    """
    if isinstance(backbones, Mapping):
        return dict(backbones)
    specs = [each for spec in backbones for each in ([spec] if isinstance(spec, Backbone) else expanded([str(spec)]))]
    opened = [(spec, open_backbone(spec, store)) for spec in specs]
    return by_name([(backbone.id if spec is backbone else str(spec), backbone) for spec, backbone in opened])


def by_name(backbones: Sequence[tuple[str, Backbone]]) -> dict[str, Backbone]:
    """Name backbones by the first distinct one of: the name in the card, this with the pretraining seed, the spec.

    Args:
        backbones: Pairs of spec and backbone.

    Raises:
        UsageError: If a backbone occurs twice.
    """
    candidates = []
    for spec, backbone in backbones:
        name, seed = backbone.card.name, backbone.card.pretraining_seed
        candidates.append((name, *([] if seed is None else [f"{name} (seed {seed})"]), spec))
    counts = Counter(name for names in candidates for name in set(names))
    named: dict[str, Backbone] = {}
    for names, (spec, backbone) in zip(candidates, backbones, strict=True):
        if any(earlier.id == backbone.id for earlier in named.values()):
            raise UsageError(f"{spec} was given twice. Leave one out.")
        named[next((name for name in names if counts[name] == 1), spec)] = backbone
    return named
