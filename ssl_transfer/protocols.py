"""Protocols: the ways in which a backbone is evaluated on a task, each declared once.

`evaluation.registry` binds every name to its implementation; everything else that differs between protocols (which tasks they
score, whether they train the backbone, how reports describe them) is read from here. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """What is fixed about a protocol.

    Attributes:
        name: On the command line, in results, and as the key of a study's `resources`.
        task_kinds: Kinds of task that it scores (`Task.kind`).
        frozen: Whether the backbone stays as it is: the protocol sees cached features. Otherwise it trains the backbone.
        has_strategies: Whether a fine-tuning strategy is chosen.
        title: As reports print it.
        methods_text: How a paper's methods section describes it: a clause without its full stop.
    """

    name: str
    task_kinds: tuple[str, ...]
    frozen: bool
    has_strategies: bool
    title: str
    methods_text: str


PROTOCOLS = {
    "linear_probe": Protocol(
        name="linear_probe",
        task_kinds=("multiclass", "multilabel"),
        frozen=True,
        has_strategies=False,
        title="linear probe",
        methods_text="frozen features were judged by L2-regularised logistic regression, its strength selected on validation",
    ),
    "knn": Protocol(
        name="knn",
        task_kinds=("multiclass", "multilabel"),
        frozen=True,
        has_strategies=False,
        title="kNN",
        methods_text="frozen features were judged by cosine k-nearest neighbours, k and vote selected on validation",
    ),
    "finetune": Protocol(
        name="finetune",
        task_kinds=("multiclass", "multilabel"),
        frozen=False,
        has_strategies=True,
        title="finetune",
        methods_text="backbones were fine-tuned with a new linear head, the step selected on validation",
    ),
    "segment": Protocol(
        name="segment",
        task_kinds=("segmentation",),
        frozen=False,
        has_strategies=True,
        title="segment",
        methods_text="backbones were fine-tuned under a U-Net decoder, the step selected on validation, Dice per case",
    ),
}

FROZEN = tuple(name for name, protocol in PROTOCOLS.items() if protocol.frozen)
WITH_STRATEGIES = tuple(name for name, protocol in PROTOCOLS.items() if protocol.has_strategies)


def protocols_for(kind: str) -> list[str]:
    """Names of the protocols that score tasks of a kind (`Task.kind`)."""
    return [name for name, protocol in PROTOCOLS.items() if kind in protocol.task_kinds]
