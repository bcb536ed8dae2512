"""What candidates say together: their order, how sure it is, which scores agree, and what to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_transfer.measures.agreement import FEWEST, agreement
from ssl_transfer.measures.metrics import metric_sign
from ssl_transfer.measures.transferability import ROWS_PER_FEATURE, SCORES
from ssl_transfer.ranking.candidate import CRITERIA, NAMES, Candidate
from ssl_transfer.ranking.sample import Sample

SURE = 0.95  # share of resampled patients in which the best must be ahead of another to be told apart from it
UNTRAINED = "none"  # the method of random initialisation
KNOWN_TO_MISLEAD = (
    "Transferability scores are known to mislead on medical tasks (arXiv 2308.07444, 2405.20420): a score is a hint, the "
    "cross-validated probe a measurement, and only fine-tuning (ssl-transfer evaluate finetune, or a study) the answer."
)


def verdict(candidates: list[Candidate], sample: Sample, by: str, more: list[str]) -> dict[str, Any]:
    """`order`, `first`, `not_told_apart`, `agreement`, `recommendation` and `caveats` of a ranking.

    Args:
        candidates: At least one that has a value by `by`.
        by: The criterion of the order.
        more: Caveats that the caller knows of.
    """
    sign = metric_sign(sample.task.card.metric) if by not in SCORES else 1
    ranked = sorted((one for one in candidates if one.values[by] is not None), key=lambda one: -sign * one.values[by])
    first = _first_places(ranked, by, sign)
    close = [one.name for one in ranked[1:] if first and not _ahead(ranked[0], one, by, sign)]
    agreeing = _agreement(candidates, by)
    return {
        "order": tuple(one.name for one in ranked),
        "first": first,
        "not_told_apart": (ranked[0].name, *close) if close else (),
        "agreement": agreeing,
        "recommendation": _recommendation(ranked, close, first, sample, by),
        "caveats": (*_caveats(candidates, ranked, sample, by, agreeing), *more),
    }


def measured_by(by: str, metric: str) -> str:
    """A criterion in words: `balanced accuracy of the probe`."""
    return NAMES[by] if by in SCORES else f"{metric.replace('_', ' ')} of the {NAMES[by]}"


def _first_places(ranked: list[Candidate], by: str, sign: int) -> dict[str, float] | None:
    """Share of resampled patients in which each is best; those that are equal share a place."""
    drawn = sign * np.stack([one.resampled.get(by, np.empty(0)) for one in ranked])
    drawn = drawn[:, np.isfinite(drawn).all(0)]
    if not drawn.size:
        return None
    best = drawn == drawn.max(0)
    shares = (best / best.sum(0)).mean(1)
    return {one.name: round(float(share), 4) for one, share in zip(ranked, shares, strict=True)}


def _ahead(one: Candidate, other: Candidate, by: str, sign: int) -> bool:
    """Whether one is better than another in nearly all resamples of the patients that both were scored on."""
    apart = sign * (one.resampled[by] - other.resampled[by])
    apart = apart[np.isfinite(apart)]
    return float((apart > 0).mean()) >= SURE


def _agreement(candidates: list[Candidate], by: str) -> dict[str, dict[str, float | None]]:
    """Correlations of every other criterion with the one that sets the order, over the candidates that have both, if three do."""
    found = {}
    for criterion in CRITERIA:
        both = [one for one in candidates if one.values[criterion] is not None and one.values[by] is not None]
        if criterion != by and len(both) >= FEWEST:
            values = agreement(*([one.values[name] for one in both] for name in (criterion, by)))
            clean = {name: round(float(value), 4) if np.isfinite(value) else None for name, value in values.items()}
            found[criterion] = {"n": len(both), **clean}
    return found


def _recommendation(
    ranked: list[Candidate], close: list[str], first: dict[str, float] | None, sample: Sample, by: str
) -> str:
    best, how = ranked[0], measured_by(by, sample.task.card.metric)
    value = f"{best.values[by]:.4g}"
    if len(ranked) == 1:
        return f"{best.name} is the only candidate ({how}: {value}): there is nothing to choose."
    if first is None:
        said = (
            f"{best.name} comes first by {how}, {value} against {ranked[1].values[by]:.4g} of {ranked[1].name}; no patients "
            "were resampled, so how sure that is remains open."
        )
    elif close:
        names = ", ".join([best.name, *close[:-1]]) + f" and {close[-1]}"
        said = (
            f"These patients do not tell {names} apart: {best.name} has the highest value by {how}, {value}, and is first in "
            f"{first[best.name]:.0%} of resampled patients. Take whichever is cheapest to have, or fine-tune them all."
        )
    else:
        said = (
            f"Take {best.name}: by {how} it has {value} against {ranked[1].values[by]:.4g} of {ranked[1].name}, and is first in "
            f"{first[best.name]:.0%} of resampled patients."
        )
    untrained = [one.name for one in ranked if one.card.method == UNTRAINED]
    if best.name in untrained or set(untrained) & set(close):
        said += " Random initialisation is among the best here: no pretraining has shown its worth on these features."
    return said


def _caveats(
    candidates: list[Candidate], ranked: list[Candidate], sample: Sample, by: str, agreeing: dict
) -> list[str]:
    task, rows = sample.task, len(sample.rows)
    said = [KNOWN_TO_MISLEAD]
    if len(candidates) > 1 and (others := _other_choices(candidates, ranked[0], by)):
        told = "; ".join(f"{', '.join(scores)} would take {name}" for name, scores in others.items())
        said.append(
            f"Scores disagree with {measured_by(by, task.card.metric)}, which puts {ranked[0].name} first: {told}."
        )
    against = [NAMES[name] for name, own in agreeing.items() if (own["kendall"] or 0) < 0]
    if against:
        said.append(
            f"Over these {len(ranked)} candidates the order by {', '.join(against)} is rather the reverse of that by "
            f"{NAMES[by]}."
        )
    if 1 < len(ranked) < 10:
        said.append(f"Correlations over {len(ranked)} candidates say little: chance alone makes large ones.")
    if task.patients is None:
        said.append(
            "Patients are unknown: images were dealt into folds and resampled singly, and values may be too good."
        )
    wide = [one for one in candidates if rows < ROWS_PER_FEATURE * one.card.feature_dim]
    if wide:
        said.append(
            f"Fewer than {ROWS_PER_FEATURE} images per feature ({rows} images; {_named(wide)}): scores that are fitted to the "
            "images are too good. Compare only backbones with as many features."
        )
    if len({one.card.feature_dim for one in candidates}) > 1:
        said.append(
            "The candidates have different numbers of features, which some scores reward (H, LogME, TransRate)."
        )
    without = [one for one in candidates if one.source is None]
    if without and task.kind == "multiclass":
        said.append(
            f"LEEP and NCE are not applicable to {_named(without)}: no classifier of source classes; N-LEEP stands in. "
            "--source STORE trains a head on the labels of a store that a backbone was pretrained on."
        )
    for source in dict.fromkeys(one.source for one in candidates if one.source):
        said.append(f"LEEP and NCE of {_named([one for one in candidates if one.source == source])} rest on {source}.")
    if task.kind == "multilabel":
        said.append("The task is multi-label: of the scores only LogME is defined.")
    seen = [one for one in candidates if task.store.id in one.card.stores]
    if seen:
        said.append(f"Pretrained, without labels, on training images of this very store: {_named(seen)}.")
    return said


def _other_choices(candidates: list[Candidate], best: Candidate, by: str) -> dict[str, list[str]]:
    """Candidate -> names of criteria that put it first, where that is not the one that comes first."""
    found: dict[str, list[str]] = {}
    for criterion in SCORES:
        known = [one for one in candidates if one.values[criterion] is not None]
        if criterion != by and best in known and len(known) > 1:
            top = max(known, key=lambda one: one.values[criterion])
            if top is not best:
                found.setdefault(top.name, []).append(NAMES[criterion])
    return found


def _named(candidates: list[Candidate]) -> str:
    return ", ".join(one.name for one in candidates)
