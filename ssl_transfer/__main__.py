"""The command line: `ssl-transfer VERB …`. A verb parses, calls one stage, and prints its answer.

Stages are imported when their verb runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from ssl_transfer import __version__
from ssl_transfer.console import is_main_process, say
from ssl_transfer.errors import Interrupted, SslTransferError, UsageError

PROTOCOLS = ("linear_probe", "knn", "finetune", "segment")
SETTING = re.compile(r"[\w.]+=")  # key=value, unlike the backbone scratch:resnet18,size=64
OVERRIDES = "settings laid over the recipe, for example train.epochs=10"


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        Exit status: 0 done, 2 the input is wrong, 143 stopped by SIGTERM with a checkpoint, 1 anything else.
    """
    try:
        options = _parse(arguments)
        if (out := getattr(options, "out", None)) and out.is_file():
            raise UsageError(f"--out {out}: this is a file, expected a folder. Choose another place.")
        answer = options.run(options)
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
        print(json.dumps(answer, default=str) if options.json else _readable(answer))
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaints in the form of every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}. See {self.prog} --help.")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line; argparse leaves over `key=value` words that stand behind an option."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    settings = [word for word in rest if "=" in word and not word.startswith("-")]
    if len(settings) < len(rest) or (settings and not hasattr(options, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if settings:
        options.overrides = [*options.overrides, *settings]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ssl-transfer",
        description="Pretrain without labels on one domain, measure what it is worth on another, and say with statistics "
        "whether staying in the domain paid.",
    )
    parser.add_argument("--version", action="version", version=f"ssl-transfer {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, run: Any, help: str, epilog: str | None = None) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=help, description=help, epilog=epilog)
        added.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        added.set_defaults(run=run)
        return added

    _quickstart_arguments(verb)
    _ingest_arguments(verb)
    added = verb("inspect", _inspect, "print what an artifact is: a store, backbone, features or result")
    added.add_argument("path", type=Path)
    added.add_argument("--figure", type=Path, metavar="FILE.png", help="draw a contact sheet of a store")

    added = verb(
        "pretrain", _pretrain, "store in, self-supervised backbone out", "the same recipe continues its own run"
    )
    added.add_argument("recipe", type=Path)
    added.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    added.add_argument("--out", type=Path, help="folder of the run (default runs/NAME-ID)")
    added.add_argument("--resume", choices=("auto", "never"), default="auto", help="never: start anew")
    added.add_argument(
        "--untrained",
        action="store_true",
        help="the backbone before its first step: random initialisation, the control",
    )

    added = verb("features", _features, "compute and keep a backbone's features of a store")
    added.add_argument("backbone", help="a folder, scratch:NAME or timm:NAME[.TAG]")
    added.add_argument("store", type=Path)
    added.add_argument("--out", type=Path, help="folder (default runs/features/ID)")
    added.add_argument("--size", type=int, help="height and width that the backbone sees (default: its own)")
    added.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")

    added = verb("evaluate", _evaluate, "what a backbone is worth on a task; test is looked at once")
    added.add_argument("protocol", choices=PROTOCOLS)
    added.add_argument(
        "words", nargs="+", metavar="BACKBONE … TASK [key=value …]",
        help="backbones: folders, scratch:NAME or timm:NAME[.TAG]; task: a card in recipes/tasks/ by name, or the path of one; "
        "settings: for example fraction=[0.1,1] seed=[0,1,2]; lists and several backbones are one evaluation of each",
    )  # fmt: skip
    added.add_argument(
        "--out", type=Path, help="folder (default runs/evaluate/ID); of several evaluations: of all of them"
    )
    added.add_argument("--features", type=Path, metavar="DIR", help="of this backbone and task: where probes keep them")
    added.set_defaults(overrides=[])
    _study_arguments(verb)
    return parser


def _quickstart_arguments(verb: Any) -> None:
    added = verb("quickstart", _quickstart, "the main job on the embedded default, end to end")
    added.add_argument("--out", type=Path, default=Path("runs/quickstart"))
    added.add_argument("--scale", choices=("full", "tiny"), default="full", help="tiny ends within a minute")


def _ingest_arguments(verb: Any) -> None:
    added = verb("ingest", _ingest, "files in, image store out")
    added.add_argument("source", help="a file, a folder, or phantom:ct, phantom:cells, phantom:photographs")
    added.add_argument("--out", type=Path, required=True, metavar="STORE")
    added.add_argument("--format", default="auto", choices=("auto", "dicom", "nifti", "images", "npz"))
    added.add_argument("--labels", type=Path, metavar="CSV", help="columns to join to the rows")
    added.add_argument("--label-key", choices=("patient", "series", "file"), help="the CSV's key column")
    added.add_argument(
        "--masks", metavar="PATH|PATTERN", help="label volumes or mask images; fields {stem} {parent} {number}"
    )
    added.add_argument("--mask-names", metavar="JSON|NAMES", help='{"1": "liver"} in a file, or liver,lesion')
    added.add_argument("--size", type=int, metavar="PX", help="height and width (default: the most common)")
    added.add_argument("--channels", type=int, choices=(1, 3), help="default 3 only if all images are colour")
    added.add_argument("--modality", help="keep only this DICOM modality, for example CT")
    added.add_argument("--domain", help="for example ct, xray/chest, microscopy/cell_line")
    added.add_argument("--axis", choices=("axial", "coronal", "sagittal"), default="axial", help="slices of a volume")
    added.add_argument("--compress", action="store_true", help="blosc2 lz4 in place of plain .npy")
    added.add_argument("--resplit", action="store_true", help="draw splits anew even if the source has some")
    added.add_argument("--split", default="0.7,0.15,0.15", metavar="TRAIN,VAL,TEST", help="shares of the patients")
    added.add_argument("--seed", type=int, default=0, help="of the splits")
    added.add_argument("--max-refused", type=float, default=0.05, metavar="SHARE", help="unreadable files tolerated")
    added.add_argument("--workers", type=int, help="processes that decode (default: as many as cores)")


def _study_arguments(verb: Any) -> None:
    added = verb("study", _study, "many evaluations from one YAML: plan, run, status, report")
    added.add_argument("action", choices=("plan", "run", "status", "report", "job"))
    added.add_argument("study", type=Path, nargs="?", help="a study's YAML, or its folder once it is planned")
    added.add_argument("overrides", nargs="*", metavar="key=value", help="laid over the YAML; of `job`: the job's id")
    added.add_argument("--out", type=Path, help="folder (default studies/NAME)")
    added.add_argument("--dry-run", action="store_true", help="plan: print what it would be, write nothing")
    added.add_argument(
        "--results", type=Path, metavar="CSV", help="report: a tidy table made elsewhere, in place of a study"
    )
    added.add_argument("--margin", type=float, help="report --results: largest difference that counts as equivalent")
    added.add_argument(
        "--family", metavar="COLUMNS", help="report --results: of Holm's correction (default protocol,metric)"
    )
    added.add_argument("--domains", type=Path, metavar="CSV", help="report --results: pretraining,task,boundary")
    added.add_argument(
        "--primary", metavar="KEY=VALUE,…", help="report --results: the contrast that the answer rests on"
    )


def _ingest(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.data.ingest import ingest
    from ssl_transfer.data.inspect import store_summary

    try:
        shares = tuple(float(share) for share in options.split.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(f"--split {options.split}: expected three shares that sum to 1, for example 0.7,0.15,0.15.")
    names = (
        "format", "labels", "label_key", "size", "channels", "modality", "domain", "masks", "mask_names", "axis",
        "compress", "resplit", "seed", "max_refused", "workers",
    )  # fmt: skip
    chosen = {name: getattr(options, name) for name in names}
    store = ingest(options.source, options.out, split_shares=shares, **chosen)
    return store_summary(store)


def _inspect(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.run import read_json

    path: Path = options.path.parent if options.path.name == "result.json" else options.path
    named = (read_json(path / f"{name}.json") for name in ("card", "result", "run", "quickstart", "plan"))
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
    from ssl_transfer.pretrain import pretrain

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

    words, settings = _split(options)
    if len(words) < 2:
        raise UsageError(
            f"evaluate {options.protocol}: found {' '.join(words) or 'nothing'}, expected BACKBONE … TASK."
        )
    *backbones, name = words
    if options.features and len(backbones) > 1:
        raise UsageError("--features: found several backbones, and features belong to one. Leave it out.")

    from ssl_transfer.data.tasks import Task

    task = Task.load(name)
    from ssl_transfer.evaluate import evaluate, evaluate_recipes

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


def _split(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Backbones and task, and settings, of `evaluate`."""
    words = [word for word in options.words if not SETTING.match(word)]
    return words, [word for word in options.words if SETTING.match(word)] + options.overrides


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


def _quickstart(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.quickstart import quickstart

    return quickstart(_perform, options.out, options.scale)


def _study(options: argparse.Namespace) -> dict[str, Any]:
    from ssl_transfer.study import verbs

    return verbs.study(options, verbs.Doer(_perform, _check))


def _perform(words: list[str]) -> Any:
    """Do a verb in this process and answer as it does; what goes wrong is raised."""
    options = _parse(words)
    return options.run(options)


def _check(words: list[str]) -> None:
    """Refuse a verb whose recipe or settings name what does not exist, before anything is run."""
    options = _parse(words)
    if options.run is _pretrain:
        from ssl_transfer.pretrain.setting import completed
        from ssl_transfer.recipe import PretrainRecipe, load_recipe

        completed(load_recipe(PretrainRecipe, options.recipe, options.overrides), str(options.recipe))
    elif options.run is _evaluate:
        from ssl_transfer.evaluate import evaluate_recipes

        list(evaluate_recipes(options.protocol, _split(options)[1]))


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


if __name__ == "__main__":
    sys.exit(main())
