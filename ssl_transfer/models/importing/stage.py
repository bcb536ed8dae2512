"""The stage that imports: a checkpoint of any layout becomes an ordinary backbone folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssl_transfer.cards import BackboneCard, Origin, TrainingStage, lineage
from ssl_transfer.data.intensity import Intensity
from ssl_transfer.domains import UNKNOWN
from ssl_transfer.errors import BackboneError, nearest
from ssl_transfer.models.adoption import adopt
from ssl_transfer.models.architecture import Architecture, has_fixed_size
from ssl_transfer.models.backbone import Backbone, save_backbone
from ssl_transfer.models.card import new_card
from ssl_transfer.models.importing.architectures import Fit, best_fit
from ssl_transfer.models.importing.checkpoint import Checkpoint, read_checkpoint
from ssl_transfer.models.importing.hub import HUB, fetch, parse_hub
from ssl_transfer.models.importing.layout import Layout, Renamed, Tensors, renamed, unwrapped
from ssl_transfer.models.importing.layouts import LAYOUTS
from ssl_transfer.models.importing.options import ImportOptions
from ssl_transfer.models.importing.preprocessing import intensity_of
from ssl_transfer.models.public_facts import public_facts
from ssl_transfer.paths import portable
from ssl_transfer.run import Artifact

NAMED = {layout.name: layout for layout in LAYOUTS}
LISTED = 3  # tensors in a message


class Recognised(NamedTuple):
    """A state dict of a checkpoint: its path there, its tensors, and their layout."""

    state_dict: str
    tensors: Tensors
    layout: Layout


def import_backbone(source: str | Path, out: str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Write a checkpoint as a backbone folder.

    Every tensor of the backbone comes from the checkpoint, and every other tensor of the checkpoint is named by the layout as no
    part of the backbone; otherwise it is refused.

    Args:
        source: A file, a folder, or `hf-hub:OWNER/NAME[@REVISION][/FILE]`.
        out: Folder of the backbone; None: `runs/NAME-ID`.
        **options: See `ImportOptions`.

    Returns:
        `backbone` (its path), `ignored` (what -> number of tensors), and fields of the card: `name`, `architecture`,
        `options`, `image_size`, `in_channels`, `feature_dim`, `method`, `source_domain`, `licence`, `intensity`, `adapted` and
        `origin`.

    Raises:
        BackboneError: If the file cannot be read, its layout is unknown, or a tensor is missing or left over.
        RecipeError: If there is no such domain.
        UnreachableError: If the hub cannot be reached.
        UsageError: If an option is impossible, or `out` holds something else.
    """
    given = ImportOptions(**options)
    text = str(source)
    repository = parse_hub(text) if text.startswith(HUB) else None
    checkpoint = read_checkpoint(*(fetch(repository) if repository else (Path(source), None)))
    name = given.name or (repository.name if repository else Path(source).name.partition(".")[0])
    settings = {**vars(given), "name": name}
    artifact = Artifact.of("import", settings, [checkpoint.sha256], out, record="card.json", name=name)
    with artifact.writing() as finished:
        if finished:
            return _answer(artifact.folder, BackboneCard.load(artifact.folder), None)
        found = recognise(checkpoint, given.layout, given.state_dict)
        converted = renamed(found.layout, found.tensors, text)
        fit = _fit(checkpoint, found, converted, given.as_, given.size)
        channels = fit.architecture.in_channels
        intensity, stated = intensity_of(
            checkpoint, found.tensors, found.layout, channels, window=given.window, mean=given.mean, std=given.std
        )
        origin = _origin(text if repository else portable(source), checkpoint, found, converted, fit, stated)
        facts = {"run_id": artifact.id, "origin": origin, **_training(name, given, checkpoint, found.layout, text)}
        backbone = _backbone(name, fit, converted.tensors, given.size, intensity, facts)
        save_backbone(backbone, artifact.folder)
    return _answer(artifact.folder, backbone.card, converted.ignored)


def recognise(checkpoint: Checkpoint, layout: str | None = None, state_dict: str | None = None) -> Recognised:
    """Find the layout of a checkpoint, and the state dict in it.

    Args:
        checkpoint: The checkpoint.
        layout: Name of the layout; None: the first one that recognises a state dict.
        state_dict: Path of the state dict; None: the one that the layout prefers.

    Raises:
        BackboneError: If there is no such layout or state dict, or no layout recognises one.
    """
    tensors = {path: unwrapped(found) for path, found in checkpoint.state_dicts.items()}
    if state_dict is not None:
        if state_dict not in tensors:
            raise BackboneError(
                f"{checkpoint.path}: --state-dict {state_dict}: not there.{nearest(state_dict, tensors)}"
            )
        tensors = {state_dict: tensors[state_dict]}
    if layout is not None and layout not in NAMED:
        raise BackboneError(f"--layout {layout}: no such layout.{nearest(layout, NAMED)}")
    for row in LAYOUTS if layout is None else (NAMED[layout],):
        paths = [path for path, found in tensors.items() if layout or row.recognises(found)]
        if paths:
            path = min(paths, key=row.preference)
            return Recognised(path, tensors[path], row)
    names = list(max(tensors.values(), key=len))
    raise BackboneError(
        f"{checkpoint.path}: no layout has tensors called {', '.join(names[:LISTED])}, … ({len(names)}). Give a --layout if one "
        f"is meant: {', '.join(NAMED)}."
    )


