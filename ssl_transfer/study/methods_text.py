"""Texts on a study: its design, for the report, and a methods section for a paper."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.channels import InputChannels
from ssl_transfer.data.task_card import TaskCard
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import read_yaml
from ssl_transfer.result import EvalResult
from ssl_transfer.study.comparisons import Statistics
from ssl_transfer.study.control_arms import PERMUTATION
from ssl_transfer.study.freeze import freeze_sentences
from ssl_transfer.study.look_record import stop_sentence
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.report.wording import listed, percent, words
from ssl_transfer.study.statistics import ALPHA, Decision, nominal_levels


def study_design(plan: Plan, results: Sequence[EvalResult]) -> dict[str, str]:
    """The design of a study: heading -> text."""
    recipe = plan.recipe
    design = {"Pretraining": _pretraining(plan), "Pretraining seeds": f"{_arm_seeds(plan)}; {len(plan.arms)} arms."}
    for name in recipe["tasks"]:
        of_task = [result for result in results if result.task["name"] == name]
        if of_task:
            design[f"Target {words(name)}"] = _target(max(of_task, key=lambda result: result.fraction == 1))
    for evaluation in recipe["evaluations"]:
        heading, text = _evaluation(evaluation, recipe["tasks"])
        design[heading] = f"{design[heading]} {text}" if heading in design else text
    skipped, changed = len(recipe["skip"]), len(recipe["set"])
    if skipped or changed:
        design["Exceptions"] = f"{skipped} rules skip runs, {changed} change settings of some; see plan.json."
    design["Selection"] = (
        "Hyper-parameters and steps were selected on validation; the selected setting was evaluated on test once."
    )
    if stopped := stop_sentence(plan.folder):
        design["Looks"] = stopped
    design["Frozen design"] = " ".join(freeze_sentences(plan))
    return design


def _pretraining(plan: Plan) -> str:
    budgets = {}
    for job in plan.jobs:
        if job.stage == "pretrain" and "--untrained" not in job.words:
            path = Path(job.words[1])
            if path.is_file():
                budgets.setdefault(_budget(read_yaml(path)), []).append(job.about["arm"])
    public = [f"{arm['name']}: public weights, {arm['backbone']}." for arm in plan.arms if arm["backbone"]]
    if not budgets:
        return " ".join(["No arm was pretrained by this study.", *public])
    if len(budgets) == 1:
        which = "The arms that were pretrained here" if public else "All arms"
        return " ".join([f"{which} differ in their images alone: {next(iter(budgets))}.", *public])
    return " ".join([*(f"{', '.join(dict.fromkeys(arms))}: {budget}." for budget, arms in budgets.items()), *public])


def _budget(recipe: Mapping[str, Any]) -> str:
    """The settings that should be equal in all pretrainings, as text."""
    data, train = recipe["data"], recipe["train"]
    views = data["views"]["name"] if isinstance(data["views"], dict) else data["views"]
    images = f"{data['limit']} images" if data.get("limit") else "all training images"
    windows = tuple((float(low), float(high)) for low, high in data.get("windows") or ())
    channels = InputChannels(int(data.get("context") or 1), windows)
    return (
        f"{recipe['method']['name']}, {recipe['backbone']['name']}, {data['size']} px, {images}, {float(train['epochs']):g} "
        f"epochs, batch {train['batch_size']}, {recipe['optimizer']['name']}, views {views}"
        + (f", channels: {channels}" if channels.are_stated else "")
    )


def _target(result: EvalResult) -> str:
    counts = ", ".join(
        f"{n['images']} {name} images" + (f" of {n['patients']} patients" if n["patients"] else "")
        for name, n in result.n.items()
    )
    share = f" at {percent(result.fraction)} of the labels" if result.fraction < 1 else ""
    splits = "splits by patient" if result.n["test"]["patients"] else "patients unknown, splits by image"
    return f"{result.task['target_domain']}: {counts}{share}; {splits}."


def _evaluation(evaluation: Mapping[str, Any], tasks: Iterable[str]) -> tuple[str, str]:
    where = (
        ", ".join(words(task) for task in evaluation["tasks"] or tasks)
        if evaluation["tasks"]
        else "all suitable targets"
    )
    parts = [
        f"on {where}",
        f"fractions {', '.join(percent(float(fraction)) for fraction in evaluation['fractions'])}",
        f"seeds {_spans([int(seed) for seed in evaluation['seeds']])}",
    ]
    if evaluation["strategies"]:
        parts.append("strategies " + ", ".join(words(strategy) for strategy in evaluation["strategies"]))
    if evaluation.get("tune"):
        parts.append("tuned on validation over " + _grid(evaluation["tune"]["grid"]))
    if evaluation["set"]:
        parts.append(", ".join(f"{key} {value}" for key, value in evaluation["set"].items()))
    title = words(evaluation["protocol"])
    return title.capitalize() if title.islower() else title, "; ".join(parts) + "."


def _arm_seeds(plan: Plan) -> str:
    """Pretraining seeds of the arms; where they differ, of each group of arms."""
    arms: dict[str, list[str]] = {}
    for arm in plan.arms:
        if seeds := [seed for seed in arm["seeds"] if seed is not None]:
            arms.setdefault(_spans(seeds), []).append(arm["name"])
    if len(arms) < 2:
        return next(iter(arms), "none")
    return "; ".join(f"{seeds} ({', '.join(names)})" for seeds, names in arms.items())


def _grid(grid: Mapping[str, Sequence[Any]]) -> str:
    """A grid of settings, as text: `optimizer.lr 0.0001, 0.001`."""
    return "; ".join(f"{key} {', '.join(map(str, candidates))}" for key, candidates in grid.items())


def _spans(seeds: list[int]) -> str:
    """Seeds as ranges: 0–3 for 0, 1, 2, 3."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds)) or "none"


