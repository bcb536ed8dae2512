"""What a study did, in words: the report's account of its design, and a methods text ready to paste into a paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_transfer.protocols import PROTOCOLS
from ssl_transfer.recipe import read_yaml
from ssl_transfer.result import EvalResult
from ssl_transfer.study.plan import Plan
from ssl_transfer.study.report.wording import percent, words


def study_design(plan: Plan, results: Sequence[EvalResult]) -> dict[str, str]:
    """What was run: heading -> text."""
    recipe, found = plan.recipe, {}
    found["Pretraining"] = _pretraining(plan)
    seeds = sorted({seed for arm in plan.arms for seed in arm["seeds"] if seed is not None})
    found["Pretraining seeds"] = f"{_spans(seeds)}; {len(plan.arms)} arms."
    for name in recipe["tasks"]:
        own = next(
            (result for result in results if result.task["name"] == name and result.fraction == 1), None
        ) or next((result for result in results if result.task["name"] == name), None)
        if own:
            found[f"Target {words(name)}"] = _target(own)
    for evaluation in recipe["evaluations"]:
        heading, text = _evaluation(evaluation, recipe["tasks"])
        found[heading] = f"{found[heading]} {text}" if heading in found else text
    skipped = len(recipe["skip"])
    if skipped or recipe["set"]:
        found["Exceptions"] = (
            f"{skipped} rules leave runs out, {len(recipe['set'])} change settings of some; plan.json has them."
        )
    found["Selection"] = (
        "Every hyper-parameter and step was selected on validation; test was scored once, for the selected setting."
    )
    return found


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
        return f"All arms alike but for their images: {next(iter(budgets))}."
    return " ".join(f"{', '.join(dict.fromkeys(arms))}: {budget}." for budget, arms in budgets.items())


def _budget(recipe: Mapping[str, Any]) -> str:
    """Everything in which pretrainings ought to be equal."""
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
    known = "no patient in two of them" if result.n["test"]["patients"] else "patients unknown, so splits are by image"
    return f"{result.task['target_domain']}: {counts}{share}; {known}."


def _evaluation(evaluation: Mapping[str, Any], tasks: Iterable[str]) -> tuple[str, str]:
    where = (
        ", ".join(words(task) for task in evaluation["tasks"] or tasks)
        if evaluation["tasks"]
        else "all fitting targets"
    )
    parts = [
        f"on {where}",
        f"fractions {', '.join(percent(float(fraction)) for fraction in evaluation['fractions'])}",
        f"seeds {_spans([int(seed) for seed in evaluation['seeds']])}",
    ]
    if evaluation["strategies"]:
        parts.append("strategies " + ", ".join(words(strategy) for strategy in evaluation["strategies"]))
    if evaluation["set"]:
        parts.append(", ".join(f"{key} {value}" for key, value in evaluation["set"].items()))
    return words(evaluation["protocol"]).capitalize(), "; ".join(parts) + "."


def _spans(seeds: list[int]) -> str:
    """0–3 for 0, 1, 2, 3."""
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}–{seeds[-1]}"
    return ", ".join(map(str, seeds)) or "none"


def methods_text(plan: Plan, results: Sequence[EvalResult]) -> str:
    """The methods section of a paper about this study."""
    recipe, settings = plan.recipe, plan.recipe["statistics"]
    seeds = sorted({seed for arm in plan.arms for seed in arm["seeds"] if seed is not None})
    protocols = list(dict.fromkeys(evaluation["protocol"] for evaluation in recipe["evaluations"]))
    own_seeds = sorted({seed for evaluation in recipe["evaluations"] for seed in evaluation["seeds"]})
    versions = (results[0].environment if results else {}).get("versions", {})
    margin = settings["margin"]
    if isinstance(margin, Mapping):
        margin = ", ".join(f"{value:g} {words(name)}" for name, value in margin.items())
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "lightly", "timm") if name in versions)
    known = all(result.n["test"]["patients"] for result in results)
    judged = "; ".join(PROTOCOLS[protocol].methods_text for protocol in protocols)
    sentences = [
        f"Backbones were pretrained with {len(seeds)} pretraining seeds each ({_pretraining(plan).rstrip('.')}).",
        f"Targets were {', '.join(words(task) for task in recipe['tasks'])}; splits were disjoint in patients"
        f"{'' if known else ' where patients are known'}, label fractions nested, stratified and drawn over patients.",
        f"{judged[0].upper()}{judged[1:]}. Test was scored once.",
        f"Evaluations were repeated with {len(own_seeds)} seed(s) and averaged within their pretraining, which is the unit of "
        "every contrast (ddof 1). Arms were compared by Welch’s t, two-sided, with Holm’s correction over the pairs of one "
        f"{' and '.join(settings['family'])}; effect sizes are Hedges’ g.",
        f"Equivalence within {margin} was tested by two one-sided tests."
        if margin
        else "No margin of equivalence was set.",
    ]
    if results:
        version = results[0].environment["ssl_transfer"]
        sentences.append(f"ssl_transfer {version}{f' with {used}' if used else ''}.")
    return " ".join(sentences)