def _fit(checkpoint: Checkpoint, found: Recognised, converted: Renamed, as_: str | None, size: int | None) -> Fit:
    """The architecture that all tensors fit.

    Raises:
        BackboneError: If there is none, with the counts.
    """
    stated = as_ or found.layout.spec(checkpoint.config)
    specs = (stated,) if stated else found.layout.architectures
    fit = best_fit(specs, converted.tensors, size, found.layout.zero_biases)
    left = (*converted.unnamed, *fit.left)
    if fit.complete and not left:
        return fit
    where = f"{checkpoint.path}: layout {found.layout.name}{' of ' + found.state_dict if found.state_dict else ''}"
    parts = [f"{len(fit.matched)} tensors of {fit.architecture.name} matched", f"{_count(converted)} ignored"]
    for what, names in (("missing", fit.missing), ("left over", left), ("of another shape", fit.reshaped)):
        parts.append(f"{len(names)} {what}{_listed(names)}")
    others = [path for path in checkpoint.state_dicts if path and path != found.state_dict]
    first = converted.tensors.get("conv1.weight")
    stem = " A first convolution of 3 x 3 is --as resnet18,stem=small or the like." if _is_small(first) else ""
    raise BackboneError(
        f"{where}: {', '.join(parts)}. "
        f"Nothing was written. Name its architecture with --as NAME[,option=value]{' in place of ' + as_ if as_ else ''}, or "
        f"its layout with --layout{', or another --state-dict: ' + ', '.join(others[:LISTED]) if others else ''}.{stem}"
    )


def _is_small(first: torch.Tensor | None) -> bool:
    return first is not None and first.ndim == 4 and first.shape[-1] == 3


def _count(converted: Renamed) -> int:
    return sum(map(len, converted.ignored.values()))


def _listed(names: Sequence[str]) -> str:
    more = f", … ({len(names)})" if len(names) > LISTED else ""
    return f" ({', '.join(names[:LISTED])}{more})" if names else ""


def _training(name: str, given: ImportOptions, checkpoint: Checkpoint, layout: Layout, source: str) -> dict[str, Any]:
    """Method, domain and licence: as given, else of the model card, else of the table of public weights, else of the layout."""
    known = public_facts(source if source.startswith(HUB) else Path(source).name)
    domain = given.domain or known.domain
    method = given.method or next(
        (found for found in (known.method, layout.method) if found not in (None, UNKNOWN)), UNKNOWN
    )
    licence = given.licence or checkpoint.licence or known.licence or UNKNOWN
    dataset = None if given.domain else known.dataset
    stage = TrainingStage(name=name, method=method, domain=domain, images={}, dataset=dataset)
    return {"method": method, "licence": licence, **lineage(stage)}


def _origin(
    source: str, checkpoint: Checkpoint, found: Recognised, converted: Renamed, fit: Fit, preprocessing: str
) -> Origin:
    return Origin(
        source=source,
        sha256=checkpoint.sha256,
        layout=found.layout.name,
        state_dict=found.state_dict,
        matched=converted.sources,
        ignored=_count(converted),
        missing=len(fit.counters),
        preprocessing=preprocessing,
    )


def _backbone(
    name: str, fit: Fit, tensors: Tensors, size: int | None, intensity: Intensity, facts: dict[str, Any]
) -> Backbone:
    """The backbone with these tensors; at another image size, with a resampled position embedding.

    Raises:
        BackboneError: If the architecture cannot have this size.
    """
    architecture = fit.architecture
    model = architecture.build(seed=0)
    expected = model.state_dict()
    weights = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items() if name in expected}
    weights |= {counter: torch.zeros_like(expected[counter]) for counter in fit.counters}
    model.load_state_dict(weights)
    backbone = Backbone(model, new_card(name, architecture, model, intensity, **facts))
    if size is None or size == architecture.size:
        return backbone
    if not has_fixed_size(architecture.name):
        raise BackboneError(f"--size {size}: {architecture.name} has {architecture.size}.")
    resized = Architecture(**{**vars(architecture), "size": size})
    child = resized.build(seed=0)
    adapted = tuple(adopt(child, resized, backbone))
    return Backbone(child, new_card(name, resized, child, intensity, **facts, adapted=adapted))


def _answer(folder: Path, card: BackboneCard, ignored: dict[str, list[str]] | None) -> dict[str, Any]:
    """What the command prints; `ignored` is None for a backbone that was there already."""
    content = card.to_json()
    keys = ("name", "architecture", "options", "image_size", "in_channels", "feature_dim", "method", "source_domain")
    counts = None if ignored is None else {what: len(names) for what, names in ignored.items()}
    return {
        "backbone": str(folder),
        **{key: content[key] for key in (*keys, "licence", "intensity", "adapted", "origin") if key in content},
        **({} if counts is None else {"ignored": counts}),
    }
