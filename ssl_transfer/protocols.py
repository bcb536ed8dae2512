"""Protocols: the ways in which a backbone is evaluated on a task, each declared once.

`evaluation.registry` binds every name to its implementation; everything else that differs between protocols (which tasks they
score, whether they train the backbone, how reports describe them) is read from here. Nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ssl_transfer.poolings import FIXED, GROUP_POOLINGS, LEARNED
from ssl_transfer.target_kinds import KINDS


@dataclass(frozen=True)
class Protocol:
    """What is fixed about a protocol.

    Attributes:
        name: On the command line, in results, and as the key of a study's `resources`.
        task_kinds: Kinds of task that it scores (`Task.kind`).
        frozen: Whether the backbone stays as it is: the protocol sees cached features. Otherwise it trains the backbone.
        has_strategies: Whether a fine-tuning strategy is chosen.
        draws: Settings under which it draws random numbers itself, such as `solver=sgd`; None: it always does.
        title: As reports print it.
        methods_text: How a paper's methods section describes it: a clause without its full stop.
        methods_text_of: The same for kinds of task that it scores in another way.
        group_poolings: How it pools the images of a group, for tasks with a label per patient, study or series.
    """

    name: str
    task_kinds: tuple[str, ...]
    frozen: bool
    has_strategies: bool
    draws: tuple[str, ...] | None
    title: str
    methods_text: str
    methods_text_of: Mapping[str, str] = field(default_factory=dict)
    group_poolings: tuple[str, ...] = ()

    def described(self, kinds: Iterable[str]) -> str:
        """How a methods section describes it on tasks of these kinds."""
        scored = [kind for kind in kinds if kind in self.task_kinds]
        texts = [self.methods_text_of.get(kind, self.methods_text) for kind in scored] or [self.methods_text]
        return "; ".join(dict.fromkeys(texts))

    def poolings_of(self, kind: str, stated: Sequence[str] = ()) -> tuple[str, ...]:
        """Candidate poolings of the images of a group, in tasks of a kind; heads that learn one are for classes.

        Args:
            kind: Kind of the task.
            stated: Those that a setting `group_pool` names, of which it may have none; empty: all that it has.

        Example:
            >>> PROTOCOLS["linear_probe"].poolings_of("survival"), PROTOCOLS["knn"].poolings_of("ordinal", ["topk"])
            (('mean', 'max'), ())
        """
        learns = not self.frozen or KINDS[kind].number is None
        has = [name for name in self.group_poolings if learns or name not in LEARNED]
        return tuple(name for name in stated or has if name in has)


PROTOCOLS = {
    "linear_probe": Protocol(
        name="linear_probe",
        task_kinds=("multiclass", "multilabel", "ordinal", "regression", "survival"),
        frozen=True,
        has_strategies=False,
        draws=("solver=sgd",),
        title="linear probe",
        methods_text="frozen features were judged by L2-regularised logistic regression, its strength selected on validation",
        group_poolings=GROUP_POOLINGS,
        methods_text_of={
            "ordinal": "frozen features were judged by L2-regularised logistic regressions of the thresholds between grades, "
            "their strength selected on validation",
            "regression": "frozen features were judged by ridge regression, its strength selected on validation",
            "survival": "frozen features were judged by a proportional hazards model (Cox, ties by Efron) with a ridge "
            "penalty, its strength selected on validation",
        },
    ),
    "knn": Protocol(
        name="knn",
        task_kinds=("multiclass", "multilabel", "ordinal", "regression"),
        frozen=True,
        has_strategies=False,
        draws=(),
        title="kNN",
        methods_text="frozen features were judged by cosine k-nearest neighbours, k and vote selected on validation",
        group_poolings=FIXED,
    ),
    "finetune": Protocol(
        name="finetune",
        task_kinds=("multiclass", "multilabel", "ordinal", "regression"),
        frozen=False,
        has_strategies=True,
        draws=None,
        title="finetune",
        methods_text="backbones were fine-tuned with a new linear head, the step selected on validation",
        group_poolings=("attention", "mean", "max", "topk"),
    ),
    "segment": Protocol(
        name="segment",
        task_kinds=("segmentation",),
        frozen=False,
        has_strategies=True,
        draws=None,
        title="segment",
        methods_text="backbones were fine-tuned under a U-Net decoder, the step selected on validation, Dice per case",
    ),
}

FROZEN = tuple(name for name, protocol in PROTOCOLS.items() if protocol.frozen)
RANKED_KINDS = ("multiclass", "multilabel", "ordinal")  # kinds of task for which `rank` orders backbones
WITH_STRATEGIES = tuple(name for name, protocol in PROTOCOLS.items() if protocol.has_strategies)


def protocols_for(kind: str) -> list[str]:
    """Names of the protocols that score tasks of a kind (`Task.kind`)."""
    return [name for name, protocol in PROTOCOLS.items() if kind in protocol.task_kinds]


def stated_group_pool(settings: Iterable[str]) -> list[str]:
    """The poolings that a setting `group_pool=[…]` names; empty without one."""
    stated = next((word for word in settings if word.startswith("group_pool=[")), "")
    return re.findall("[a-z]+", stated.partition("=")[2])


def depends_on_seed(protocol: str, fraction: float, settings: Iterable[str], grouped_kind: str | None = None) -> bool:
    """Whether the scores of an evaluation depend on its seed.

    They do not where all labels are used and are not permuted, the images have no noise, and the protocol draws nothing itself:
    a linear probe by L-BFGS of single images, and kNN.

    Args:
        protocol: A name in `PROTOCOLS`.
        fraction: Share of the training patients.
        settings: Its other settings, as `key=value`, each key once.
        grouped_kind: Kind of a task with a label per group of images, whose linear probe may train heads of bags, which draw
            their initial weights; None: the task has a label per image.

    Example:
        >>> depends_on_seed("knn", 1.0, ["k=[5]"]), depends_on_seed("knn", 0.1, ["k=[5]"])
        (False, True)
        >>> [depends_on_seed("linear_probe", 1.0, [word], "multiclass") for word in ("group_pool=[mean,max]", "resamples=0")]
        [False, True]
        >>> depends_on_seed("linear_probe", 1.0, [], "survival")
        False
    """
    draws, words = PROTOCOLS[protocol].draws, set(settings)
    noisy = any(word.startswith("noise.kind=") for word in words - {"noise.kind=none"})
    poolings = PROTOCOLS[protocol].poolings_of(grouped_kind, stated_group_pool(words)) if grouped_kind else ()
    heads = not set(LEARNED).isdisjoint(poolings)
    return draws is None or heads or fraction < 1 or noisy or not words.isdisjoint({*draws, "permute_labels=true"})