def methods_text(plan: Plan, results: Sequence[EvalResult], decisions: Sequence[Decision] = ()) -> str:
    """The methods section of a paper about this study: what was done, by its settings and results.

    Args:
        plan: The plan of the study.
        results: Its finished results.
        decisions: Its gate and primary contrasts.
    """
    recipe = plan.recipe
    protocols = list(dict.fromkeys(evaluation["protocol"] for evaluation in recipe["evaluations"]))
    kinds = [TaskCard.model_validate(card).kind for card in plan.tasks.values()]
    protocol_text = "; ".join(PROTOCOLS[protocol].described(kinds) for protocol in protocols)
    patients_known = all(result.n["test"]["patients"] for result in results)
    sentences = [
        f"{_seeds_used(plan, results)} ({_pretraining(plan).rstrip('.')}).",
        f"Targets were {', '.join(words(task) for task in recipe['tasks'])}; splits were disjoint by patient"
        f"{'' if patients_known else ' where patients are known'}, label fractions nested, stratified and sampled by patient.",
        *_grouped(plan),
        f"{protocol_text[0].upper()}{protocol_text[1:]}. Each selected setting was evaluated on test once.",
        *_tested_externally(plan),
        *_draws_used(results),
        *_tuned(plan),
        *_controls(plan),
        *declared_sentences(plan, decisions),
        *secondary_sentences(plan),
        *freeze_sentences(plan),
        *_versions(results),
    ]
    return " ".join(sentences)


def _grouped(plan: Plan) -> list[str]:
    """A sentence for each target with a label per group of images."""
    return [
        f"On {words(name)}, the images of a {unit} had one label and one prediction, and label fractions were sampled by {unit}."
        for name, card in plan.tasks.items()
        if (unit := card.get("target_of"))
    ]


def _tested_externally(plan: Plan) -> list[str]:
    """A sentence for each target with external tests."""
    return [
        f"What was selected on {words(name)} was also tested on {listed([Path(store).name for store in stores])}, which have "
        "no known patient in common with it; images of its own store were left out."
        for name, card in plan.tasks.items()
        if (stores := card.get("external"))
    ]


