"""Texts on a study: its design, for the report, and a methods section for a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer.cards import TRIVIAL
from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import read_yaml
from ssl_transfer.result import EvalResult
from ssl_transfer.study.control_arms import PERMUTATION
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.report.wording import percent, words


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
    return design


def _pretraining(plan: Plan) -> str:
    budgets = {}
    for job in plan.jobs:
        if job.stage == "pretrain" and "--untrained" not in job.words:
            path = Path(job.words[1])
            if path.is_file():
                budgets.setdefault(_budget(read_yaml(path)), []).append(job.about["arm"])
    if not budgets:
        return "No arm was pretrained by this study."
    if len(budgets) == 1:
        return f"All arms differ in their images alone: {next(iter(budgets))}."
    return " ".join(f"{', '.join(dict.fromkeys(arms))}: {budget}." for budget, arms in budgets.items())


def _budget(recipe: Mapping[str, Any]) -> str:
    """The settings that should be equal in all pretrainings, as text."""
    data, train = recipe["data"], recipe["train"]
    views = data["views"]["name"] if isinstance(data["views"], dict) else data["views"]
    images = f"{data['limit']} images" if data.get("limit") else "all training images"
    return (
        f"{recipe['method']['name']}, {recipe['backbone']['name']}, {data['size']} px, {images}, {float(train['epochs']):g} "
        f"epochs, batch {train['batch_size']}, {recipe['optimizer']['name']}, views {views}"
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
    return words(evaluation["protocol"]).capitalize(), "; ".join(parts) + "."


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


def methods_text(plan: Plan, results: Sequence[EvalResult]) -> str:
    """The methods section of a paper about this study."""
    recipe, settings = plan.recipe, plan.recipe["statistics"]
    counts = sorted({len(arm["seeds"]) for arm in plan.arms if arm["seeds"] != [None]}) or [0]
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
    protocols = list(dict.fromkeys(evaluation["protocol"] for evaluation in recipe["evaluations"]))
    eval_seeds = sorted({seed for evaluation in recipe["evaluations"] for seed in evaluation["seeds"]})
    versions = (results[0].environment if results else {}).get("versions", {})
    margin = settings["margin"]
    if isinstance(margin, Mapping):
        margin = ", ".join(f"{value:g} {words(name)}" for name, value in margin.items())
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "lightly", "timm") if name in versions)
    patients_known = all(result.n["test"]["patients"] for result in results)
    protocol_text = "; ".join(PROTOCOLS[protocol].methods_text for protocol in protocols)
    sentences = [
        f"Backbones were pretrained with {seeds} pretraining seeds each ({_pretraining(plan).rstrip('.')}).",
        f"Targets were {', '.join(words(task) for task in recipe['tasks'])}; splits were disjoint by patient"
        f"{'' if patients_known else ' where patients are known'}, label fractions nested, stratified and sampled by patient.",
        f"{protocol_text[0].upper()}{protocol_text[1:]}. Each selected setting was evaluated on test once.",
        f"Evaluations were repeated with {len(eval_seeds)} seed(s), where they depend on one; label subsets and all else that is "
        "random were drawn anew for each pretraining seed, the same for all arms. They were averaged within their pretraining, "
        "which is the unit of analysis (ddof 1). Arms were compared by two-sided Welch’s t-tests with Holm’s correction over "
        f"the pairs of one {' and '.join(settings['family'])}; effect sizes are Hedges’ g.",
        f"Equivalence within {margin} was tested by two one-sided tests."
        if margin
        else "No equivalence margin was set.",
    ]
    for evaluation in recipe["evaluations"]:
        if evaluation.get("tune"):
            sentences.append(
                f"For {words(evaluation['protocol'])}, the same settings were tried on validation for every arm "
                f"({_grid(evaluation['tune']['grid'])}), at one evaluation seed of each pretraining seed, and the best was used "
                "for all its evaluation seeds; these trials did not read test."
            )
    kinds = {run.get("control") for run in plan.runs}
    if TRIVIAL in kinds:
        sentences.append(
            "As a control, corner means, percentiles, histogram and thumbnail of the images were judged by the same linear probe."
        )
    if PERMUTATION in kinds:
        sentences.append("As a further control, a linear probe was fitted to labels permuted between patients.")
    if results:
        version = results[0].environment["ssl_transfer"]
        sentences.append(f"ssl_transfer {version}{f' with {packages}' if packages else ''}.")
    return " ".join(sentences)
