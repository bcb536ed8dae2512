"""Caveats about images of the task that a backbone has seen in its training: by its passport, where there is one."""

from __future__ import annotations

from collections.abc import Mapping

from ssl_transfer.evaluation.contamination import EVIDENCE, seen_images, unknown_stages
from ssl_transfer.models.backbone import Backbone
from ssl_transfer.ranking.sample import Sample

WORDS = {"near": "near-duplicate"}  # of kinds of evidence


def contamination_caveats(backbones: Mapping[str, Backbone], sample: Sample) -> list[str]:
    """What is known of the images of a ranking: which backbones have seen some of them, and of which nothing is known.

    Images are compared with the training images of a backbone's passport, by patient, by pixels and, of 200 of them, for
    near-duplicates. For a backbone without a passport, only the names of its stores are known.

    Args:
        backbones: Name -> backbone.
        sample: Images of the task.
    """
    statements = {name: _statement(backbone, sample) for name, backbone in backbones.items()}
    seen = [f"{name} ({statement})" for name, statement in statements.items() if statement]
    unknown = [name for name, backbone in backbones.items() if not statements[name] and unknown_stages(backbone)]
    caveats = []
    if seen:
        caveats.append(
            f"Images or patients of this task were seen in training, so that its values may be too optimistic: {'; '.join(seen)}."
        )
    if unknown:
        caveats.append(
            f"Whether images of this task were seen in training is unknown, since there is no record of the training images: "
            f"{', '.join(unknown)}."
        )
    return caveats


def _statement(backbone: Backbone, sample: Sample) -> str | None:
    """What a backbone has seen of the images of a ranking; None: nothing that is known."""
    store = sample.task.store
    seen = seen_images(backbone, store, sample.rows)
    if seen.any.any():
        kinds = [
            f"{int(found.sum()):,} by {WORDS.get(kind, kind)}"
            for kind in EVIDENCE
            if (found := getattr(seen, kind)).any()
        ]
        return f"{int(seen.any.sum()):,} of {len(sample.rows):,} images: {', '.join(kinds)}"
    without_record = set(backbone.card.stores) - backbone.passport.stores
    return "trained on this store" if store.card.id in without_record else None
