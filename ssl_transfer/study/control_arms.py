"""Control arms of a study: evaluated like pretrainings, but in no family of tests."""

from __future__ import annotations

from collections.abc import Sequence

from ssl_transfer.cards import TRIVIAL, TRIVIAL_NAME
from ssl_transfer.study.arms import Arm
from ssl_transfer.study.design import Evaluation, Pretraining

CONTROL_PROTOCOL = "linear_probe"
PERMUTATION = "permutation"  # kind of control run, beside `trivial`
PERMUTATIONS = 4  # of the labels, per pretraining seed
UNSUITABLE = (
    "size=",
    "channels=",
    "pool=",
)  # settings of a backbone's input: trivial features see images as they are stored


def trivial_arm(arms: Sequence[Arm]) -> Arm:
    """Trivial features, at the draws of every pretraining seed of the evaluated arms; of none if all are public weights."""
    seeds = dict.fromkeys(seed for arm in arms if arm.pretraining.evaluated for seed in arm.seeds)
    trained: list[int | None] = [seed for seed in seeds if seed is not None]
    return Arm(TRIVIAL_NAME, {"pretraining": TRIVIAL_NAME}, Pretraining(backbone=TRIVIAL), trained or [None])


def permuted_arm(arms: Sequence[Arm], store: str | None) -> Arm:
    """The arm whose probe is fitted to permuted labels: that of a target's store, else the first trained one, else the first."""
    evaluated = [arm for arm in arms if arm.pretraining.evaluated]
    trained = [arm for arm in evaluated if not arm.pretraining.untrained]
    of_store = [arm for arm in trained if arm.pretraining.store is not None and arm.pretraining.store == store]
    return [*of_store, *trained, *evaluated][0]


def permuted(evaluation: Evaluation) -> Evaluation:
    """An evaluation at its largest fraction, of several permutations of the labels."""
    settings = {"resamples": 0, **evaluation.set, "permute_labels": True}
    changes = {"fractions": [max(evaluation.fractions)], "seeds": [*range(PERMUTATIONS)], "set": settings}
    return evaluation.model_copy(update=changes)


def with_trivial(evaluation: Evaluation) -> Evaluation:
    """An evaluation of trivial features: without bootstrap, since no interval over patients is reported of them."""
    return evaluation.model_copy(update={"set": {"resamples": 0, **evaluation.set}})