def _tuned(plan: Plan) -> list[str]:
    """A sentence for each evaluation that is tuned."""
    return [
        f"For {words(evaluation['protocol'])}, the same settings were tried on validation for every arm "
        f"({_grid(evaluation['tune']['grid'])}), at one evaluation seed of each pretraining seed, and the best was used "
        "for all its evaluation seeds; these trials did not read test."
        for evaluation in plan.recipe["evaluations"]
        if evaluation.get("tune")
    ]


def _controls(plan: Plan) -> list[str]:
    """Sentences on the control runs."""
    kinds, sentences = {run.get("control") for run in plan.runs}, []
    if TRIVIAL in kinds:
        sentences.append(
            "As a control, corner means, percentiles, histogram and thumbnail of the images were judged by the same linear probe."
        )
    if PERMUTATION in kinds:
        sentences.append("As a further control, a linear probe was fitted to labels permuted between patients.")
    return sentences


def _versions(results: Sequence[EvalResult]) -> list[str]:
    if not results:
        return []
    environment = results[0].environment
    versions = environment.get("versions", {})
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "lightly", "timm") if name in versions)
    return [f"ssl_transfer {environment['ssl_transfer']}{f' with {packages}' if packages else ''}."]


def _seeds_used(plan: Plan, results: Sequence[EvalResult]) -> str:
    """How many pretraining seeds of each arm have results; before there are any, how many are planned."""
    used: dict[str, set[int]] = {}
    for result in results:
        if result.pretraining_seed is not None:
            used.setdefault(result.backbone.get("pretraining", ""), set()).add(result.pretraining_seed)
    counts: dict[int, list[str]] = {}
    for arm in plan.arms:
        seeds = used.get(arm["name"], set()) if results else arm["seeds"]
        if arm["seeds"] != [None]:
            counts.setdefault(len(seeds), []).append(arm["name"])
    public = [arm["name"] for arm in plan.arms if arm["seeds"] == [None]]
    parts = [
        f"{count} pretraining seeds" + (f" ({listed(arms)})" if len(counts) > 1 else "")
        for count, arms in counts.items()
    ]
    each = " each" if len(counts) == 1 else ""
    text = f"Backbones were pretrained with {listed(parts)}{each}" if parts else "No backbone was pretrained"
    return text + (f"; {listed(public)} {'is' if len(public) == 1 else 'are'} public weights" if public else "")


def _draws_used(results: Sequence[EvalResult]) -> list[str]:
    """How many evaluation seeds each protocol was run at, and what they fix."""
    seeds: dict[str, set[int]] = {}
    for result in results:
        seeds.setdefault(result.protocol, set()).add(result.seed)
    if not seeds:
        return []
    counts = ", ".join(f"{len(of)} of {words(protocol)}" for protocol, of in seeds.items())
    return [
        f"Evaluation seeds per pretraining seed, where a result depends on them: {counts}. Label subset, head, order and views "
        "of an evaluation were drawn from its pretraining seed and evaluation seed, the same in all arms."
    ]


def declared_sentences(plan: Plan, decisions: Sequence[Decision]) -> list[str]:
    """Sentences on the gate, the primary contrasts and their tests."""
    gates = [decision for decision in decisions if decision.family == "gate"]
    primaries = [decision for decision in decisions if decision.family == "primary"]
    sentences = [
        f"The gate was {_contrast(gate)}: no primary contrast is claimed unless {gate.contrast.name_a} is better."
        for gate in gates
    ]
    if primaries:
        contrasts = "; ".join(_contrast(decision) for decision in primaries)
        sentences.append(f"The primary contrast{'s were' if len(primaries) > 1 else ' was'} {contrasts}.")
    if tested := [decision for decision in decisions if decision.looks]:
        sentences += [*_tests(tested), _looks(plan, tested), *_equivalence(tested)]
    elif decisions:
        sentences.append("None of them was tested yet.")
    if tested and len(primaries) > 1:
        sentences.append(f"Holm’s rule was applied over the {len(primaries)} primary contrasts.")
    return [*sentences, *([stopped] if (stopped := stop_sentence(plan.folder)) else [])]


