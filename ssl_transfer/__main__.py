"""The command line: `ssl-transfer VERB …`. A verb calls one stage and gives its answer, which is printed here.

Stages are imported when their verb runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from ssl_transfer.arguments import parse
from ssl_transfer.console import is_main_process, say, warn
from ssl_transfer.errors import Interrupted, SslTransferError, UnreachableError, UsageError


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 done, 2 the input is wrong, 143 stopped by SIGTERM with a checkpoint, 1 anything else.
    """
    try:
        options = parse(arguments)
        if (out := getattr(options, "out", None)) and out.is_file():
            raise UsageError(f"--out {out}: this is a file, expected a folder. Choose another place.")
        answer = VERBS[options.verb](options)
    except SslTransferError as error:
        if is_main_process():
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except Interrupted as interruption:
        say(str(interruption))
        return 143
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    if is_main_process():
        print(json.dumps(answer, default=str) if options.json else SHOWN.get(options.verb, _readable)(answer))
    return 0


def _ingest(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.data.ingest.stage import ingest
    from ssl_transfer.data.inspect import store_summary

    try:
        shares = tuple(float(share) for share in options.split.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(f"--split {options.split}: expected three shares that sum to 1, for example 0.7,0.15,0.15.")
    names = (
        "format",
        "labels",
        "label_key",
        "size",
        "channels",
        "modality",
        "domain",
        "masks",
        "mask_names",
        "axis",
        "compress",
        "resplit",
        "seed",
        "max_refused",
        "workers",
    )
    chosen = {name: getattr(options, name) for name in names}
    store = ingest(options.source, options.out, split_shares=shares, **chosen)
    return store_summary(store)


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.run import read_json

    path: Path = options.path.parent if options.path.name == "result.json" else options.path
    named = (
        read_json(path / f"{name}.json") for name in ("card", "result", "run", "quickstart", "plan", "rank", "analysis")
    )
    card = next(filter(None, named), None)
    kind = (card or {}).get("kind") or (card or {}).get("stage")
    if options.figure and kind != "store":
        raise UsageError(f"{path}: --figure draws stores, and this is {kind or 'nothing that ssl_transfer wrote'}.")
    if kind == "store" or card is None:  # ImageStore says what is wrong with a path that is nothing
        from ssl_transfer.data.inspect import contact_sheet, store_summary
        from ssl_transfer.data.store import ImageStore

        store = ImageStore(path)
        if options.figure:
            contact_sheet(store, options.figure)
            say(f"contact sheet: {options.figure}")
        return store_summary(store)
    if kind == "plan":
        from ssl_transfer.study.plan import Plan
        from ssl_transfer.study.verbs import standing

        return standing(Plan.load(path))
    if kind == "pretrain":
        return {**card, "done": (path / "backbone" / "card.json").exists(), "run": str(path)}
    return card


def _pretrain(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.recipe import PretrainRecipe, load_recipe

    recipe = load_recipe(PretrainRecipe, options.recipe, options.overrides)
    if "name" not in recipe.model_fields_set:
        recipe = recipe.model_copy(update={"name": options.recipe.stem})
    from ssl_transfer.data.store import ImageStore

    for source in recipe.data.sources():  # what is wrong here is said before torch loads
        ImageStore(source.store)
    from ssl_transfer.pretraining.stage import pretrain

    return pretrain(recipe, options.out, options.resume, where=str(options.recipe), untrained=options.untrained)


def _features(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)
    from ssl_transfer.features import extract_features

    backbone = _backbone(options.backbone, store)
    features = extract_features(backbone, store, options.out, options.size, options.precision)
    return {**features.card, "features": str(features.path)}


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    words, settings = options.words, options.overrides
    if len(words) < 2:
        raise UsageError(
            f"evaluate {options.protocol}: found {' '.join(words) or 'nothing'}, expected BACKBONE … TASK."
        )
    *backbones, name = words
    if options.features and len(backbones) > 1:
        raise UsageError("--features: found several backbones, and features belong to one. Leave it out.")

    from ssl_transfer.data.tasks import Task

    task = Task.load(name)
    from ssl_transfer.evaluation.stage import evaluate, evaluate_recipes

    recipes = list(evaluate_recipes(options.protocol, settings))
    several, results = len(recipes) * len(backbones) > 1, []
    for spec in backbones:
        backbone = _backbone(spec, task.store)
        for recipe, own in recipes:
            out = options.out
            if out and several:
                out /= f"{backbone.id}-" * (len(backbones) > 1) + f"{recipe.fraction:g}-{recipe.seed}"
            result, folder = evaluate(options.protocol, backbone, task, recipe, own, out, options.features)
            results.append({**asdict(result), "result": str(folder / "result.json")})
            if several:
                _tell(result, task.card.metric, spec)
    return {"results": results} if several else results[0]


def _tell(result: Any, metric: str, spec: str) -> None:
    """One line per evaluation of several."""
    value, interval = result.metrics["test"][metric], result.intervals.get(metric)
    shown = "–" if value is None else f"{value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")
    say(
        f"{spec}: {result.strategy or result.protocol}, fraction {result.fraction:g}, seed {result.seed}: {metric} {shown}"
    )


def _backbone(spec: str, store: Any) -> Any:
    """A backbone; one without a size or channels of its own takes the store's."""
    from ssl_transfer.models.backbone import load_backbone

    return load_backbone(spec, in_channels=store.shape[0], size=max(store.shape[1:]))


def _rank(options: argparse.Namespace) -> dict[str, Any]:
    specs = options.words
    if not specs:
        raise UsageError("rank: found no backbone, expected TASK BACKBONE …")
    from ssl_transfer.data.tasks import Task
    from ssl_transfer.recipe import merge, resolve_options

    task = Task.load(options.task)
    from ssl_transfer.ranking.source_classifier import SourceLabels
    from ssl_transfer.ranking.stage import rank

    settings = resolve_options(rank, merge({}, options.overrides), "rank")
    sources = [SourceLabels.open(spec) for spec in options.source]
    loaded, left_out = [(spec, _backbone(spec, task.store)) for spec in specs], []
    for spec in filter(None, (options.candidates or "").split(",")):
        if not spec.startswith("timm:"):
            raise UsageError(
                f"--candidates {spec}: expected timm:NAME[.TAG]. Others are named as backbones, behind the task."
            )
        try:
            loaded.append((spec, _backbone(spec, task.store)))
        except UnreachableError as error:
            warn(f"left out: {error}")
            left_out.append(f"Left out: {error}")
    answer, folder = rank(task, _by_name(loaded), options.out, options.features, sources, **settings)
    return {**answer, "caveats": [*answer["caveats"], *left_out], "ranking": str(folder / "rank.json")}


def _analyze(options: argparse.Namespace) -> dict[str, Any]:
    if not options.words:
        raise UsageError("analyze: found no backbone, expected BACKBONE … --store STORE.")
    from ssl_transfer.data.store import ImageStore

    store = ImageStore(options.store)
    against = {path.name: ImageStore(path) for path in options.against}
    if len({options.store.name, *against}) <= len(options.against):
        raise UsageError(
            "--against: stores are called by the names of their folders, and two have the same. Rename one."
        )
    from ssl_transfer.analysis.failures import Predictions
    from ssl_transfer.analysis.stage import analyze
    from ssl_transfer.recipe import merge, resolve_options

    settings = resolve_options(analyze, merge({}, options.overrides), "analyze")
    results = Predictions.open(options.results)
    if len(results) == 1:
        raise UsageError("--results: found one result, expected two or more: failures are compared between them.")
    named = _by_name([(spec, _backbone(spec, store)) for spec in options.words])
    subjects = [_subject(name, backbone, store, options) for name, backbone in named.items()]
    answer, folder = analyze(subjects, store, options.out, against, results, **settings)
    return {**answer, "analysis": str(folder), "explorer": str(folder / "explorer.html")}


def _subject(name: str, backbone: Any, store: Any, options: argparse.Namespace) -> Any:
    """A backbone as an analysis sees it."""
    from functools import cache

    from ssl_transfer.analysis.analyzed_backbone import AnalyzedBackbone
    from ssl_transfer.features import extract_features, features_id, layer_features, paired_features

    size, precision = options.size, options.precision
    return AnalyzedBackbone(
        features_id(backbone, store, size, precision),
        name,
        backbone.card,
        cache(lambda of: extract_features(backbone, of, None, size, precision).values),
        lambda of, rows: layer_features(backbone, of, rows, size, precision),
        lambda of, rows: paired_features(backbone, of, rows, size=size),
    )


def _analysis(answer: dict[str, Any]) -> str:
    from ssl_transfer.analysis.summary_text import listing

    return listing(answer)


def _by_name(loaded: list[tuple[str, Any]]) -> dict[str, Any]:
    """Backbones by the shortest name that tells them apart: their own, that with the pretraining seed, the word given."""
    options = []
    for spec, backbone in loaded:
        name, seed = backbone.card["name"], backbone.card["pretraining_seed"]
        options.append((name, *([] if seed is None else [f"{name} (seed {seed})"]), spec))
    counts = Counter(name for names in options for name in set(names))
    named: dict[str, Any] = {}
    for names, (spec, backbone) in zip(options, loaded, strict=True):
        if any(other.id == backbone.id for other in named.values()):
            raise UsageError(f"{spec} was given twice. Leave one out.")
        named[next((name for name in names if counts[name] == 1), spec)] = backbone
    return named


def _ranking(answer: dict[str, Any]) -> str:
    from ssl_transfer.ranking.listing import listing

    return listing(answer)


def _quickstart(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.quickstart import quickstart

    return quickstart(_perform, options.out, options.scale)


def _study(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.study import verbs

    return verbs.study(options, verbs.Doer(_perform, _check))


def _perform(words: list[str]) -> Any:
    """Do a verb in this process and answer as it does; what goes wrong is raised."""
    options = parse(words)
    return VERBS[options.verb](options)


def _check(words: list[str]) -> None:
    """Refuse a verb whose recipe or settings name what does not exist, before anything is run."""
    options = parse(words)
    if options.verb == "pretrain":
        from ssl_transfer.pretraining.setup import resolve
        from ssl_transfer.recipe import PretrainRecipe, load_recipe

        resolve(load_recipe(PretrainRecipe, options.recipe, options.overrides), str(options.recipe))
    elif options.verb == "rank":
        from ssl_transfer.ranking.stage import rank
        from ssl_transfer.recipe import merge, resolve_options

        resolve_options(rank, merge({}, options.overrides), "rank")
    elif options.verb == "evaluate":
        from ssl_transfer.evaluation.stage import evaluate_recipes

        list(evaluate_recipes(options.protocol, options.overrides))


def _readable(answer: Any, indent: int = 0) -> str:
    """A nested answer as indented `key: value` lines."""
    pad = " " * indent
    if isinstance(answer, dict):
        lines = []
        for key, value in answer.items():
            nested = isinstance(value, (dict, list)) and value and not _is_flat(value)
            lines.append(f"{pad}{key}:\n{_readable(value, indent + 2)}" if nested else f"{pad}{key}: {_word(value)}")
        return "\n".join(lines)
    if isinstance(answer, list):
        return "\n".join(f"{pad}- {_word(item)}" for item in answer)
    return f"{pad}{_word(answer)}"


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, (int, float)) for item in value)


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(item)}" for key, item in value.items())
    if value is None or value == []:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


VERBS = {
    "quickstart": _quickstart,
    "ingest": _ingest,
    "inspect": _inspect,
    "pretrain": _pretrain,
    "features": _features,
    "evaluate": _evaluate,
    "rank": _rank,
    "analyze": _analyze,
    "study": _study,
}
SHOWN = {"rank": _ranking, "analyze": _analysis}  # where lines of `key: value` are not enough


if __name__ == "__main__":
    sys.exit(main())
