"""`ssl-transfer evaluate`: how well backbones perform on a task, by one protocol."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_transfer.cli.subgroups_text import subgroup_lines
from ssl_transfer.cli.verb import Verb
from ssl_transfer.console import say
from ssl_transfer.errors import UsageError
from ssl_transfer.protocols import PROTOCOLS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments: a protocol, backbones, a task, and settings."""
    parser.add_argument("protocol", choices=PROTOCOLS)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="BACKBONE … TASK [key=value …]",
        help="backbones: folders, RUN@EPOCH or RUN@all of a run, scratch:NAME, imagenet:NAME, timm:NAME[.TAG], features:FILE or "
        "trivial; task: a card in recipes/tasks/ by name, or its path; settings: for example fraction=[0.1,1] seed=[0,1,2]; with "
        "lists or several backbones, every combination is evaluated, but only the first seed where scores do not depend on it",
    )
    parser.add_argument(
        "--out", type=Path, help="folder (default runs/evaluate/ID); the parent folder if there are several evaluations"
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE.png", help="draw the metric over the epochs of a pretraining (RUN@all)"
    )
    parser.add_argument(
        "--features",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder with features of this backbone and task, for probes; repeated: then those of its external stores, in order",
    )
    parser.add_argument(
        "--tuning", type=Path, metavar="DIR", help="of this backbone, task and fraction: settings that `tune` selected"
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate every backbone with every combination of the listed settings.

    Where scores do not depend on the seed, only the first one is evaluated.
    """
    words = options.words
    if len(words) < 2:
        raise UsageError(
            f"evaluate {options.protocol}: found {' '.join(words) or 'nothing'}, expected BACKBONE … TASK."
        )
    from ssl_transfer.kept import expanded, run_and_epoch

    *named, name = words
    specs = expanded(named)
    if options.figure and len([spec for spec in specs if run_and_epoch(spec)]) < 2:
        raise UsageError(
            f"--figure {options.figure}: draws the epochs of a pretraining, and found {' '.join(named)}. Name RUN@all."
        )
    for flag in ("features", "tuning"):
        if getattr(options, flag) and len(specs) > 1:
            raise UsageError(f"--{flag}: found several backbones, but {flag} belong to one. Leave it out.")

    from ssl_transfer.data.tasks import Task

    _check_shared(options)
    task = Task.load(name)
    from ssl_transfer.evaluation.settings import evaluate_recipe, swept
    from ssl_transfer.evaluation.stage import evaluate
    from ssl_transfer.evaluation.trajectory import draw_trajectories, trajectories
    from ssl_transfer.models.opening import open_backbone
    from ssl_transfer.result import Tuning

    tuning = Tuning.load(options.tuning) if options.tuning else None
    grouped_kind = task.kind if task.card.target_of else None
    sweep = [
        (settings, evaluate_recipe(options.protocol, settings)[0])
        for settings in swept(options.protocol, options.overrides, grouped_kind)
    ]
    several, results, measured = len(sweep) * len(specs) > 1, [], []
    for spec in specs:
        backbone = open_backbone(spec, task.store)
        for settings, recipe in sweep:
            out: Path | None = options.out
            if out is not None and several:
                name = f"{recipe.fraction:g}-{recipe.seed}"
                out = out / (f"{backbone.id}-{name}" if len(specs) > 1 else name)
            result = evaluate(options.protocol, backbone, task, out, options.features, tuning, **settings)
            measured.append((spec, result))
            results.append({**result.to_json(), "result": f"{result.path}/result.json"})
            if several:
                say(_line(result, task.card.metric, spec))
    over_epochs = trajectories(measured, task.card.metric)
    if options.figure:
        draw_trajectories(over_epochs, options.figure)
        say(f"figure: {options.figure}")
    found = {"trajectories": [each.to_json() for each in over_epochs]} if over_epochs else {}
    return {"results": results, **found} if several else results[0]


def _check_shared(options: argparse.Namespace) -> None:
    """Refuse wrong fractions and seeds before torch loads."""
    from ssl_transfer.recipe import EvaluateRecipe, parse_overrides, validate

    settings = parse_overrides(options.overrides)
    for name in ("fraction", "seed"):
        values = settings.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            validate(EvaluateRecipe, {name: value}, f"evaluate {options.protocol}")


def check(options: argparse.Namespace) -> None:
    """Read the settings."""
    from ssl_transfer.evaluation.settings import evaluate_recipes

    list(evaluate_recipes(options.protocol, options.overrides))


def _line(result: Any, metric: str, spec: str) -> str:
    """A line for one of several evaluations: the task's metric on test, with its interval."""
    value, interval = result.metrics["test"][metric], result.intervals.get(metric)
    score = "–" if value is None else f"{value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
    return f"{spec}: {result.strategy or result.protocol}, fraction {result.fraction:g}, seed {result.seed}: {metric} {score}"


def as_text(answer: dict[str, Any]) -> str:
    """Every result: what was evaluated, test metrics over all classes with their intervals, notes, and the file."""
    from ssl_transfer.measures.metrics import METRICS

    blocks = [_block(result, METRICS) for result in answer.get("results", [answer])]
    if "trajectories" in answer:
        from ssl_transfer.evaluation.trajectory import trajectory_text

        blocks += map(trajectory_text, answer["trajectories"])
    return "\n\n".join(blocks)


def _block(result: dict[str, Any], metrics: Mapping[str, Any]) -> str:
    train, test = (_counted(result["n"][split]) for split in ("train", "test"))
    selected = ", ".join(f"{name} {value}" for name, value in result["selected"].items())
    how = result["protocol"] + (f" ({result['strategy']})" if result["strategy"] else "")
    where = f"{result['task']['name']}, fraction {result['fraction']:g}, seed {result['seed']}"
    lines = [
        f"{result['backbone']['name']}: {how} on {where}",
        f"  trained on {train}; selected on validation: {selected}; test on {test}",
    ]
    values, titles = result["metrics"]["test"], _titles(result["metrics"]["test"], metrics)
    for name, title in titles.items():
        low, high = result["intervals"].get(name) or (None, None)
        interval = "" if low is None else f" [{low:.4f}, {high:.4f}]"
        lines.append(f"  {title} {'–' if values[name] is None else f'{values[name]:.4f}'}{interval}")
    lines += [*subgroup_lines(result.get("subgroups")), *_seen_lines(result, metrics)]
    lines += [line for name, test in result["external"].items() for line in _external_lines(name, test, metrics)]
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"]), f"  {result['result']}"])


def _external_lines(name: str, test: dict[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """The metrics on an external store, and their gaps to the own test."""
    lines = [f"  external test on {name}: {_counted(test['n'])}"]
    for metric, title in _titles(test["metrics"], metrics).items():
        value, gap = (_with_interval(test, key, metric) for key in ("metrics", "gap"))
        lines.append(f"  {title} {value}, gap {gap}")
    return [*lines, *subgroup_lines(test.get("subgroups")), *(f"  note: {note}" for note in test["notes"])]


def _titles(values: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """The title of each metric over all classes, filled up to the width of the longest one."""
    titles = {name: metrics[name].title for name in values if name in metrics}
    width = max([18, *map(len, titles.values())])
    return {name: title.ljust(width) for name, title in titles.items()}


def _with_interval(test: dict[str, Any], key: str, metric: str) -> str:
    """A metric or a gap of an external test, with its interval if there is one."""
    value, form = test[key].get(metric), "+.4f" if key == "gap" else ".4f"
    interval = test["intervals" if key == "metrics" else "gap_intervals"].get(metric)
    text = "–" if value is None else format(value, form)
    return text + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


def _seen_lines(result: dict[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """How many test cases were seen in pretraining, and the metrics on the others where some were."""
    known = result["contamination"]
    if known is None:
        return []
    kinds = {"patient": "same patient", "pixels": "same pixels", "near": "near-duplicate"}
    counts = ", ".join(f"{word} {'unknown' if known[kind] is None else known[kind]}" for kind, word in kinds.items())
    lines = [f"  seen in pretraining: {known['seen']} of {known['cases']} test cases ({counts})"]
    if known["unknown"]:
        unrecorded = f"the training images of {', '.join(known['unknown_stages'])} are not recorded"
        lines[0] += f"; unknown for {known['unknown']}: {unrecorded}"
        if known["unknown"] == known["cases"]:
            lines = [f"  seen in pretraining: unknown for all {known['cases']} test cases: {unrecorded}"]
    if others := known["other_images"]["seen"]:
        lines[0] += f"; {others} of the {known['other_images']['images']} other images of the target's store"
    if known["seen"] and known["metrics_clean"]:
        values = [
            f"{metrics[name].title} {'–' if value is None else f'{value:.4f}'}"
            for name, value in known["metrics_clean"].items()
            if name in metrics
        ]
        lines.append(f"  on the {known['cases'] - known['seen']} others: {', '.join(values)}")
    return lines


def _counted(n: dict[str, int | None]) -> str:
    patients = "" if n["patients"] is None else f" of {n['patients']} patients"
    groups = f" in {n['groups']} groups" if "groups" in n else ""
    return f"{n['images']} images{groups}{patients}"


VERB = Verb(
    "evaluate backbones on a task; test is evaluated once",
    arguments,
    run,
    as_text,
    check=check,
    epilog="settings of a protocol: ssl-transfer list protocols finetune",
)