def _contrast(decision: Decision) -> str:
    """Sides, targets, protocol, metric and fractions of a contrast."""
    contrast = decision.contrast
    fractions = (
        "all planned fractions"
        if contrast.fractions is None
        else listed([percent(each) for each in contrast.fractions])
    )
    targets = listed([words(task) for task in contrast.tasks]) if contrast.tasks else "its targets"
    averaged = contrast.fractions is None or len(contrast.fractions) > 1 or len(contrast.tasks) > 1
    on = "".join(f", {name} {listed([words(value) for value in values])}" for name, values in contrast.on.items())
    return (
        f"{words(contrast.name_a)} against {words(contrast.name_b)} on {targets} ({words(contrast.protocol)}, "
        f"{words(contrast.metric)}, {fractions} of the labels{on}{', averaged' if averaged else ''})"
    )


def _tests(tested: Sequence[Decision]) -> list[str]:
    """The tests that contrasts were decided by."""
    paired = [decision.units.unit for decision in tested if decision.units.test == "paired"]
    welch = [f"{each.contrast.name_a} against {each.contrast.name_b}" for each in tested if each.units.test == "welch"]
    sentences = []
    if "pretraining_seed" in paired:
        sentences.append(
            "Evaluations were averaged within a pretraining seed, the unit of analysis, and both sides compared in pairs of "
            "equal seeds by two-sided paired t-tests (n − 1 degrees of freedom)."
        )
    if "seed" in paired:
        sentences.append(
            "With one pretraining seed on a side, evaluation seeds were compared in pairs: those verdicts hold for two "
            "checkpoints."
        )
    if welch:
        sentences.append(
            f"Public weights have no pretraining seeds: {listed(welch)} by two-sided Welch’s t-tests, for these weights."
        )
    return sentences


def _looks(plan: Plan, tested: Sequence[Decision]) -> str:
    """The looks that were planned and taken, and how alpha was shared among them."""
    statistics = Statistics.model_validate(plan.recipe["statistics"])
    level = f"the familywise two-sided level of {ALPHA:g}"
    if not statistics.looks or len(statistics.looks) == 1:
        seeds = f", at {statistics.looks[0]} pretraining seeds" if statistics.looks else ""
        return f"Each was tested once{seeds}, at {level}."
    taken = max(decision.looks[-1].planned for decision in tested)
    levels = listed([f"{level:.2g}" for level in nominal_levels(ALPHA, tuple(statistics.looks), statistics.spent)])
    planned = listed([str(look) for look in statistics.looks])
    return (
        f"Looks were planned at {planned} pretraining seeds and taken up to {taken}; {level} was spent by the function of "
        f"Hwang, Shih and DeCani (γ = {statistics.spending.gamma:g}; nominal levels of a single contrast {levels}), and a "
        "contrast was closed once it was found different or equivalent. Intervals are at the level of their look."
    )


def _equivalence(tested: Sequence[Decision]) -> list[str]:
    margins = {words(each.contrast.metric): each.margin for each in tested if math.isfinite(each.margin)}
    if not margins:
        return ["No equivalence margin was set."]
    named = listed([f"±{margin:g} {metric}" for metric, margin in margins.items()])
    return [
        f"Equivalence within {named} was tested by two one-sided tests at the level of the same look; the "
        "interval of an equivalence has the confidence 1 − 2 · level."
    ]


def secondary_sentences(plan: Plan) -> list[str]:
    """Sentences on the contrasts that are neither gate nor primary."""
    statistics = Statistics.model_validate(plan.recipe["statistics"])
    pairs = "the declared pairs of arms" if statistics.pairs else "all pairs of arms that differ in one factor"
    families = listed([words(name) for name in statistics.family])
    stated = statistics.secondary is not None or statistics.exploratory is not None
    public = ", with public weights by Welch’s t-test" * any(arm["seeds"] == [None] for arm in plan.arms)
    return [
        f"Other contrasts are {pairs}, compared in pairs of equal seeds{public}: secondary ones "
        f"({'as declared' if stated else 'at the main metric of a target'}) with Holm’s correction within one {families}, over "
        "the planned tests, and the others, exploratory, with that of Benjamini and Hochberg; effect sizes are Hedges’ g."
    ]
