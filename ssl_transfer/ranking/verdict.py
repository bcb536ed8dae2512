"""The result of a ranking: order of the candidates, its uncertainty, agreement of scores, recommendation and caveats."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssl_transfer.measures.agreement import FEWEST, agreement
from ssl_transfer.measures.comparison_with_best import ALPHA, may_be_best
from ssl_transfer.measures.metrics import METRICS, metric_sign
from ssl_transfer.measures.transferability import ROWS_PER_FEATURE, SCORES
from ssl_transfer.ranking.candidate import Candidate, criteria, criterion_title
from ssl_transfer.ranking.sample import Sample

FEW_CANDIDATES = 10  # with fewer, correlations over candidates are called unreliable
RANDOM_INIT = "none"  # the method of random initialisation

KNOWN_TO_MISLEAD = (
    "Transferability scores are known to mislead on medical tasks (arXiv 2308.07444, 2405.20420). The cross-validated probe is a "
    "better guide; only fine-tuning (ssl-transfer evaluate finetune, or a study) shows which backbone is best."
)


def verdict(candidates: list[Candidate], sample: Sample, by: str, more: list[str]) -> dict[str, Any]:
    """`order`, `first`, `not_told_apart`, `agreement`, `recommendation` and `caveats` of a ranking.

    Args:
        candidates: At least one with a value of `by`.
        sample: The cases they were scored on.
        by: The criterion of the order.
        more: Further caveats.
    """
    sign = metric_sign(sample.task.card.metric) if by not in SCORES else 1
    ranked = [candidate for candidate in candidates if candidate.values[by] is not None]
    ranked.sort(key=lambda candidate: -sign * candidate.value(by))
    resampled = _resampled(ranked, by, sign)
    first = _first_shares(ranked, resampled) if resampled.size else None
    tied = _tied(ranked, resampled, by, sign, sample.units) if resampled.size else []
    correlations = _agreement(candidates, by)
    return {
        "order": tuple(candidate.name for candidate in ranked),
        "first": first,
        "not_told_apart": (ranked[0].name, *tied) if tied else (),
        "agreement": correlations,
        "recommendation": _recommendation(ranked, tied, first, sample, by),
        "caveats": (*_caveats(candidates, ranked, sample, by, correlations), *more),
    }


def measured_by(by: str, metric: str) -> str:
    """A criterion in words: `balanced accuracy of the probe`."""
    return criterion_title(by) if by in SCORES else f"{METRICS[metric].title} of the {criterion_title(by)}"


def _resampled(ranked: list[Candidate], by: str, sign: int) -> np.ndarray:
    """Values of all candidates in the same bootstrap samples, more is better, (K, R); samples with NaN are left out."""
    values = sign * np.stack([candidate.resampled.get(by, np.empty(0)) for candidate in ranked])
    return values[:, np.isfinite(values).all(0)]


def _first_shares(ranked: list[Candidate], resampled: np.ndarray) -> dict[str, float]:
    """Share of bootstrap samples in which each candidate is best; ties are split."""
    best = resampled == resampled.max(0)
    shares = (best / best.sum(0)).mean(1)
    return {candidate.name: round(float(share), 4) for candidate, share in zip(ranked, shares, strict=True)}


def _tied(ranked: list[Candidate], resampled: np.ndarray, by: str, sign: int, units: int) -> list[str]:
    """Names of the candidates, apart from the first one, that may be the best."""
    values = sign * np.array([candidate.value(by) for candidate in ranked])
    possible = may_be_best(values, resampled, units)
    return [candidate.name for candidate, may_be in zip(ranked[1:], possible[1:], strict=True) if may_be]


def _agreement(candidates: list[Candidate], by: str) -> dict[str, dict[str, float | None]]:
    """Correlations of every other criterion with `by`, over the candidates that have both; at least three are needed."""
    correlations = {}
    for criterion in criteria():
        both = [each for each in candidates if each.values[criterion] is not None and each.values[by] is not None]
        if criterion != by and len(both) >= FEWEST:
            values = agreement(*(np.array([candidate.value(name) for candidate in both]) for name in (criterion, by)))
            rounded = {name: round(float(value), 4) if np.isfinite(value) else None for name, value in values.items()}
            correlations[criterion] = {"n": len(both), **rounded}
    return correlations


def _recommendation(
    ranked: list[Candidate], tied: list[str], first: dict[str, float] | None, sample: Sample, by: str
) -> str:
    best, criterion = ranked[0], measured_by(by, sample.task.card.metric)
    value = f"{best.values[by]:.4g}"
    if len(ranked) == 1:
        return f"{best.name} is the only candidate ({criterion}: {value}); there is no choice to make."
    runner_up = f"{ranked[1].values[by]:.4g} for {ranked[1].name}"
    if first is None:
        text = (
            f"{best.name} ranks first by {criterion}: {value}, against {runner_up}. No patients were resampled, so the "
            "uncertainty is unknown."
        )
    elif tied:
        names = ", ".join([best.name, *tied[:-1]]) + f" and {tied[-1]}"
        text = (
            f"These patients do not separate {names}: {best.name} has the best {criterion}, {value}, and ranks first in "
            f"{first[best.name]:.0%} of bootstrap samples of patients, but any of them may be the best one (multiple comparisons "
            f"with the best, level {ALPHA / 2:g}). Take the cheapest of them, or fine-tune all."
        )
    else:
        text = (
            f"Take {best.name}: its {criterion} is {value}, against {runner_up}. It ranks first in {first[best.name]:.0%} of "
            f"bootstrap samples of patients, and its advantage over every other candidate is significant (level {ALPHA:g})."
        )
    random_init = {candidate.name for candidate in ranked if candidate.card.method == RANDOM_INIT}
    if random_init & {best.name, *tied}:
        text += " Random initialisation is among the best: on these features, no pretraining is shown to be better."
    return text


def _caveats(
    candidates: list[Candidate], ranked: list[Candidate], sample: Sample, by: str, correlations: dict
) -> list[str]:
    return [
        KNOWN_TO_MISLEAD,
        *_disagreement(candidates, ranked, sample, by, correlations),
        *_poolings(candidates, sample),
        *_sample_size(candidates, sample),
        *_source_classes(candidates, sample.task.kind),
    ]


def _disagreement(
    candidates: list[Candidate], ranked: list[Candidate], sample: Sample, by: str, correlations: dict
) -> list[str]:
    """Caveats about scores that rank another candidate first, or whose correlation with the criterion is negative."""
    texts = []
    if len(candidates) > 1 and (others := _other_choices(candidates, ranked[0], by)):
        choices = "; ".join(f"{', '.join(titles)} would choose {name}" for name, titles in others.items())
        criterion = measured_by(by, sample.task.card.metric)
        texts.append(f"Scores disagree with {criterion}, which ranks {ranked[0].name} first: {choices}.")
    negative = [criterion_title(name) for name, values in correlations.items() if (values["kendall"] or 0) < 0]
    if negative:
        texts.append(
            f"Over these {len(ranked)} candidates the correlation with {criterion_title(by)} is negative for "
            f"{', '.join(negative)}."
        )
    if 1 < len(ranked) < FEW_CANDIDATES:
        texts.append(f"Correlations over {len(ranked)} candidates are unreliable: large ones occur by chance.")
    return texts


def _poolings(candidates: list[Candidate], sample: Sample) -> list[str]:
    """What the features of a group are, in tasks with `target_of`."""
    if not sample.poolings:
        return []
    by_pooling: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        by_pooling.setdefault(candidate.pooling, []).append(candidate)
    listed = "; ".join(f"{pooling} of {_names(some)}" for pooling, some in sorted(by_pooling.items()))
    return [
        f"Scores are of the pooled features of the images of a {sample.task.card.target_of}: {listed}. Probes select the pooling "
        f"among {', '.join(sample.poolings)} on validation folds; heads that learn to pool are not ranked."
    ]


def _sample_size(candidates: list[Candidate], sample: Sample) -> list[str]:
    """Caveats about unknown patients, few cases, and different numbers of features."""
    texts, cases, word = [], len(sample.cases), sample.task.case_word
    if sample.task.patients is None:
        texts.append(
            "Patients are unknown: folds and bootstrap samples are drawn by image, so values and intervals may be too optimistic."
        )
    if wide := [each for each in candidates if cases < ROWS_PER_FEATURE * each.card.feature_dim]:
        texts.append(
            f"Fewer than {ROWS_PER_FEATURE} {word} per feature ({cases} {word}; {_names(wide)}): scores that are fitted to the "
            f"{word} are too optimistic. Compare only backbones with equally many features."
        )
    if len({candidate.card.feature_dim for candidate in candidates}) > 1:
        texts.append(
            "The candidates have different numbers of features, which some scores reward (H, LogME, TransRate)."
        )
    return texts


def _source_classes(candidates: list[Candidate], kind: str) -> list[str]:
    """Caveats about the source classifiers of LEEP and NCE, and about scores that are undefined for the kind of task."""
    texts = []
    without = [candidate for candidate in candidates if candidate.source is None]
    from_source = " and ".join(score.title for score in reversed(SCORES.values()) if score.needs_source)
    if without and kind != "multilabel":
        texts.append(
            f"{from_source} are not applicable to {_names(without)}: no classifier of source classes; N-LEEP needs none. "
            "--source STORE trains a head on the labels of a store that a backbone was pretrained on."
        )
    for source in dict.fromkeys(candidate.source for candidate in candidates if candidate.source):
        names = _names([candidate for candidate in candidates if candidate.source == source])
        texts.append(f"{from_source} of {names} are computed from {source}.")
    if kind == "multilabel":
        defined = ", ".join(score.title for score in SCORES.values() if score.multilabel)
        texts.append(f"The task is multi-label: the only score that is defined is {defined}.")
    return texts


def _other_choices(candidates: list[Candidate], best: Candidate, by: str) -> dict[str, list[str]]:
    """Titles of the scores that rank another candidate first, by candidate."""
    choices: dict[str, list[str]] = {}
    for criterion in SCORES:
        scored = [candidate for candidate in candidates if candidate.values[criterion] is not None]
        if criterion != by and best in scored and len(scored) > 1:
            top = max(scored, key=lambda candidate: candidate.value(criterion))
            if top is not best:
                choices.setdefault(top.name, []).append(criterion_title(criterion))
    return choices


def _names(candidates: list[Candidate]) -> str:
    return ", ".join(candidate.name for candidate in candidates)
